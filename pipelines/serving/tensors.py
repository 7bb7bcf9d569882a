"""Read the data of input tensors: right name, datatype and shape, and every value as the bundle's schema allows it."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable
from operator import le
from typing import Any

import msgspec
import numpy as np

from pipelines.declarations.bundle import Datatype, InputTensor, RequestColumn
from pipelines.declarations.errors import MlopsError
from pipelines.serving.protocol import RequestInput
from pipelines.serving.refusal import Refusal

_DECODERS: dict[Datatype, Callable[[msgspec.Raw], list[Any]]] = {
    "FP32": msgspec.json.Decoder(list[float | list[float | None] | None]).decode,
    "FP64": msgspec.json.Decoder(list[float | list[float | None] | None]).decode,
    "INT32": msgspec.json.Decoder(list[int | list[int | None] | None]).decode,
    "INT64": msgspec.json.Decoder(list[int | list[int | None] | None]).decode,
    "BOOL": msgspec.json.Decoder(list[bool | list[bool | None] | None]).decode,
    "BYTES": msgspec.json.Decoder(list[str | list[str | None] | None]).decode,
}

_RANGES: dict[Datatype, tuple[float, float]] = {
    "FP32": (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)),
    "FP64": (float(np.finfo(np.float64).min), float(np.finfo(np.float64).max)),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}
"""What a datatype can hold; the bounds of a column that has none."""

_NOUNS: dict[Datatype, str] = {
    "FP32": "a number",
    "FP64": "a number",
    "INT32": "an integer",
    "INT64": "an integer",
    "BOOL": "true or false",
    "BYTES": "text",
}


_ROW_DECODERS: dict[Datatype, Callable[[msgspec.Raw], list[Any]]] = {
    "FP32": msgspec.json.Decoder(list[float]).decode,
    "FP64": msgspec.json.Decoder(list[float]).decode,
    "INT32": msgspec.json.Decoder(list[int]).decode,
    "INT64": msgspec.json.Decoder(list[int]).decode,
}
"""For the common request: a flat row without null."""

_PACKED: dict[Datatype, str] = {"FP32": "f", "FP64": "d", "INT32": "i", "INT64": "q"}
"""How `struct` writes a datatype; for one row it is faster than numpy."""


class ReadTensor(msgspec.Struct, gc=False):
    """What was read of one input.

    Attributes:
        array: shape [rows, columns], as the model takes it.
        json: the values for the inference log: the row's list, or a list of such lists if there are several rows.
        rows: how many.
    """

    array: Any
    json: bytes | msgspec.Raw
    rows: int


class TensorReader:
    """Reads one input of the model.

    Args:
        schema: what the bundle says of the input.
        row: array of shape [1, columns] that takes the values of a request of one row.
        most_rows: a request may hold.

    Attributes:
        is_numeric: whether `read_row` can read it.

    Raises:
        MlopsError: the schema is not one this server can check: shape [-1, number of columns].
    """

    def __init__(self, schema: InputTensor, row: Any, *, most_rows: int) -> None:
        self.name = schema.name
        self.datatype = schema.datatype
        self.columns = schema.columns
        self.width = len(schema.columns)
        self.most_rows = most_rows
        if schema.shape != (-1, self.width):
            raise MlopsError(
                f"schema.json: input {schema.name!r} has the shape {list(schema.shape)} and {self.width} columns; "
                f"expected the shape [-1, {self.width}]"
            )
        self._one_row = [1, self.width]
        self._decode = _DECODERS[schema.datatype]
        self._decode_row = _ROW_DECODERS.get(schema.datatype, self._decode)
        self._row = row
        packed = _PACKED.get(schema.datatype)
        self.is_numeric = packed is not None
        self._pack = struct.Struct(f"={self.width}{packed or 's'}").pack_into
        self._memory = memoryview(row if packed else bytearray()).cast("B")
        self._allowed = [(i, frozenset(c.values)) for i, c in enumerate(schema.columns) if c.values is not None]
        self._ranged = schema.datatype in _RANGES
        bounds = [_bounds(column, schema.datatype) for column in schema.columns] if self._ranged else []
        self._low = [low for low, _ in bounds]
        self._high = [high for _, high in bounds]
        # An integer or a boolean of ONNX has no value that says it is absent.
        can_be_absent = schema.datatype in ("FP32", "FP64", "BYTES")
        self._nullable = [column.nullable and can_be_absent for column in schema.columns]

    def read_row(self, given: RequestInput) -> bool:
        """Read the tensor into `row` if it is a flat row of numbers and everything about it is right.

        If not, nothing is said of why: that is for `read` to find out, which also reads what is unusual. Every step
        here is one call into C, for between two requests the interpreter's own steps are slow.
        """
        if given.name != self.name or given.datatype != self.datatype or given.shape != self._one_row:
            return False
        try:
            values = self._decode_row(given.data)
            if len(values) != self.width or not all(map(le, self._low, values)) or not all(map(le, values, self._high)):
                return False
            for index, allowed in self._allowed:
                if values[index] not in allowed:
                    return False
            self._pack(self._memory, 0, *values)
        except (TypeError, ValueError, RecursionError, struct.error):  # null, a nested list, no numbers, no JSON
            return False
        return True

    def read(self, given: RequestInput) -> ReadTensor:
        """The tensor, if everything about it is right.

        Raises:
            Refusal: 400, with the input, and the row and column if the fault is a value's; 413: too many rows.
        """
        if given.datatype != self.datatype:
            raise Refusal(
                400, f"input {self.name!r}: expected datatype {self.datatype!r}, found {_short(given.datatype)}"
            )
        return self._read(self._values(given.data), self._rows(given.shape))

    def _rows(self, shape: list[int]) -> int:
        if len(shape) != 2 or shape[1] != self.width or shape[0] < 1:
            raise Refusal(
                400,
                f"input {self.name!r}: expected shape [rows, {self.width}] with at least 1 row, found {_short(shape)}",
            )
        if shape[0] > self.most_rows:
            raise Refusal(
                413, f"input {self.name!r}: expected at most {self.most_rows} rows a request, found {_short(shape[0])}"
            )
        return shape[0]

    def _values(self, data: msgspec.Raw) -> list[Any]:
        try:
            return self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refusal(
                400, f"input {self.name!r}: data: expected a list of {_plural(self.datatype)}: {error}"
            ) from None
        except RecursionError:
            raise Refusal(400, f"input {self.name!r}: data: nested too deeply") from None

    def _read(self, values: list[Any], rows: int) -> ReadTensor:
        flat = self._flat(values, rows)
        self._refuse(flat, self._wrong(flat, rows))
        present = ["" if value is None else value for value in flat] if self.datatype == "BYTES" else flat
        array = np.array(present, self._row.dtype).reshape(rows, self.width)
        if rows == 1:
            self._row[:] = array
            return ReadTensor(self._row, msgspec.json.encode(flat), 1)
        nested = [flat[start : start + self.width] for start in range(0, len(flat), self.width)]
        return ReadTensor(array, msgspec.json.encode(nested), rows)

    def _flat(self, values: list[Any], rows: int) -> list[Any]:
        """Row-major: the protocol lets a client send a flat list, or one list a row."""
        width, count = self.width, rows * self.width
        nested = sum(value.__class__ is list for value in values)
        if nested:
            wrong = next((i for i, v in enumerate(values) if v.__class__ is not list or len(v) != width), None)
            if wrong is not None or len(values) != rows:
                where = f", data[{wrong}]" if wrong is not None else ""
                raise Refusal(
                    400,
                    f"input {self.name!r}{where}: expected {rows} lists of {width} values for its shape, "
                    f"found {_shape_of(values, wrong)}",
                )
            return [value for row in values for value in row]
        if len(values) != count:
            raise Refusal(
                400,
                f"input {self.name!r}: expected {count} values for the shape [{rows}, {width}], found {len(values)}",
            )
        return values

    def _wrong(self, flat: list[Any], rows: int) -> list[int]:
        """Positions of the values that the schema does not allow, in order."""
        if self.datatype in ("FP32", "FP64"):
            # In the wide type: a value that overflows the narrow one must not be rounded before it is compared.
            table = np.array(flat, np.float64).reshape(rows, self.width)
            right = ((table >= self._low) & (table <= self._high)) | (np.isnan(table) & self._nullable)
            wrong = [] if right.all() else np.flatnonzero(~right.ravel()).tolist()
        elif self._ranged:
            lows, highs = itertools.cycle(self._low), itertools.cycle(self._high)
            wrong = [
                i
                for i, (value, low, high) in enumerate(zip(flat, lows, highs, strict=False))
                if value is None or not low <= value <= high
            ]
        else:
            wrong = [i for i, value in enumerate(flat) if value is None and not self._nullable[i % self.width]]
        for column, allowed in self._allowed:
            absent = (None,) if self._nullable[column] else ()
            cells = range(column, len(flat), self.width)
            wrong += [i for i in cells if flat[i] not in allowed and flat[i] not in absent]
        return sorted(set(wrong))

    def _refuse(self, flat: list[Any], wrong: list[int]) -> None:
        """Raise the refusal for the first wrong value, and say how many more there are; nothing if there is none."""
        if not wrong:
            return
        row, index = divmod(wrong[0], self.width)
        column = self.columns[index]
        more = f" (and {len(wrong) - 1} more values are not as expected)" if len(wrong) > 1 else ""
        raise Refusal(
            400,
            f"input {self.name!r}, row {row}, column {column.name!r} (index {index}): "
            f"expected {_expected(column, self.datatype, self._nullable[index])}, found {_short(flat[wrong[0]])}{more}",
        )


def _bounds(column: RequestColumn, datatype: Datatype) -> tuple[float, float]:
    """The closed interval of the values a column may hold, exclusive bounds turned into the nearest number inside."""
    low, high = _RANGES[datatype]
    integer = datatype.startswith("INT")
    lows: list[float] = [low]
    highs: list[float] = [high]
    if column.minimum is not None:
        lows.append(math.ceil(column.minimum) if integer else column.minimum)
    if column.exclusive_minimum is not None:
        bound = column.exclusive_minimum
        lows.append(math.floor(bound) + 1 if integer else math.nextafter(bound, math.inf))
    if column.maximum is not None:
        highs.append(math.floor(column.maximum) if integer else column.maximum)
    if column.exclusive_maximum is not None:
        bound = column.exclusive_maximum
        highs.append(math.ceil(bound) - 1 if integer else math.nextafter(bound, -math.inf))
    return max(lows), min(highs)


def _expected(column: RequestColumn, datatype: Datatype, nullable: bool) -> str:
    if column.values is not None:
        listed = ", ".join(_short(value) for value in column.values[:10])
        text = f"one of {listed}" + (", …" if len(column.values) > 10 else "")
    else:
        parts: list[str] = []
        for bound, words in (
            (column.minimum, "at least"),
            (column.exclusive_minimum, "greater than"),
            (column.maximum, "at most"),
            (column.exclusive_maximum, "less than"),
        ):
            if bound is not None:
                parts.append(f"{words} {bound:g}")
        text = " ".join([_NOUNS[datatype], " and ".join(parts)]).strip() if parts else _finite(datatype)
    return f"{text}, or null" if nullable else text


def _finite(datatype: Datatype) -> str:
    return f"{_NOUNS[datatype]} that {datatype} can hold" if datatype in _RANGES else _NOUNS[datatype]


def _plural(datatype: Datatype) -> str:
    return {"a number": "numbers", "an integer": "integers", "true or false": "booleans", "text": "texts"}[
        _NOUNS[datatype]
    ]


def _shape_of(values: list[Any], wrong: int | None) -> str:
    if wrong is None:
        return f"{len(values)} lists"
    value = values[wrong]
    return f"a list of {len(value)}" if isinstance(value, list) else _short(value)


def _short(value: Any) -> str:
    """A value as JSON, cut off where it gets long: what a client sent must not make an error grow without bound."""
    try:
        text = msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, OverflowError, UnicodeEncodeError):
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def read_tensors(given: list[RequestInput], readers: dict[str, TensorReader]) -> list[ReadTensor]:
    """Every input of the model, in the model's order.

    Raises:
        Refusal: 400 (413 for too many rows): one is unknown, missing, given twice or wrong, or they differ in rows.
    """
    found: dict[str, ReadTensor] = {}
    for tensor in given:
        reader = readers.get(tensor.name)
        if reader is None:
            raise Refusal(400, f"unknown input {_short(tensor.name)}; the model takes {_names(readers)}")
        if tensor.name in found:
            raise Refusal(400, f"input {tensor.name!r} is given twice")
        found[tensor.name] = reader.read(tensor)
    if len(found) != len(readers):
        missing = [name for name in readers if name not in found]
        raise Refusal(400, f"missing input {_names(missing)}; the model takes {_names(readers)}")
    tensors = [found[name] for name in readers]
    for name, tensor_read in zip(readers, tensors, strict=True):
        if tensor_read.rows != tensors[0].rows:
            raise Refusal(
                400,
                f"input {name!r} has {tensor_read.rows} rows and input {next(iter(readers))!r} has {tensors[0].rows}; "
                "expected the same number",
            )
    return tensors


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
