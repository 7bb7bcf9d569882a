"""Read the rows that a batch prediction predicts: a Parquet file, or a dataset version. Both are streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from pipelines.data.parquet_stream import stream_parquet
from pipelines.declarations.bundle import InputTensor
from pipelines.declarations.datatypes import Datatype
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.value_range import StoredType

ROWS_AT_ONCE = 4096
"""Rows that are predicted at once: as many as a request may have."""

LARGEST_ROWS = 256 << 20
"""Size limit of that many rows in memory, in bytes."""


class RefusedInputError(MlopsError):
    """The input as a whole cannot be predicted; another attempt would end the same way."""


Fits = Callable[[pa.DataType], bool]


def _is_number(kind: pa.DataType) -> bool:
    fits = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean)
    return any(fit(kind) for fit in fits)


def _is_text(kind: pa.DataType) -> bool:
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(fit(kind) for fit in (types.is_string, types.is_large_string, types.is_string_view))


_FEATURES: Mapping[Datatype, tuple[str, Fits]] = {
    "FP32": ("numbers", _is_number),
    "FP64": ("numbers", _is_number),
    "INT32": ("integers", types.is_integer),
    "INT64": ("integers", types.is_integer),
    "BOOL": ("booleans", types.is_boolean),
    "BYTES": ("text", _is_text),
}
"""Datatype of a tensor → what a column must hold."""

_COPIED: Mapping[StoredType, tuple[str, Fits]] = {
    "string": ("text", _is_text),
    "int": ("integers", types.is_integer),
    "long": ("integers", types.is_integer),
    "float": ("numbers", lambda kind: _is_number(kind) and not types.is_boolean(kind)),
    "double": ("numbers", lambda kind: _is_number(kind) and not types.is_boolean(kind)),
    "boolean": ("booleans", types.is_boolean),
    "date": ("dates", types.is_date),
    "timestamp": ("timestamps", types.is_timestamp),
}
"""Type of a column of the table → what the column that is copied to it must hold."""


def check_columns_of(
    name: str, schema: pa.Schema, inputs: Iterable[InputTensor], copied: Mapping[str, StoredType]
) -> None:
    """Check that an input has every column that the prediction needs, with a type that fits.

    Args:
        name: name of the input, for messages.
        schema: its columns.
        inputs: inputs of the model.
        copied: column that is copied → its type in the table of predictions.

    Raises:
        RefusedInputError: a column is missing, appears twice, or has another type. Every such column is named.
    """
    expected = {column.name: _FEATURES[tensor.datatype] for tensor in inputs for column in tensor.columns}
    for column, stored in copied.items():
        expected.setdefault(column, _COPIED[stored])
    if missing := [column for column in expected if column not in schema.names]:
        raise RefusedInputError(
            f"{name} cannot be predicted: expected the columns {', '.join(expected)}, found no {', '.join(missing)}",
            fix="add the columns; other columns are ignored",
        )
    wrong = []
    for column, (kind, fits) in expected.items():
        if len(places := schema.get_all_field_indices(column)) > 1:
            wrong.append(f"{column!r}: expected it once, found {len(places)} columns of that name")
            continue
        found = schema.field(column).type
        if not (types.is_null(found) or fits(found)):
            wrong.append(f"{column!r}: expected {kind}, found {found}")
    if wrong:
        raise RefusedInputError(
            f"{name} cannot be predicted: column {'; column '.join(wrong)}", fix="convert the columns"
        )


def open_file(name: str, path: Path) -> tuple[pa.Schema, int]:
    """Return the columns and the number of rows of a Parquet file.

    Raises:
        RefusedInputError: it is not a whole Parquet file, or has no rows.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(name, error) from None
    if rows == 0:
        raise RefusedInputError(
            f"{name} cannot be predicted: expected rows, found none", fix="predict a file with rows"
        )
    return schema, rows


def read_file(name: str, path: Path, columns: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """Stream columns of a Parquet file, `ROWS_AT_ONCE` rows at a time.

    Raises:
        RefusedInputError: a part of the file cannot be read.
    """
    try:
        yield from stream_parquet(path, columns, ROWS_AT_ONCE)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(name, error) from None


def in_parts(name: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut batches into parts of `ROWS_AT_ONCE` rows.

    Raises:
        RefusedInputError: the rows of a part are too large for the memory of the job.
    """
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            part = batch.slice(start, ROWS_AT_ONCE)
            if part.nbytes > LARGEST_ROWS:
                raise RefusedInputError(
                    f"{name} cannot be predicted: expected at most {LARGEST_ROWS >> 20} MiB in {ROWS_AT_ONCE} rows, "
                    f"found {part.nbytes >> 20} MiB",
                    fix="shorten the texts",
                )
            yield part


def _unreadable(name: str, error: Exception) -> RefusedInputError:
    found = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return RefusedInputError(
        f"{name} cannot be read: expected a Parquet file, found: {found}",
        fix="save it again as Parquet, for example with to_parquet of pandas",
    )


def values_of(part: pa.RecordBatch, tensor: InputTensor) -> list[Any]:
    """Return the values of an input of the model in row-major order, with None for null and NaN."""
    width = len(tensor.columns)
    values: list[Any] = [None] * (part.num_rows * width)
    for index, column in enumerate(tensor.columns):
        array = part.column(column.name)
        if types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if types.is_decimal(array.type) or types.is_float16(array.type):
            array = array.cast(pa.float64())
        elif types.is_boolean(array.type) and tensor.datatype != "BOOL":
            array = array.cast(pa.uint8())
        if types.is_floating(array.type):
            array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
        values[index::width] = array.to_pylist()
    return values
