"""Read input tensors: check name, datatype and shape, and every value against the bundle's request schema."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pipelines.declarations.bundle import InputTensor, RequestColumn
from pipelines.declarations.datatypes import Datatype, next_float32, to_float32
from pipelines.declarations.errors import MlopsError
from pipelines.serving.protocol import RequestInput
from pipelines.serving.request_error import RequestError

Decode = Callable[[msgspec.Raw], list[Any]]


class _JsonFormat(NamedTuple):
    """JSON representation of a datatype's elements.

    Attributes:
        singular, plural: name of an element, for error messages.
        decode: reads `data`: flat or a list for each row, with null.
        decode_row: reads the most common `data`: flat, without null.
        packed: format character of `struct`, which is faster than NumPy for one row; "" if there is none.
        bounds: least and greatest element; None for elements that are not numbers.
    """

    singular: str
    plural: str
    decode: Decode
    decode_row: Decode
    packed: str = ""
    bounds: tuple[float, float] | None = None


_read_floats: Decode = msgspec.json.Decoder(list[float | list[float | None] | None]).decode
_read_integers: Decode = msgspec.json.Decoder(list[int | list[int | None] | None]).decode
_read_booleans: Decode = msgspec.json.Decoder(list[bool | list[bool | None] | None]).decode
_read_texts: Decode = msgspec.json.Decoder(list[str | list[str | None] | None]).decode
_read_row_of_floats: Decode = msgspec.json.Decoder(list[float]).decode
_read_row_of_integers: Decode = msgspec.json.Decoder(list[int]).decode

_FP32 = float(np.finfo(np.float32).max)
_FP64 = float(np.finfo(np.float64).max)

_FORMATS: dict[Datatype, _JsonFormat] = {
    "FP32": _JsonFormat("a number", "numbers", _read_floats, _read_row_of_floats, "f", (-_FP32, _FP32)),
    "FP64": _JsonFormat("a number", "numbers", _read_floats, _read_row_of_floats, "d", (-_FP64, _FP64)),
    "INT32": _JsonFormat("an integer", "integers", _read_integers, _read_row_of_integers, "i", (-(2**31), 2**31 - 1)),
    "INT64": _JsonFormat("an integer", "integers", _read_integers, _read_row_of_integers, "q", (-(2**63), 2**63 - 1)),
    "BOOL": _JsonFormat("true or false", "booleans", _read_booleans, _read_booleans),
    "BYTES": _JsonFormat("text", "texts", _read_texts, _read_texts),
}


class ReadTensor(msgspec.Struct, gc=False):
    """One input tensor of a request.

    Attributes:
        array: the model's input, shape [rows, columns].
        json: the values for the inference log: the row as a list, or a list of such lists if there are several rows.
        rows: number of rows.
    """

    array: Any
    json: bytes | msgspec.Raw
    rows: int


class WrongValue(NamedTuple):
    """Value that the request schema does not allow.

    Attributes:
        row: number of the row, from 0.
        column: name of the column.
        expected: what the schema allows.
        found: the value as JSON, shortened.
    """

    row: int
    column: str
    expected: str
    found: str


class TensorReader:
    """Reads one input of the model.

    Args:
        schema: schema of the input.
        row: array of shape [1, columns] that receives the values of requests of one row.
        most_rows: row limit of a request.

    Attributes:
        is_numeric: True if `read_row` can read it.
        is_optional: True if a request may leave the input out, because each of its columns is optional.

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
                f"schema.json: shape of input {schema.name!r} with {self.width} columns: "
                f"expected [-1, {self.width}], found {list(schema.shape)}"
            )
        self._one_row = [1, self.width]
        self._format = _FORMATS[schema.datatype]
        self._decode_row = self._format.decode_row
        self._row = row
        packed = self._format.packed
        self.is_numeric = packed != ""
        self._pack = struct.Struct(f"={self.width}{packed or 's'}").pack_into
        self._memory = memoryview(row if packed else bytearray()).cast("B")
        narrow = schema.datatype == "FP32"
        self._narrow: Callable[[Any], Any] = _to_float32 if narrow else _unchanged
        self._allowed = [
            (i, frozenset(map(self._narrow, c.values))) for i, c in enumerate(schema.columns) if c.values is not None
        ]
        limits = self._format.bounds
        self._ranged = limits is not None
        integer = schema.datatype.startswith("INT")
        bounds = [
            _float32_bounds(column, limits) if narrow else _bounds(column, limits, integer=integer)
            for column in schema.columns
            if limits is not None
        ]
        self._low = [low for low, _ in bounds]
        self._high = [high for _, high in bounds]
        # Integers and booleans in ONNX cannot represent a missing value.
        can_be_absent = schema.datatype in ("FP32", "FP64", "BYTES")
        self._nullable = [column.nullable and can_be_absent for column in schema.columns]
        may_be_absent = [c.optional and null for c, null in zip(schema.columns, self._nullable, strict=True)]
        self._least = self.width - len(list(itertools.takewhile(bool, reversed(may_be_absent))))
        self.is_optional = self._least == 0

    def read_row(self, given: RequestInput) -> bool:
        """Read the tensor into `row` if it is a valid, flat row of numbers; return False otherwise.

        `read` handles the rest and reports errors.
        """
        if (
            given.name != self.name
            or given.datatype != self.datatype
            or given.shape != self._one_row
            or given.parameters is not None
        ):
            return False
        try:
            values = self._decode_row(given.data)
            if len(values) != self.width:
                return False
            # The lengths are equal; checking it again with `strict` would take as long as three of ten values.
            for value, low, high in zip(values, self._low, self._high):  # noqa: B905
                if not low <= value <= high:
                    return False
            for index, allowed in self._allowed:
                if values[index] not in allowed and self._narrow(values[index]) not in allowed:
                    return False
            self._pack(self._memory, 0, *values)
        except (TypeError, ValueError, RecursionError, struct.error):  # null, nested lists, other types, invalid JSON
            return False
        return True

    def read(self, given: RequestInput) -> ReadTensor:
        """Read any valid tensor.

        Raises:
            RequestError: 400: invalid; names the input, and the row and column of an invalid value. 413: too many rows.
        """
        if given.datatype != self.datatype:
            raise RequestError(
                400, f"input {self.name!r}: expected datatype {self.datatype!r}, found {_short(given.datatype)}"
            )
        if not bytes(given.data):
            raise RequestError(400, f"input {self.name!r}: expected data, found none")
        values = self._values(given.data)
        rows = self._rows(given.shape)
        width = given.shape[1]
        flat = self._flat(values, rows, width)
        if width < self.width:
            absent = [None] * (self.width - width)
            flat = [value for at in range(0, rows * width, width) for value in (*flat[at : at + width], *absent)]
        return self._read(flat, rows)

    def absent(self, rows: int) -> ReadTensor:
        """Return what a request means that leaves the optional input out: no row has a value."""
        return self._read([None] * (rows * self.width), rows)

    def _rows(self, shape: list[int]) -> int:
        if len(shape) != 2 or not max(self._least, 1) <= shape[1] <= self.width or shape[0] < 1:
            width = str(self.width) if self._least == self.width else f"{max(self._least, 1)} to {self.width}"
            raise RequestError(
                400,
                f"input {self.name!r}: expected shape [rows, {width}] with at least 1 row, found {_short(shape)}",
            )
        if shape[0] > self.most_rows:
            raise RequestError(
                413, f"input {self.name!r}: expected at most {self.most_rows} rows a request, found {_short(shape[0])}"
            )
        return shape[0]

    def _values(self, data: msgspec.Raw) -> list[Any]:
        try:
            return self._format.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(
                400, f"input {self.name!r}: data: expected a list of {self._format.plural}: {error}"
            ) from None
        except RecursionError:
            raise RequestError(400, f"input {self.name!r}: data: nested too deeply") from None

    def _read(self, flat: list[Any], rows: int) -> ReadTensor:
        self._refuse(flat, self._wrong(flat, rows))
        array = self.to_array(flat, rows)
        if rows == 1:
            self._row[:] = array
            return ReadTensor(self._row, msgspec.json.encode(flat), 1)
        nested = [flat[start : start + self.width] for start in range(0, len(flat), self.width)]
        return ReadTensor(array, msgspec.json.encode(nested), rows)

    def _flat(self, values: list[Any], rows: int, width: int) -> list[Any]:
        """Flatten the values in row-major order. The protocol allows a flat list, or a list for each row."""
        count = rows * width
        nested = sum(value.__class__ is list for value in values)
        if nested:
            wrong = next((i for i, v in enumerate(values) if v.__class__ is not list or len(v) != width), None)
            if wrong is not None or len(values) != rows:
                where = f", data[{wrong}]" if wrong is not None else ""
                raise RequestError(
                    400,
                    f"input {self.name!r}{where}: expected {rows} lists of {width} values for its shape, "
                    f"found {_shape_of(values, wrong)}",
                )
            return [value for row in values for value in row]
        if len(values) != count:
            raise RequestError(
                400,
                f"input {self.name!r}: expected {count} values for the shape [{rows}, {width}], found {len(values)}",
            )
        return values

    def _wrong(self, flat: list[Any], rows: int) -> list[int]:
        """Return the positions of values that the schema does not allow, in order."""
        if self.datatype in ("FP32", "FP64"):
            # Compare as float64; the bounds of FP32 are those of the float64 numbers that round into them.
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
            wrong += [i for i in cells if flat[i] not in absent and self._narrow(flat[i]) not in allowed]
        return sorted(set(wrong))

    def _refuse(self, flat: list[Any], wrong: list[int]) -> None:
        """Raise an error that names the first wrong value and counts the others; do nothing if there is none."""
        if not wrong:
            return
        first = self._described(flat, wrong[0])
        more = f" (and {len(wrong) - 1} more values are invalid)" if len(wrong) > 1 else ""
        raise RequestError(
            400,
            f"input {self.name!r}, row {first.row}, column {first.column!r} (index {wrong[0] % self.width}): "
            f"expected {first.expected}, found {first.found}{more}",
        )

    def find_wrong(self, values: list[Any], rows: int) -> list[WrongValue]:
        """Check many rows as a request would be checked, and return every value that the schema does not allow.

        Args:
            values: the values in row-major order, with None for null.
            rows: number of rows.
        """
        return [self._described(values, place) for place in self._wrong(values, rows)]

    def to_array(self, values: list[Any], rows: int) -> Any:
        """Return valid rows as the model's input, shape [rows, columns]. Missing text is "" and a missing number NaN.

        Args:
            values: the values in row-major order, with None for null.
            rows: number of rows.
        """
        present = ["" if value is None else value for value in values] if self.datatype == "BYTES" else values
        return np.array(present, self._row.dtype).reshape(rows, self.width)

    def _described(self, flat: list[Any], place: int) -> WrongValue:
        row, index = divmod(place, self.width)
        column = self.columns[index]
        return WrongValue(row, column.name, self._expected(column, self._nullable[index]), _short(flat[place]))

    def _expected(self, column: RequestColumn, nullable: bool) -> str:
        noun = self._format.singular
        if column.values is not None:
            listed = ", ".join(_short(value) for value in column.values[:10])
            text = f"one of {listed}" + (", …" if len(column.values) > 10 else "")
        elif bounds := _described_bounds(column):
            text = f"{noun} {bounds}"
        else:
            text = f"{noun} that {self.datatype} can hold" if self._ranged else noun
        return f"{text}, or null" if nullable else text


