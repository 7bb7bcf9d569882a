"""The AWS provider of the local target: a table of resource types, applied to the emulated account by boto3."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from laptop.aws import functions
from laptop.aws.access.policy import parse
from laptop.aws.cloud import Cloud, code_of
from laptop.aws.recorded import recorded_properties
from laptop.aws.resources.row import AutoName, Call, Row, Values
from laptop.aws.sameness import differences, document
from laptop.aws.table import row_of
from laptop.engine.provider import PROVIDER_TYPE_PREFIX, Created, Diff
from laptop.engine.values import UNKNOWN, has_unknown
from pipelines.declarations.errors import MlopsError


class AwsProvider:
    """Applies resources of the package `aws`. Safe for several threads.

    Args:
        environ: the standard variables of the account, `Account.environ()`.
        home: the account's folder, `Account.home`.
    """

    def __init__(self, environ: Mapping[str, str], home: Path) -> None:
        self.cloud = Cloud(environ, home)

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        """Inputs with names and defaults filled in; raises MlopsError for what the table does not know."""
        given = {
            key: value
            for key, value in inputs.items()
            if value is not None and not (key.startswith("__") or key == "id")
        }
        if type_.startswith(PROVIDER_TYPE_PREFIX):
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

    def diff(
        self,
        type_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Diff:
        """What differs in meaning: the order of keys in a policy, or of tags, does not count."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            keys = old_inputs.keys() | new_inputs.keys()
            return Diff(tuple(sorted(k for k in keys if old_inputs.get(k) != new_inputs.get(k))))
        row = row_of(type_)
        changed: list[str] = []
        replace: list[str] = []
        for key in sorted(old_inputs.keys() | new_inputs.keys()):
            old, new = old_inputs.get(key), new_inputs.get(key)
            if new is not UNKNOWN and key in row.documents:
                paths = [] if document(old) == document(new) else [key]
            elif new is not UNKNOWN and key in row.sets and not has_unknown(new):
                paths = [] if sorted(old or []) == sorted(new or []) else [key]
            else:
                paths = differences(old, new, key, UNKNOWN)
            changed += paths
            if paths and (key in row.replaces or row.update is None):
                replace += paths
        return Diff(tuple(changed), tuple(replace), bool(replace) and _same_name(row, old_inputs, new_inputs))

    def create(self, urn: str, type_: str, inputs: dict[str, Any], *, resuming: bool = False) -> Created:
        """Creates the resource and reads back what AWS made of it."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return Created(type_.removeprefix(PROVIDER_TYPE_PREFIX), dict(inputs))
        row = row_of(type_)
        with _explained("create", type_, urn):
            id_ = row.create(Call(self.cloud, inputs, urn, resuming))
            return self._made(row, urn, id_, inputs)

    def read(self, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any] | None:
        """Live outputs, None when the resource is gone."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return dict(outputs)
        row = row_of(type_)
        with _explained("read", type_, id_):
            live = row.read(Call(self.cloud, inputs, tracked=id_))
        return None if live is None else _outputs(row, self.cloud, id_, {**inputs, **outputs}, live)

    def update(
        self,
        urn: str,
        type_: str,
        id_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Created:
        """Changes the resource in place."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return Created(id_, dict(new_inputs))
        row = row_of(type_)
        if row.update is None:
            raise MlopsError(f"`{type_}` cannot be changed in place", fix="replace it.")
        with _explained("update", type_, urn):
            row.update(Call(self.cloud, new_inputs, urn, old=old_inputs, tracked=id_))
            return self._made(row, urn, id_, new_inputs)

    def delete(self, urn: str, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        """Deletes the resource; it may be gone already."""
        if type_.startswith(PROVIDER_TYPE_PREFIX):
            return
        with _explained("delete", type_, urn):
            row_of(type_).delete(Call(self.cloud, inputs, urn, tracked=id_))

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        """Calls a function such as `aws:index/getRegion:getRegion`."""
        with _explained("call", token, ""):
            return functions.call(self.cloud, token, args)

    def recorded(self, type_: str, inputs: dict[str, Any]) -> Mapping[str, str]:
        """What of a resource has no effect here, with the reasons; "" stands for all of it."""
        return {entry.property: entry.reason for entry in recorded_properties(type_, inputs)}

    def _made(self, row: Row, urn: str, id_: str, inputs: Values) -> Created:
        live = row.read(Call(self.cloud, inputs, urn, tracked=id_))
        if live is None:
            raise MlopsError(
                f"`{row.token}` ({id_}) is not there after it was made",
                fix="see whether another program removes it, then run again.",
            )
        return Created(id_, _outputs(row, self.cloud, id_, inputs, live), row.recorded)


def _outputs(row: Row, cloud: Cloud, id_: str, known: Values, live: Values) -> Values:
    """What is known with what is live; a value that means the same keeps the spelling that is known."""
    outputs = {"id": id_, **known}
    for key, value in live.items():
        was = known.get(key)
        if key in row.documents and was is not None and document(was) == document(value):
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


def _refuse_unknown(row: Row, name: str, given: Values) -> None:
    for key in given:
        if key not in (*row.required, *row.optional):
            raise MlopsError(
                f"`{name}` ({row.token}) has the property `{key}`, which the local target does not apply",
                fix=f"leave it out, or teach laptop/aws/resources/ ({row.token}) what it means.",
            )
    for key in row.required:
        if key not in given:
            raise MlopsError(f"`{name}` ({row.token}) lacks the property `{key}`", fix=f"give `{key}` a value.")


def _named(auto: AutoName, type_: str, name: str, old: Values) -> str:
    kept = old.get(auto.property)
    if isinstance(kept, str) and kept:
        return kept
    text = f"{auto.prefix}{name}-{secrets.token_hex(4)[:7]}"
    if auto.lower:
        text = text.lower()
    if len(text) > auto.longest:
        raise MlopsError(
            f"`{name}` ({type_}) makes a name of {len(text)} characters, AWS takes {auto.longest}",
            fix=f"use a shorter name, or give `{auto.property}`.",
        )
    return text


def _same_name(row: Row, old: Values, new: Values) -> bool:
    """Whether old and new would stand in each other's way at AWS."""
    return bool(row.named_by) and all(old.get(key) == new.get(key) for key in (*row.named_by, "region"))


@contextmanager
def _explained(verb: str, type_: str, what: str) -> Iterator[None]:
    """Turns what AWS answers into an error for people."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        detail = error.response.get("Error", {}).get("Message", "")
        raise MlopsError(
            f"AWS refused to {verb} `{type_}` {what}: {code_of(error)}: {detail} ({error.operation_name})"
        ) from error
    except BotoCoreError as error:
        raise MlopsError(
            f"cannot {verb} `{type_}` {what}: {error}", fix="see whether the local target runs: mlops laptop status."
        ) from error
