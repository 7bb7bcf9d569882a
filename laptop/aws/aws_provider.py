"""AWS provider of the engine: a table of resource types, applied with boto3."""

from __future__ import annotations

import copy
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.policies.resource_graph import UNKNOWN
from laptop.aws import functions
from laptop.aws.access.policy import parse
from laptop.aws.cloud import Cloud, code_of
from laptop.aws.computed_outputs import computed_outputs
from laptop.aws.emulation_gaps import emulation_gaps
from laptop.aws.json_documents import normalized
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values
from laptop.aws.table import row_of
from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import Created, Diff, IncompleteError, ResourceCall, is_provider, package_of
from laptop.engine.values import has_unknown
from pipelines.declarations.errors import MlopsError

_NO_BOUNDARY = "Scope ARN: "
"""Start of what IAM says of a permissions boundary that does not exist."""


class AwsProvider:
    """Applies resources of the package `aws`. Thread-safe.

    Args:
        environ: AWS variables of the account, `Account.environ()`.
        home: folder of the account, `Account.home`.
    """

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self.cloud = Cloud(environ, home)

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        """Fill in names and defaults; raise MlopsError for a type or property that the table does not have."""
        given = {
            key: value
            for key, value in inputs.items()
            if value is not None and not (key.startswith("__") or key == "id")
        }
        if is_provider(type_):
            return given
        row = row_of(type_)
        _refuse_unknown(row, name, given)
        if row.auto_name is not None and given.get(row.auto_name.property) is None:
            given[row.auto_name.property] = _named(row.auto_name, type_, name, old_inputs or {})
        for key, value in row.defaults.items():
            given.setdefault(key, value)
        for key in row.documents:
            if key in given and not isinstance(given[key], str) and not has_unknown(given[key]):
                given[key] = json.dumps(given[key])
        for key in row.policies:
            if isinstance(given.get(key), str) and given[key]:
                parse(given[key], f"`{name}` ({type_}, {key})")
        return given

    def diff(self, call: ResourceCall) -> Diff:
        """Compare inputs by meaning: the order of keys in a policy, or of items in a set, is ignored."""
        if is_provider(call.type):
            return Diff(tuple(write_path(path) for path in changed_paths(call.old_inputs, call.inputs)))
        row, old_inputs, new_inputs = row_of(call.type), call.old_inputs, call.inputs
        changed: list[str] = []
        replace: list[str] = []
        for key in sorted(old_inputs.keys() | new_inputs.keys()):
            old, new = old_inputs.get(key), new_inputs.get(key)
            if new is not UNKNOWN and key in row.documents:
                paths = [] if normalized(old) == normalized(new) else [key]
            elif new is not UNKNOWN and key in row.sets and not has_unknown(new):
                paths = [] if sorted(old or []) == sorted(new or []) else [key]
            else:
                paths = [write_path(path) for path in changed_paths(old, new, (key,))]
            changed += paths
            if paths and (key in row.replaces or row.update is None):
                replace += paths
        return Diff(tuple(changed), tuple(replace), bool(replace) and _same_name(row, old_inputs, new_inputs))

    def create(self, call: ResourceCall) -> Created:
        """Create the resource and read it back."""
        if is_provider(call.type):
            return Created(package_of(call.type), call.inputs)
        row = row_of(call.type)
        with _explained("create", call):
            id_ = row.create(self._aws(call))
        try:
            with _explained("read", call):
                return self._created(row, call, id_)
        except MlopsError as error:
            raise IncompleteError(str(error), id_, {"id": id_, **call.inputs}) from error

    def read(self, call: ResourceCall) -> dict[str, Any] | None:
        """Return the live outputs, or None if the resource does not exist."""
        if is_provider(call.type):
            return call.outputs
        row = row_of(call.type)
        if not call.inputs and not call.outputs:
            call = replace(call, inputs=copy.deepcopy(dict(row.form)))
        with _explained("read", call):
            live = row.read(self._aws(call))
        if live is not None and call.inputs == row.form:
            return _outputs(row, self.cloud, call.id, {}, live)
        return None if live is None else _outputs(row, self.cloud, call.id, {**call.inputs, **call.outputs}, live)

    def update(self, call: ResourceCall) -> Created:
        """Change the resource in place and read it back."""
        if is_provider(call.type):
            return Created(call.id, call.inputs)
        row = row_of(call.type)
        if row.update is None:
            raise MlopsError(f"`{call.type}` cannot be changed in place", fix="replace the resource.")
        with _explained("update", call):
            row.update(self._aws(call))
            return self._created(row, call, call.id)

    def delete(self, call: ResourceCall) -> None:
        """Delete the resource. A missing resource is not an error."""
        if not is_provider(call.type):
            with _explained("delete", call):
                row_of(call.type).delete(self._aws(call))

    def computed(self, type_: str) -> frozenset[str]:
        """Return the output properties that AWS sets if the program does not. Makes no requests."""
        return frozenset() if is_provider(type_) else computed_outputs(type_) | {"id"}

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Call a function such as `aws:index/getRegion:getRegion`."""
        with _explained("call", ResourceCall(token, args)):
            return functions.call(self.cloud, token, args)

    def imported_inputs(self, type_: str, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the inputs of an existing resource, without the values that AWS has anyway."""
        row = row_of(type_)
        given = {
            key: _without_none(value)
            for key, value in outputs.items()
            if key in (*row.required, *row.optional)
            and key not in row.computed
            and value not in (None, "", [], {})
            and value != row.form.get(key)
        }
        return {**row.defaults, **given}

    def recorded(self, type_: str, inputs: dict[str, Any]) -> Mapping[str, str]:
        """Return the inputs without effect on the laptop, with the reasons; "" stands for the whole resource."""
        return {gap.property: gap.reason for gap in emulation_gaps(type_, inputs)}

    def _aws(self, call: ResourceCall) -> AwsCall:
        return AwsCall(**vars(call), cloud=self.cloud)

    def _created(self, row: Row, call: ResourceCall, id_: str) -> Created:
        live = row.read(self._aws(replace(call, id=id_)))
        if live is None:
            raise MlopsError(
                f"`{row.token}` ({id_}) does not exist after it was applied",
                fix="check that no other program deletes it, then run `mlops up` again.",
            )
        return Created(id_, _outputs(row, self.cloud, id_, call.inputs, live), row.recorded)