def _bounds(column: RequestColumn, limits: tuple[float, float], *, integer: bool) -> tuple[float, float]:
    """Return the closed interval of a column's values. An exclusive bound becomes the nearest number inside it."""
    lows: list[float] = [limits[0]]
    highs: list[float] = [limits[1]]
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


def _float32_bounds(column: RequestColumn, limits: tuple[float, float]) -> tuple[float, float]:
    """Return the closed interval of float64 numbers that, rounded to float32, keep a column's bounds.

    The model sees float32, so a bound means the nearest float32: 0.1 keeps `maximum: 0.1` in any precision.
    """
    lows, highs = [limits[0]], [limits[1]]
    for bound, exclusive, found, up in (
        (column.minimum, False, lows, True),
        (column.exclusive_minimum, True, lows, True),
        (column.maximum, False, highs, False),
        (column.exclusive_maximum, True, highs, False),
    ):
        if bound is not None:
            nearest = to_float32(bound)
            found.append(next_float32(nearest, up=up) if exclusive and math.isfinite(nearest) else nearest)
    return _first_that_rounds_to(max(lows), up=False), _first_that_rounds_to(min(highs), up=True)


def _first_that_rounds_to(number: float, *, up: bool) -> float:
    """Return the greatest (or, not `up`, the least) float64 that rounds to a float32."""
    if not math.isfinite(number):
        return number
    neighbour = next_float32(number, up=up)
    if math.isinf(neighbour):  # beyond the largest float32, numbers round as if the next one were 2**128
        neighbour = math.copysign(2.0**128, neighbour)
    middle = (number + neighbour) / 2
    return middle if to_float32(middle) == number else math.nextafter(middle, number)


