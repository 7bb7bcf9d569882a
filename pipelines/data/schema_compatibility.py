"""Find the changes of a contract that break consumers of its data, and judge them by its version.

A consumer may rely on every promise of the old contract: a column exists, has a type, is never null, stays within
bounds. Removing or weakening a promise is a breaking change. A stricter promise or a new column is not, nor is another
way to write the same promise, nor a change that only affects producers.

A contract's version is semantic: a breaking change needs a new major version. A range or list that lets more values in
breaks only models that have the column as a feature or target, because they were trained without those values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.data.checks import described_bounds
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.quality import Quality
from pipelines.declarations.value_range import Scalar, parse_value

UNBINDING = ("draft", "proposed")
"""Statuses of a contract that binds nobody yet."""

_WIDER = {("int", "long"), ("float", "double")}
"""Changes of a stored type that an Iceberg table can make."""

_MOST_LISTED = 10_000
"""Integers of a range that are compared with a list one by one."""


@dataclass(frozen=True)
class BreakingChange:
    """A promise of the old contract that the new one removes or weakens.

    Attributes:
        column: name of the column, or "" for the dataset.
        promise: the key of the contract.
        before: its old value.
        after: its new value.
        widens: True if the column only lets more values in.
        final: True if no version allows it, because the table cannot make the change.
    """

    column: str
    promise: str
    before: str
    after: str
    widens: bool = False
    final: bool = False

    def __str__(self) -> str:
        return f"{self.column or 'the dataset'}: {self.promise} was {self.before}, is {self.after}"


def unannounced_changes(old: Contract, new: Contract, read: Collection[str]) -> list[BreakingChange]:
    """List the breaking changes that the version of the new contract does not announce.

    Args:
        old: the contract before the change. A draft binds nobody.
        new: the contract after it.
        read: columns that are a feature or the target of a model.
    """
    if old.status in UNBINDING:
        return []
    before, after = _version(old), _version(new)
    if after < before:
        return [BreakingChange("", "version", old.version, new.version, final=True)]
    announced = after[: 1 if before[0] else 2] > before[: 1 if before[0] else 2]
    return [
        change
        for change in breaking_changes(old, new)
        if change.final or (not announced and (not change.widens or change.column in read))
    ]


def _version(contract: Contract) -> tuple[int, ...]:
    return tuple(int(part) for part in contract.version.split("."))


def next_major(version: str) -> str:
    """Return the version that announces a breaking change; before 1.0.0 that is the next minor one."""
    major, minor, _ = version.split(".")
    return f"{int(major) + 1}.0.0" if major != "0" else f"0.{int(minor) + 1}.0"


def breaking_changes(old: Contract, new: Contract) -> list[BreakingChange]:
    """List the breaking changes from `old` to `new`, in the column order of `old`; empty if there are none."""
    return [
        *_of_dataset(old, new),
        *(change for name, column in old.columns.items() for change in _of_column(column, new, name)),
    ]


def _of_dataset(old: Contract, new: Contract) -> Iterator[BreakingChange]:
    if old.name != new.name:
        yield BreakingChange("", "name", old.name, new.name)
    if new.status == "retired" and old.status != "retired":
        yield BreakingChange("", "status", old.status, new.status)
    if set(old.primary_key) != set(new.primary_key):
        yield BreakingChange("", "primaryKey", ", ".join(old.primary_key), ", ".join(new.primary_key))
    unique = _unique_groups(new)
    for group in _unique_groups(old):
        several = len(group) > 1 and group <= new.columns.keys() and group != set(old.primary_key)
        if several and not any(other <= group for other in unique):
            yield BreakingChange("", "duplicateValues", ", ".join(sorted(group)), "none")
    for rule in old.table.rules:
        if rule.metric == "rowCount":
            same = [other for other in new.table.rules if other.metric == "rowCount" and other.unit == rule.unit]
            yield from _weaker_rule("", rule, same)
        elif rule.type != "library" or not rule.is_for_rows:
            yield from _weaker_rule("", rule, _same_rules(rule, new.table.rules))
    for key in old.foreign_keys:
        if key not in new.foreign_keys:
            before = f"{', '.join(key.columns)} in {', '.join(key.others)} of {key.dataset}"
            yield BreakingChange(key.columns[0] if len(key.columns) == 1 else "", "relationships", before, "none")


def _unique_groups(contract: Contract) -> list[frozenset[str]]:
    """Return the sets of columns that no two rows share the values of, however the contract writes it."""
    groups = [frozenset(contract.primary_key)]
    for name, column in contract.columns.items():
        if column.unique or any(rule.metric == "duplicateValues" and rule.is_for_rows for rule in column.rules):
            groups.append(frozenset((name,)))
    for rule in contract.table.rules:
        if rule.metric == "duplicateValues" and rule.is_for_rows:
            groups.append(frozenset((rule.arguments.properties if rule.arguments else None) or contract.columns))
    return groups


def _of_column(old: Column, contract: Contract, name: str) -> Iterator[BreakingChange]:
    new = contract.columns.get(name)
    if new is None:
        yield BreakingChange(name, "the column", "present", "removed")
        return
    if old.logical_type != new.logical_type:
        yield BreakingChange(name, "logicalType", old.logical_type, new.logical_type, final=True)
        return
    if old.stored_as != new.stored_as:
        fits = {(old.stored_as, new.stored_as), (new.stored_as, old.stored_as)} & _WIDER
        yield BreakingChange(name, "physicalType", old.stored_as, new.stored_as, final=not fits)
    elif old.decimals is not None and (new.decimals is None or new.decimals > old.decimals):
        allowed = f"{new.physical_type or new.stored_as}, with more digits after the point"
        yield BreakingChange(name, "physicalType", str(old.physical_type), allowed, widens=True)
    if _is_never_null(old) and not _is_never_null(new):
        yield BreakingChange(name, "required", "true", "false")
    if frozenset((name,)) in _unique_groups_of(old) and frozenset((name,)) not in _unique_groups(contract):
        yield BreakingChange(name, "unique", "true", "false")
    yield from _wider_values(old, new)
    promised = any(rule.metric == "missingValues" and rule.is_for_rows for rule in old.rules)
    if promised and not _is_never_missing(new) and _is_never_null(new):
        yield BreakingChange(name, "missingValues", "0", "not bounded", widens=True)
    for rule in old.rules:
        if _is_about_values(rule):
            same = [other for other in new.rules if _is_about_values(other) and _covers(other, rule)]
            if not same and not _is_implied(rule, new, contract):
                yield BreakingChange(name, rule.label, _bounds(rule), "none", widens=True)
        elif (rule.type != "library" or not rule.is_for_rows) and not _is_implied(rule, new, contract):
            yield from _weaker_rule(name, rule, _same_rules(rule, new.rules))


def _is_about_values(rule: Quality) -> bool:
    """Return True if a rule on rows says more than that values are there or listed: a pattern, or what is missing."""
    named = rule.arguments.missing_values if rule.arguments is not None else None
    return rule.is_for_rows and rule.type == "library" and (rule.pattern is not None or named is not None)


def _unique_groups_of(column: Column) -> list[frozenset[str]]:
    own = any(rule.metric == "duplicateValues" and rule.is_for_rows for rule in column.rules)
    return [frozenset((column.name,))] if column.unique or own else []


def _is_never_null(column: Column) -> bool:
    none = [rule for rule in column.rules if rule.metric in ("nullValues", "missingValues") and rule.is_for_rows]
    return column.required or column.primary_key or bool(none)


def _is_never_missing(column: Column) -> bool:
    """Return True if no value is null or an empty text."""
    if column.logical_type != "string":
        return _is_never_null(column)
    return _is_never_null(column) and _has_no_empty_text(column)


def _is_implied(rule: Quality, new: Column, contract: Contract) -> bool:
    """Return True if the new column's other promises leave nothing for the rule to count, and it allows that."""
    if not _contains_zero(rule):
        return False
    if rule.metric == "nullValues":
        return _is_never_null(new)
    if rule.metric == "missingValues":
        return _is_never_missing(new)
    if rule.metric == "duplicateValues":
        return frozenset((new.name,)) in _unique_groups(contract)
    if rule.metric != "invalidValues" or rule.pattern is not None:
        return False
    return new.valid_values is not None and set(new.valid_values) <= set(rule.valid_values)