def _outputs(row: Row, cloud: Cloud, id_: str, known: Values, live: Values) -> Values:
    """Merge known and live values. A live value with the same meaning keeps the known form."""
    outputs = {"id": id_, **known}
    for key, value in live.items():
        was = known.get(key)
        if key in row.documents and was is not None and normalized(was) == normalized(value):
            continue
        if key in row.sets and was is not None and sorted(was) == sorted(value or []):
            continue
        if value or was is not None or key not in (*row.required, *row.optional):
            outputs[key] = value
    if "tags" in row.optional:
        outputs["tagsAll"] = outputs.get("tags") or {}
    if "region" in row.optional:
        outputs.setdefault("region", cloud.region)
    return outputs


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _refuse_unknown(row: Row, name: str, given: Values) -> None:
    for key in given:
        if key not in (*row.required, *row.optional):
            raise MlopsError(
                f"`{name}` ({row.token}) has the property `{key}`, which the laptop does not support",
                fix=f"remove it, or add it to the row of {row.token} in laptop/aws/resources/.",
            )
    for key in row.required:
        if key not in given:
            raise MlopsError(f"`{name}` ({row.token}) lacks the property `{key}`", fix=f"set `{key}`.")


def _named(auto: AutoName, type_: str, name: str, old: Values) -> str:
    kept = old.get(auto.property)
    if isinstance(kept, str) and kept:
        return kept
    text = f"{auto.prefix}{name}-{secrets.token_hex(4)[:7]}"
    if auto.lower:
        text = text.lower()
    if len(text) > auto.longest:
        raise MlopsError(
            f"the generated name of `{name}` ({type_}) is too long: expected at most {auto.longest} characters, "
            f"found {len(text)}",
            fix=f"use a shorter name, or set `{auto.property}`.",
        )
    return text


def _same_name(row: Row, old: Values, new: Values) -> bool:
    """Return True if the old and the new resource cannot coexist at AWS."""
    return bool(row.named_by) and all(old.get(key) == new.get(key) for key in (*row.named_by, "region"))


@contextmanager
def _explained(verb: str, call: ResourceCall) -> Iterator[None]:
    """Convert an AWS error to an MlopsError."""
    from botocore.exceptions import BotoCoreError, ClientError

    what = f"`{call.type}` {call.urn or call.id}".strip()
    try:
        yield
    except ClientError as error:
        detail = error.response.get("Error", {}).get("Message", "")
        fix = "bootstrap the account first: docs/bootstrap.md." if detail.startswith(_NO_BOUNDARY) else ""
        raise MlopsError(
            f"AWS refused to {verb} {what}: {code_of(error)}: {detail} ({error.operation_name})", fix=fix
        ) from error
    except BotoCoreError as error:
        raise MlopsError(
            f"cannot {verb} {what}: {error}", fix="check that the laptop is running: mlops laptop status."
        ) from error
