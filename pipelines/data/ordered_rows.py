"""Rows of a dataset version in a fixed order, block by block: in memory, or in a file on this machine.

What is computed from them block by block is the same for both, digit by digit, because blocks end at the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

BLOCK_ROWS = 65_536
"""Rows of each block, except the last one."""


class OrderedRows(Protocol):
    """Rows in a fixed order."""

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types."""

    @property
    def count(self) -> int:
        """Number of rows."""

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Return some columns of all rows, in blocks of `BLOCK_ROWS` rows."""


@dataclass(frozen=True)
class OrderedTable:
    """Rows in memory.

    Attributes:
        table: the rows, in their order.
    """

    table: pa.Table

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        return self.table.schema

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Return some columns of all rows; see `OrderedRows`."""
        chosen = self.table.select(list(columns))
        for start in range(0, self.count, BLOCK_ROWS):
            yield chosen.slice(start, BLOCK_ROWS)


class OrderedFile:
    """Rows in a file that `write_in_order` has written. One block is in memory at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with pq.ParquetFile(path) as file:
            self._schema: pa.Schema = file.schema_arrow
            self._count = int(file.metadata.num_rows)

    @property
    def schema(self) -> pa.Schema:
        """Columns and their types."""
        return self._schema

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._count

    def blocks(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Return some columns of all rows; see `OrderedRows`."""
        with pq.ParquetFile(self._path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=list(columns), use_threads=False).select(list(columns))


class UnorderedRowsError(ValueError):
    """Rows are not in the order that was asked for."""


def write_in_order(
    parts: Iterable[pa.Table], schema: pa.Schema, key: Sequence[str], rest: Sequence[str], path: Path
) -> OrderedFile:
    """Write a stream of rows to a file: sort those with equal keys, and check that all are in order.

    Order is ascending, with NaN and then nulls last.

    Args:
        parts: the rows, sorted by the key, in parts of any size.
        schema: columns to write, and their types.
        key: columns of the key.
        rest: columns to sort rows with equal keys by.
        path: the file.

    Raises:
        UnorderedRowsError: the rows are not sorted by the key.
        OSError: the file cannot be written.
    """
    order = [*key, *rest]
    last = schema.empty_table().select(order)
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=False) as writer:
        for block in _in_blocks(parts, schema, key, order):
            ordered = block.select(order)  # sorted by `_in_blocks`, so only its first row may be out of order
            if not _is_in_order(_order_of(pa.concat_tables([last, ordered.slice(0, 1)]), order)):
                raise UnorderedRowsError(f"the rows are not sorted by {', '.join(key or order)}")
            last = ordered.slice(ordered.num_rows - 1)
            writer.write_table(block, row_group_size=BLOCK_ROWS)
    return OrderedFile(path)


def _order_of(rows: pa.Table, order: Sequence[str]) -> pa.Array:
    return pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in order])


def _is_in_order(places: pa.Array) -> bool:
    return np.array_equal(places, np.arange(len(places)))


def _in_blocks(
    parts: Iterable[pa.Table], schema: pa.Schema, key: Sequence[str], order: Sequence[str]
) -> Iterator[pa.Table]:
    """Return rows in blocks. Rows with the key of the last row wait for the next part, which may have more of them."""
    waiting = schema.empty_table()
    for rows in _in_pieces(parts, schema):
        given = pa.concat_tables([waiting, rows])
        places = _order_of(given, order)
        given = given if _is_in_order(places) else given.take(places)
        ready = (given.num_rows - _rows_of_last_key(given, key)) // BLOCK_ROWS * BLOCK_ROWS
        for start in range(0, ready, BLOCK_ROWS):
            yield given.slice(start, BLOCK_ROWS).combine_chunks()
        waiting = given.slice(ready).combine_chunks()
    for start in range(0, waiting.num_rows, BLOCK_ROWS):
        yield waiting.slice(start, BLOCK_ROWS).combine_chunks()


def _rows_of_last_key(rows: pa.Table, key: Sequence[str]) -> int:
    """Return how many rows at the end have the same key. NaN equals NaN."""
    same = np.ones(rows.num_rows, bool)
    for name in key:
        column = rows.column(name)
        last = column[-1]
        if not last.is_valid:
            equal = column.is_null()
        elif last.as_py() != last.as_py():
            equal = pc.is_nan(column)
        else:
            equal = pc.equal(column, last)
        same &= pc.fill_null(equal, False).to_numpy(zero_copy_only=False)
    return int(same.sum()) if key else 0


def _in_pieces(parts: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Return rows with the columns of a schema, at least `BLOCK_ROWS` of them at a time, except at the end."""
    pending: list[pa.Table] = []
    held = 0
    for part in parts:
        columns = [part.column(field.name).cast(field.type) for field in schema]
        pending.append(pa.Table.from_arrays(columns, schema=schema))
        held += part.num_rows
        if held >= BLOCK_ROWS:
            yield pa.concat_tables(pending)
            pending, held = [], 0
    if held:
        yield pa.concat_tables(pending)