def _has_no_empty_text(column: Column) -> bool:
    listed = column.valid_values
    strict = any(rule.metric == "missingValues" and rule.is_for_rows for rule in column.rules)
    return strict or bool(column.options.min_length) or (listed is not None and "" not in listed)


def _wider_values(old: Column, new: Column) -> Iterator[BreakingChange]:
    yield from _wider_range(old, new)
    yield from _wider_text(old, new)
    before, after = old.valid_values, new.valid_values
    if before is None:
        return
    if after is None:
        if not _is_covered(new, before):
            yield BreakingChange(old.name, "validValues", _listed(before), "any", widens=True)
        return
    known = {parse_value(old.stored_as, value) for value in before}
    more = [value for value in after if parse_value(new.stored_as, value) not in known]
    if more:
        yield BreakingChange(old.name, "validValues", _listed(before), f"also {_listed(more)}", widens=True)


def _is_covered(column: Column, listed: Iterable[Scalar]) -> bool:
    """Return True if a column without a list allows only listed values."""
    known = {parse_value(column.stored_as, value) for value in listed}
    if column.logical_type == "boolean":
        return known == {True, False}
    between = column.value_range
    if column.logical_type != "integer" or between is None or between.high - between.low > _MOST_LISTED:
        return False
    return all(number in known for number in range(int(between.low), int(between.high) + 1))