def _to_float32(value: Any) -> Any:
    return to_float32(value) if isinstance(value, int | float) else value


def _unchanged(value: Any) -> Any:
    return value


def _described_bounds(column: RequestColumn) -> str:
    return " and ".join(
        f"{words} {bound:g}"
        for bound, words in (
            (column.minimum, "at least"),
            (column.exclusive_minimum, "greater than"),
            (column.maximum, "at most"),
            (column.exclusive_maximum, "less than"),
        )
        if bound is not None
    )


def _shape_of(values: list[Any], wrong: int | None) -> str:
    if wrong is None:
        return f"{len(values)} lists"
    value = values[wrong]
    return f"a list of {len(value)}" if isinstance(value, list) else _short(value)


def _short(value: Any) -> str:
    """Return a value as JSON, shortened, so a client cannot cause unbounded error messages."""
    try:
        text = msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, OverflowError, UnicodeEncodeError):
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def read_tensors(given: list[RequestInput], readers: dict[str, TensorReader]) -> list[ReadTensor]:
    """Read every input of the model; return them in the model's order.

    Raises:
        RequestError: 400: an input is unknown, missing, repeated or invalid, or the inputs differ in rows. 413: too
            many rows.
    """
    found: dict[str, ReadTensor] = {}
    for tensor in given:
        reader = readers.get(tensor.name)
        if reader is None:
            raise RequestError(400, f"unknown input {_short(tensor.name)}; the model takes {_names(readers)}")
        if tensor.name in found:
            raise RequestError(400, f"input {tensor.name!r} appears twice")
        found[tensor.name] = reader.read(tensor)
    if len(found) != len(readers):
        missing = [name for name in readers if name not in found]
        if not found or not all(readers[name].is_optional for name in missing):
            needed = [name for name in missing if not readers[name].is_optional] or missing
            raise RequestError(400, f"missing input {_names(needed)}; the model takes {_names(readers)}")
        rows = next(iter(found.values())).rows
        found |= {name: readers[name].absent(rows) for name in missing}
    tensors = [found[name] for name in readers]
    for name, tensor_read in zip(readers, tensors, strict=True):
        if tensor_read.rows != tensors[0].rows:
            raise RequestError(
                400,
                f"input {name!r} has {tensor_read.rows} rows and input {next(iter(readers))!r} has {tensors[0].rows}; "
                "expected the same number",
            )
    return tensors


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
