"""Gate: the candidate answers every request that the live bundle answers."""

from __future__ import annotations

import math

from pipelines.declarations.bundle import RequestColumn, RequestSchema
from pipelines.promotion.facts import Facts
from pipelines.promotion.verdict import Verdict, failed, inconclusive, passed


def incompatibilities(live: RequestSchema, candidate: RequestSchema) -> list[str]:
    """Return the breaking changes of a request schema: rejected requests and differently shaped answers."""
    old_inputs, new_inputs = ({tensor.name: tensor for tensor in s.inputs} for s in (live, candidate))
    found = [f"input {name} was removed" for name in old_inputs if name not in new_inputs]
    found += [
        f"input {name} was added and is required"
        for name, tensor in new_inputs.items()
        if name not in old_inputs and not all(column.optional for column in tensor.columns)
    ]
    for name in (name for name in old_inputs if name in new_inputs):
        old, new = old_inputs[name], new_inputs[name]
        added = new.columns[len(old.columns) :]
        if added and old.datatype == new.datatype and all(column.optional for column in added):
            new = new.model_copy(update={"shape": old.shape, "columns": new.columns[: len(old.columns)]})
        if (old.datatype, old.shape) != (new.datatype, new.shape):
            found.append(f"input {name}: was {old.datatype} {list(old.shape)}, is {new.datatype} {list(new.shape)}")
        elif [column.name for column in old.columns] != [column.name for column in new.columns]:
            found.append(f"the columns of {name}, or their order, changed")
        else:
            for before, after in zip(old.columns, new.columns, strict=True):
                found += _narrowed(before, after)
    old_outputs, new_outputs = ({tensor.name: tensor for tensor in s.outputs} for s in (live, candidate))
    found += [f"output {name} was removed" for name in old_outputs if name not in new_outputs]
    for name in (name for name in old_outputs if name in new_outputs):
        was, now = old_outputs[name], new_outputs[name]
        if (was.datatype, was.shape) != (now.datatype, now.shape):
            found.append(f"output {name}: was {was.datatype} {list(was.shape)}, is {now.datatype} {list(now.shape)}")
    return found


def _narrowed(old: RequestColumn, new: RequestColumn) -> list[str]:
    """Return how a column accepts fewer values than before."""
    found = []
    for side, moved, sign in (("minimum", "rose", 1), ("maximum", "fell", -1)):
        before, after = _bound(old, side, sign), _bound(new, side, sign)
        if after > before:
            kind = f"exclusive {side}" if after[1] else side
            found.append(f"the {kind} of {old.name} {moved} to {sign * after[0]:g}")
    if new.values is not None:
        gone = [value for value in old.values if value not in new.values] if old.values is not None else []
        if old.values is None:
            found.append(f"{old.name} is now limited to listed values")
        elif gone:
            found.append(f"{old.name} may no longer be {', '.join(map(str, gone))}")
    if old.nullable and not new.nullable:
        found.append(f"{old.name} is now required")
    if old.optional and not new.optional:
        found.append(f"{old.name} may no longer be left out")
    return found


def _bound(column: RequestColumn, side: str, sign: int) -> tuple[float, bool]:
    """Return the effective bound on one side and whether it is exclusive; a greater one allows fewer values."""
    both = ((getattr(column, side), False), (getattr(column, f"exclusive_{side}"), True))
    return max(((sign * value, strict) for value, strict in both if value is not None), default=(-math.inf, False))


def _only_adds(live: RequestSchema, candidate: RequestSchema) -> bool:
    """Return whether the candidate would be compatible if callers could leave out what is new."""
    known = {column.name for tensor in live.inputs for column in tensor.columns}
    inputs = tuple(
        tensor.model_copy(
            update={
                "columns": tuple(
                    column.model_copy(update={"optional": column.optional or column.name not in known})
                    for column in tensor.columns
                )
            }
        )
        for tensor in candidate.inputs
    )
    return not incompatibilities(live, candidate.model_copy(update={"inputs": inputs}))


def compatibility(facts: Facts) -> Verdict:
    """Refuse a candidate with breaking changes for callers of the live bundle."""
    threshold = "no breaking change"
    if facts.request_schema is None:
        return inconclusive("compatibility", threshold, facts.missing("request_schema"), "train again")
    if facts.live is None and "live" in facts.unknown:
        fix = "make the environment's registry readable"
        return inconclusive("compatibility", threshold, facts.missing("live"), fix)
    if facts.live is None:
        return passed("compatibility", "first release", threshold, "no bundle is live")
    if facts.live_schema is None:
        fix = "find out why the live bundle cannot be read"
        return inconclusive("compatibility", threshold, facts.missing("live_schema"), fix)
    found = incompatibilities(facts.live_schema, facts.request_schema)
    if found:
        fix = "release it as a new model, and move the callers"
        if _only_adds(facts.live_schema, facts.request_schema):
            fix = f"list the new features in serving.optional_features of model.yaml, and train again; or {fix}"
        return failed("compatibility", f"{len(found)} breaking", threshold, "; ".join(found[:5]), fix)
    return passed("compatibility", "0 breaking", threshold, "every valid request stays valid")
