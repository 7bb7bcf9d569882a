"""Digest of rows, independent of how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.data.ordered_rows import OrderedRows, OrderedTable
from pipelines.declarations.digests import canonical_json

FORMAT = "mlops/rows/v1"


def in_key_order(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Sort rows by `key`, then by all other columns in alphabetical order, which makes the order total.

    Args:
        rows: columns of scalar types.
        key: names of columns; unknown names are ignored.
    """
    names = sort_order(rows.column_names, key)
    order = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in names])
    return rows.take(order)


def sort_order(names: Sequence[str], key: Sequence[str]) -> list[str]:
    """Return the columns to sort rows by: the key, then all other columns in alphabetical order.

    Args:
        names: columns of the rows.
        key: names of columns; unknown names are ignored.
    """
    first = [name for name in key if name in names]
    return [*first, *sorted(name for name in names if name not in first)]


def digest_of_rows(rows: pa.Table, key: Sequence[str]) -> str:
    """Return the digest of rows, independent of their order, chunks, files and the machine.

    Args:
        rows: integers, floating-point numbers, booleans, text, dates and timestamps.
        key: columns of the primary key.

    Returns:
        `sha256:<hex>`; see `digest_of_ordered`.
    """
    plain = pa.table(
        {name: rows.column(name).cast(_plain_type(rows.schema.field(name).type)) for name in rows.column_names}
    )
    return digest_of_ordered(OrderedTable(in_key_order(plain, key)))


def digest_of_ordered(rows: OrderedRows, names: Sequence[str] | None = None) -> str:
    """Return the digest of rows that are in the order of `in_key_order`. One block of a column is in memory at a time.

    The digest covers a header (canonical JSON: format, number of rows, name and type of each column, sorted by name)
    and then each column: one validity byte per row, then the values. Numbers are little-endian, with zero for null;
    text is 64-bit lengths, then UTF-8. -0.0 is hashed as 0.0, and every NaN alike.

    Args:
        rows: the rows.
        names: the columns that count; all by default.

    Returns:
        `sha256:<hex>`.
    """
    chosen = sorted(rows.schema.names if names is None else names)
    types = {name: _plain_type(rows.schema.field(name).type) for name in chosen}
    header = {
        "format": FORMAT,
        "rows": rows.count,
        "columns": [{"name": name, "type": _type_name(types[name])} for name in chosen],
    }
    digest = hashlib.sha256(canonical_json(header))
    for name in chosen:
        for encode in _sections(types[name]):
            for block in rows.blocks([name]):
                digest.update(encode(_whole(block.column(name).cast(types[name]))))
    return "sha256:" + digest.hexdigest()


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type itself; for every type of text, large_string."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.large_string() if pa.types.is_string(kind) or pa.types.is_string_view(kind) else kind


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _type_name(kind: pa.DataType) -> str:
    return "string" if pa.types.is_large_string(kind) else str(kind)


def _sections(kind: pa.DataType) -> tuple[Callable[[pa.Array], bytes], ...]:
    """Return what encodes a column of a type: its validity, then its values."""
    if pa.types.is_large_string(kind):
        return (_validity, _lengths, _texts)
    return (_validity, _values)


def _validity(array: pa.Array) -> bytes:
    return np.asarray(pc.is_valid(array).cast(pa.uint8())).tobytes()


def _lengths(array: pa.Array) -> bytes:
    lengths: Any = pc.call_function("binary_length", [array.fill_null("").cast(pa.large_binary())])
    return np.asarray(lengths).astype("<i8").tobytes()


def _texts(array: pa.Array) -> bytes:
    return "".join(array.fill_null("").to_pylist()).encode()


def _values(array: pa.Array) -> bytes:
    kind = array.type
    if pa.types.is_boolean(kind):
        return np.asarray(array.fill_null(False).cast(pa.uint8())).tobytes()
    if pa.types.is_floating(kind):
        numbers = np.asarray(array.fill_null(0.0)) + 0.0  # -0.0 + 0.0 is 0.0
        numbers = np.where(np.isnan(numbers), np.asarray(np.nan, dtype=numbers.dtype), numbers)
    else:
        if pa.types.is_date32(kind):
            array = array.cast(pa.int32())
        elif pa.types.is_temporal(kind):
            array = array.cast(pa.int64())
        numbers = np.asarray(array.fill_null(0))
    return numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