def _wider_range(old: Column, new: Column) -> Iterator[BreakingChange]:
    before, after = old.value_range, new.value_range
    if before is None or after is None:
        return
    listed = new.valid_values  # which may be narrower than the bounds
    if listed is not None and all(parse_value(new.stored_as, value) in before for value in listed):
        return
    options, others = old.options, new.options
    for promise, was, now, bounds, new_bounds in (
        ("minimum", before.low, after.low, (options.minimum, options.exclusive_minimum), _lower(others)),
        ("maximum", -before.high, -after.high, (options.maximum, options.exclusive_maximum), _upper(others)),
    ):
        unbounded = all(bound is None for bound in bounds)
        if not unbounded and now < was:
            yield BreakingChange(old.name, promise, _described(*bounds), _described(*new_bounds), widens=True)


def _lower(options: Any) -> tuple[Any, Any]:
    return options.minimum, options.exclusive_minimum


def _upper(options: Any) -> tuple[Any, Any]:
    return options.maximum, options.exclusive_maximum


def _described(inclusive: Any, exclusive: Any) -> str:
    texts = [str(inclusive)] if inclusive is not None else []
    texts += [f"{exclusive} (exclusive)"] if exclusive is not None else []
    return " and ".join(texts) or "none"


def _wider_text(old: Column, new: Column) -> Iterator[BreakingChange]:
    before, after, listed = old.options, new.options, new.valid_values
    shortest = min((len(str(value)) for value in listed), default=0) if listed is not None else after.min_length or 0
    if before.min_length and max(shortest, after.min_length or 0) < before.min_length:
        yield BreakingChange(old.name, "minLength", str(before.min_length), _or_none(after.min_length), widens=True)
    longest = max((len(str(value)) for value in listed), default=0) if listed is not None else after.max_length
    bounded = [length for length in (longest, after.max_length) if length is not None]
    if before.max_length is not None and (not bounded or min(bounded) > before.max_length):
        yield BreakingChange(old.name, "maxLength", str(before.max_length), _or_none(after.max_length), widens=True)
    if before.pattern is not None and _unanchored(after.pattern) != _unanchored(before.pattern):
        # We cannot tell which of two regular expressions is stricter.
        yield BreakingChange(old.name, "pattern", before.pattern, _or_none(after.pattern), widens=True)


def _unanchored(pattern: str | None) -> str | None:
    """Return a pattern without the anchors at its ends, which mean nothing because it must match the whole text."""
    if pattern is None:
        return None
    pattern = pattern.removeprefix("^")
    body = pattern.removesuffix("$")
    escaped = (len(body) - len(body.rstrip("\\"))) % 2 == 1
    return pattern if escaped else body


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _same_rules(rule: Quality, rules: Iterable[Quality]) -> list[Quality]:
    """Return the rules that count the same, or more, than a rule does, in the same unit."""
    return [
        other
        for other in rules
        if (other.type, other.metric, other.unit) == (rule.type, rule.metric, rule.unit) and _covers(other, rule)
    ]


def _covers(new: Quality, old: Quality) -> bool:
    if new.type != "library":
        texts = [" ".join((rule.query or rule.condition).split()) for rule in (new, old)]
        return texts[0] == texts[1]
    named = [frozenset((rule.arguments.properties if rule.arguments else None) or ()) for rule in (new, old)]
    return (
        new.metric == old.metric
        and named[0] == named[1]
        and set(new.valid_values) <= set(old.valid_values)
        and _unanchored(new.pattern) == _unanchored(old.pattern)
        and set(new.missing_values) >= set(old.missing_values)
    )


Interval = tuple[tuple[float, bool], tuple[float, bool]]
"""Lower and upper bound as (weight, exclusive); a greater weight is stricter."""


def _weaker_rule(column: str, rule: Quality, same: list[Quality]) -> Iterator[BreakingChange]:
    low, high = _interval(rule)
    intervals = [_interval(other) for other in same]
    kept = bool(same) and max(each[0] for each in intervals) >= low and max(each[1] for each in intervals) >= high
    excluded = (rule.must_not_be, rule.must_not_be_between)
    if any(bound is not None for bound in excluded):
        kept = kept and any((other.must_not_be, other.must_not_be_between) == excluded for other in same)
    if not kept:
        now = " and ".join(_bounds(other) for other in same) or "none"
        yield BreakingChange(column, rule.label, _bounds(rule), now, widens=True)


def _interval(rule: Quality) -> Interval:
    lows = [*rule.lows, (0.0 if rule.type == "library" else float("-inf"), False)]
    highs = [(-bound, strict) for bound, strict in rule.highs]
    highs.append((-100.0 if rule.type == "library" and rule.unit == "percent" else float("-inf"), False))
    return max(lows), max(highs)


def _contains_zero(rule: Quality) -> bool:
    low, high = _interval(rule)
    excluded = (
        rule.must_not_be == 0 or (rule.must_not_be_between or (0, 0))[0] < 0 < (rule.must_not_be_between or (0, 0))[1]
    )
    return rule.type == "library" and low == (0.0, False) and high <= (0.0, False) and not excluded


def _bounds(rule: Quality) -> str:
    return described_bounds(rule) or " ".join(rule.condition.split())
