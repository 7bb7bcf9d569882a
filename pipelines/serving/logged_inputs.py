"""Inputs of requests as the inference log holds them: without the values of personal columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipelines.declarations.baseline import category
from pipelines.declarations.bundle import InputTensor, RequestColumn, RequestSchema
from pipelines.declarations.datatypes import to_float32
from pipelines.declarations.inference_logging import MOST_GROUPS, NULL_GROUP, LogPolicy

Inputs = Sequence[bytes | msgspec.Raw]
"""JSON of each input tensor: the row as a list, or a list of such lists if there are several rows."""


@dataclass(frozen=True)
class _Tensor:
    """What to do with one input tensor.

    Attributes:
        index: its position among the inputs.
        withheld: positions of the columns to replace by null.
        groups: position of a column → its groups.
        is_kept: False if no column is left to log.
        is_numeric: True if JSON of a row has no commas but those between its values.
        splits: number of commas up to the last withheld value.
        nulls: position of a withheld value → what takes the place of its JSON, with the brackets of the row.
    """

    index: int
    withheld: tuple[int, ...]
    groups: dict[int, _Group]
    is_kept: bool
    is_numeric: bool
    splits: int
    nulls: tuple[tuple[int, bytes], ...]


class LoggedInputs:
    """Removes personal values from the inputs of requests.

    Args:
        schema: request schema of the bundle, which knows what was personal when it was trained.
        policy: what is personal now.

    Attributes:
        withheld: names of the columns that are not logged, in the order of the schema.
        groups: names of those whose group is logged.
        tensors: names of the tensors that are logged.
    """

    def __init__(self, schema: RequestSchema, policy: LogPolicy) -> None:
        hidden = {c.name for tensor in schema.inputs for c in tensor.columns if c.personal or c.name in policy.withheld}
        self._tensors = [_tensor(index, each, hidden, policy.groups) for index, each in enumerate(schema.inputs)]
        self.withheld = tuple(c.name for tensor in schema.inputs for c in tensor.columns if c.name in hidden)
        self.groups = tuple(
            each.columns[at].name for each, plan in zip(schema.inputs, self._tensors, strict=True) for at in plan.groups
        )
        self.tensors = tuple(
            each.name for each, plan in zip(schema.inputs, self._tensors, strict=True) if plan.is_kept
        )  # fmt: skip

    def kept(self, inputs: Inputs, rows: int) -> tuple[Inputs, bytes]:
        """Return the inputs that are logged, and the groups of the rows as JSON: attribute → one name for each row.

        Args:
            inputs: JSON of each input of the model.
            rows: number of rows.
        """
        if not self.withheld:
            return inputs, b"{}"
        kept: list[bytes | msgspec.Raw] = []
        groups: list[bytes] = []
        for tensor in self._tensors:
            given = inputs[tensor.index]
            if tensor.withheld:
                if rows == 1 and tensor.is_numeric:
                    given = _without(given, tensor, groups)
                elif tensor.is_kept or tensor.groups:
                    given = _parsed_without(given, tensor, groups, rows)
            if tensor.is_kept:
                kept.append(given)
        return kept, b"{%b}" % b",".join(groups)


def _without(given: bytes | msgspec.Raw, tensor: _Tensor, groups: list[bytes]) -> bytes:
    """Replace the withheld values of one row of numbers, and add their groups. Parsing the row takes twice as long."""
    values = bytes(given).split(b",", tensor.splits)
    for at, group in tensor.groups.items():
        groups.append(group.of_json(values[at]))
    for at, null in tensor.nulls:
        values[at] = null
    return b",".join(values)


def _parsed_without(given: bytes | msgspec.Raw, tensor: _Tensor, groups: list[bytes], rows: int) -> bytes:
    decoded = msgspec.json.decode(given)
    table: list[list[Any]] = [decoded] if rows == 1 else decoded
    groups += [group.of_values([row[at] for row in table]) for at, group in tensor.groups.items()]
    for row in table:
        for at in tensor.withheld:
            row[at] = None
    return msgspec.json.encode(decoded)


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


def _tensor(index: int, tensor: InputTensor, hidden: set[str], groups: Sequence[str]) -> _Tensor:
    narrow = to_float32 if tensor.datatype == "FP32" else _unchanged
    withheld = tuple(at for at, column in enumerate(tensor.columns) if column.name in hidden)
    return _Tensor(
        index,
        withheld,
        {
            at: _Group(column, narrow)
            for at, column in enumerate(tensor.columns)
            if at in withheld and column.name in groups and column.values is not None
        },
        len(withheld) < len(tensor.columns),
        tensor.datatype not in ("BOOL", "BYTES"),
        max(withheld, default=0) + 1,
        tuple((at, _null(at, len(tensor.columns))) for at in withheld),
    )


def _null(at: int, width: int) -> bytes:
    return (b"[" if at == 0 else b"") + b"null" + (b"]" if at == width - 1 else b"")


def _unchanged(value: Any) -> Any:
    return value
