"""Inputs of requests as the inference log holds them: without the values of personal columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

from pipelines.declarations.baseline import category
from pipelines.declarations.bundle import InputTensor, RequestColumn, RequestSchema
from pipelines.declarations.datatypes import to_float32
from pipelines.declarations.inference_logging import MOST_GROUPS, NULL_GROUP, LogPolicy

Part = bytes | Sequence[bytes]
"""Part of many lines: the same in all of them, or one for each."""


@dataclass(frozen=True)
class _Tensor:
    """What to do with one input tensor.

    Attributes:
        key: its name as JSON, with a colon.
        withheld: positions of the columns to replace by null.
        groups: position of a column → its groups.
        is_kept: False if no column is left to log.
        is_numeric: True if JSON of a row has no commas but those between its values.
        splits: number of commas up to the last withheld value, and after it if there is one.
        nulls: position of a withheld value → what takes the place of its JSON, with the brackets of the row.
    """

    key: bytes
    withheld: tuple[int, ...]
    groups: dict[int, _Group]
    is_kept: bool
    is_numeric: bool
    splits: int
    nulls: dict[int, bytes]


class LoggedInputs:
    """Removes personal values from the inputs of requests.

    Args:
        schema: request schema of the bundle, which knows what was personal when it was trained.
        policy: what is personal now.

    Attributes:
        withheld: names of the columns that are not logged, in the order of the schema.
        groups: names of those whose group is logged.
    """

    def __init__(self, schema: RequestSchema, policy: LogPolicy) -> None:
        hidden = {c.name for tensor in schema.inputs for c in tensor.columns if c.personal or c.name in policy.withheld}
        self._tensors = [_tensor(each, hidden, policy.groups) for each in schema.inputs]
        self.withheld = tuple(c.name for tensor in schema.inputs for c in tensor.columns if c.name in hidden)
        self.groups = tuple(
            each.columns[at].name for each, plan in zip(schema.inputs, self._tensors, strict=True) for at in plan.groups
        )

    def parts(self, inputs: Sequence[Sequence[bytes | msgspec.Raw]], *, is_one: bool) -> list[Part]:
        """Return the members `inputs` and `groups` of the lines of many records.

        Args:
            inputs: for each input of the model, its JSON in each record: the row as a list, or a list of such lists if
                there are several rows.
            is_one: True if all records have one row; False if all have several.
        """
        begin, end = (b"[", b"]") if is_one else (b"", b"")
        kept: list[Part] = []
        groups: list[Part] = []
        for tensor, given in zip(self._tensors, inputs, strict=True):
            texts = _on_one_line(given)
            found: list[Part] = [texts]
            if tensor.withheld and is_one and tensor.is_numeric:
                found = _without(texts, tensor, groups)
            elif tensor.withheld and (tensor.is_kept or tensor.groups):
                found = [_parsed_without(texts, tensor, groups, is_one=is_one)]
            if tensor.is_kept:
                kept += (b"," if kept else b"", tensor.key, begin, *found, end)
        parts = [b'"inputs":{', *kept, b"}"]
        if self.groups:
            parts += (b',"groups":{', *groups[1:], b"}")
        return parts


def _on_one_line(texts: Sequence[bytes | msgspec.Raw]) -> list[bytes]:
    """Return JSON without line breaks, which occur only as white space between values."""
    # Neither does the byte 0 occur in JSON. One search in all texts is faster than one in each.
    text = b"\0".join(texts)
    if b"\n" in text or b"\r" in text:
        text = text.replace(b"\n", b" ").replace(b"\r", b" ")
    return text.split(b"\0")


def _without(texts: Sequence[bytes], tensor: _Tensor, groups: list[Part]) -> list[Part]:
    """Replace the withheld values of rows of numbers, and add their groups. Parsing the rows takes twice as long."""
    width = tensor.splits + 1
    values = list(chain.from_iterable([text.split(b",", tensor.splits) for text in texts]))
    for at, group in tensor.groups.items():
        groups += (b",", list(map(group.of_json, values[at::width])))
    parts: list[Part] = []
    for at in range(width):
        parts += (b",", tensor.nulls.get(at) or values[at::width])
    return parts[1:]


def _parsed_without(texts: Sequence[bytes], tensor: _Tensor, groups: list[Part], *, is_one: bool) -> list[bytes]:
    decoded = [msgspec.json.decode(text) for text in texts]
    tables: list[list[list[Any]]] = [[row] for row in decoded] if is_one else decoded
    for at, group in tensor.groups.items():
        groups += (b",", [group.of_values([row[at] for row in table]) for table in tables])
    for table in tables:
        for row in table:
            for at in tensor.withheld:
                row[at] = None
    return list(map(msgspec.json.encode, decoded))


class _Group:
    """Names the groups of a column, as JSON of an object without its braces.

    Args:
        column: the column, which lists its values.
        narrow: turns a value into the one that the model sees.
    """

    def __init__(self, column: RequestColumn, narrow: Callable[[Any], Any]) -> None:
        self._narrow = narrow
        self._head = msgspec.json.encode(column.name) + b":"
        self._names = {narrow(value): category(value) for value in column.values or ()}
        self._known: dict[bytes, bytes] = {}

    def of_json(self, value: bytes) -> bytes:
        """Return the group of one row from its value as JSON, which may have brackets of the row."""
        found = self._known.get(value)
        if found is None:
            found = self.of_values([msgspec.json.decode(value.strip(b"[] \t\r\n"))])
            if len(self._known) < MOST_GROUPS:  # clients may write one number in many ways
                self._known[value] = found
        return found

    def of_values(self, values: Sequence[Any]) -> bytes:
        """Return the groups of rows from their values."""
        return self._head + msgspec.json.encode([self._name(value) for value in values])

    def _name(self, value: Any) -> str:
        return NULL_GROUP if value is None else self._names.get(self._narrow(value), "other")


def _tensor(tensor: InputTensor, hidden: set[str], groups: Sequence[str]) -> _Tensor:
    narrow = to_float32 if tensor.datatype == "FP32" else _unchanged
    withheld = tuple(at for at, column in enumerate(tensor.columns) if column.name in hidden)
    return _Tensor(
        msgspec.json.encode(tensor.name) + b":",
        withheld,
        {
            at: _Group(column, narrow)
            for at, column in enumerate(tensor.columns)
            if at in withheld and column.name in groups and column.values is not None
        },
        len(withheld) < len(tensor.columns),
        tensor.datatype not in ("BOOL", "BYTES"),
        min(max(withheld, default=0) + 1, len(tensor.columns) - 1),
        {at: _null(at, len(tensor.columns)) for at in withheld},
    )


def _null(at: int, width: int) -> bytes:
    return (b"[" if at == 0 else b"") + b"null" + (b"]" if at == width - 1 else b"")


def _unchanged(value: Any) -> Any:
    return value
