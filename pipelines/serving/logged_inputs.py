"""Inputs of requests as the inference log holds them: without the values of personal columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipelines.declarations.baseline import category
from pipelines.declarations.bundle import InputTensor, RequestColumn, RequestSchema
from pipelines.declarations.datatypes import to_float32
from pipelines.declarations.inference_logging import NULL_GROUP, LogPolicy

Inputs = Sequence[bytes | msgspec.Raw]
"""JSON of each input tensor: the row as a list, or a list of such lists if there are several rows."""


@dataclass(frozen=True)
class _Tensor:
    """What to do with one input tensor.

    Attributes:
        index: its position among the inputs.
        withheld: positions of the columns to replace by null.
        groups: position of a column → its name, and value → name of its group.
        is_kept: False if no column is left to log.
        narrow: turns a value into the one that the model sees.
    """

    index: int
    withheld: tuple[int, ...]
    groups: dict[int, tuple[str, dict[Any, str]]]
    is_kept: bool
    narrow: Callable[[Any], Any]


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
        self.groups = tuple(name for tensor in self._tensors for name, _ in tensor.groups.values())
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
        groups: dict[str, list[str]] = {}
        for tensor in self._tensors:
            given = inputs[tensor.index]
            if tensor.withheld and (tensor.is_kept or tensor.groups):
                decoded = msgspec.json.decode(given)
                table: list[list[Any]] = [decoded] if rows == 1 else decoded
                for at, (name, names) in tensor.groups.items():
                    groups[name] = [_group(row[at], names, tensor.narrow) for row in table]
                for row in table:
                    for at in tensor.withheld:
                        row[at] = None
                given = msgspec.json.encode(decoded)
            if tensor.is_kept:
                kept.append(given)
        return kept, msgspec.json.encode(groups)


def _tensor(index: int, tensor: InputTensor, hidden: set[str], groups: Sequence[str]) -> _Tensor:
    narrow = to_float32 if tensor.datatype == "FP32" else _unchanged
    withheld = tuple(at for at, column in enumerate(tensor.columns) if column.name in hidden)
    return _Tensor(
        index,
        withheld,
        {
            at: (column.name, _names(column, narrow))
            for at, column in enumerate(tensor.columns)
            if at in withheld and column.name in groups and column.values is not None
        },
        len(withheld) < len(tensor.columns),
        narrow,
    )


def _names(column: RequestColumn, narrow: Callable[[Any], Any]) -> dict[Any, str]:
    return {narrow(value): category(value) for value in column.values or ()}


def _group(value: Any, names: dict[Any, str], narrow: Callable[[Any], Any]) -> str:
    return NULL_GROUP if value is None else names.get(narrow(value), "other")


def _unchanged(value: Any) -> Any:
    return value
