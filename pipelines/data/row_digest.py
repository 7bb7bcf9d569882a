"""Digest of rows, independent of how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.declarations.digests import canonical_json

FORMAT = "mlops/rows/v1"


def in_key_order(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Sort rows by `key`, then by all other columns in alphabetical order, which makes the order total.

    Args:
        rows: columns of scalar types.
        key: names of columns; unknown names are ignored.
    """
    first = [name for name in key if name in rows.column_names]
    rest = sorted(name for name in rows.column_names if name not in first)
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in (*first, *rest)])
    return rows.take(order)


def digest_of_rows(rows: pa.Table, key: Sequence[str]) -> str:
    """Return the digest of rows, independent of their order, chunks, files and the machine.

    The digest covers a header (canonical JSON: format, number of rows, name and type of each column, sorted by name)
    and then each column: one validity byte per row, then the values. Numbers are little-endian, with zero for null;
    text is 64-bit lengths, then UTF-8. -0.0 is hashed as 0.0, and every NaN alike.

    Args:
        rows: integers, floating-point numbers, booleans, text, dates and timestamps.
        key: columns of the primary key.

    Returns:
        `sha256:<hex>`.
    """
    names = sorted(rows.column_names)
    ordered = in_key_order(pa.table({name: _plain(rows.column(name)) for name in names}), key)
    columns = {name: _whole(ordered.column(name)) for name in names}
    header = {
        "format": FORMAT,
        "rows": ordered.num_rows,
        "columns": [{"name": name, "type": _type_name(columns[name].type)} for name in names],
    }
    digest = hashlib.sha256(canonical_json(header))
    for name in names:
        for part in _encoded(columns[name]):
            digest.update(part)
    return "sha256:" + digest.hexdigest()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert every type of text to large_string."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    return column


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _type_name(kind: pa.DataType) -> str:
    return "string" if pa.types.is_large_string(kind) else str(kind)


def _encoded(array: pa.Array) -> list[bytes]:
    valid = np.asarray(pc.is_valid(array).cast(pa.uint8()))
    parts = [valid.tobytes()]
    kind = array.type
    if pa.types.is_large_string(kind):
        filled = array.fill_null("")
        parts.append(_little_endian(filled.cast(pa.large_binary()), "binary_length"))
        # In slices, because joining a large array at once could exceed the size limit of one value.
        for start in range(0, len(filled), 65536):
            parts.append("".join(filled.slice(start, 65536).to_pylist()).encode())
    elif pa.types.is_boolean(kind):
        parts.append(np.asarray(array.fill_null(False).cast(pa.uint8())).tobytes())
    elif pa.types.is_floating(kind):
        numbers = np.asarray(array.fill_null(0.0)) + 0.0  # -0.0 + 0.0 is 0.0
        numbers = np.where(np.isnan(numbers), np.asarray(np.nan, dtype=numbers.dtype), numbers)
        parts.append(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
    else:
        if pa.types.is_date32(kind):
            array = array.cast(pa.int32())
        elif pa.types.is_temporal(kind):
            array = array.cast(pa.int64())
        numbers = np.asarray(array.fill_null(0))
        parts.append(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes())
    return parts


def _little_endian(array: pa.Array, measure: str) -> bytes:
    lengths: Any = pc.call_function(measure, [array])
    return np.asarray(lengths).astype("<i8").tobytes()
