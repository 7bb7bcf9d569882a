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


def write_in_order(parts: Iterable[pa.Table], schema: pa.Schema, order: Sequence[str], path: Path) -> OrderedFile:
    """Write a stream of rows to a file, and check that they are in order.

    Args:
        parts: the rows, in parts of any size.
        schema: columns to write, and their types.
        order: columns that the rows are sorted by, ascending, with NaN and then nulls last.
        path: the file.

    Raises:
        UnorderedRowsError: the rows are in another order.
        OSError: the file cannot be written.
    """
    last = schema.empty_table().select(list(order))
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=False) as writer:
        for block in _in_blocks(parts, schema):
            sorted_by = pa.concat_tables([last, block.select(list(order))])
            keys = [(name, "ascending") for name in order]
            if not np.array_equal(pc.sort_indices(sorted_by, sort_keys=keys), np.arange(sorted_by.num_rows)):
                raise UnorderedRowsError(f"the rows are not sorted by {', '.join(order)}")
            last = sorted_by.slice(sorted_by.num_rows - 1)
            writer.write_table(block, row_group_size=BLOCK_ROWS)
    return OrderedFile(path)


def _in_blocks(parts: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    pending: list[pa.Table] = []
    held = 0
    for part in parts:
        columns = [part.column(field.name).cast(field.type) for field in schema]
        pending.append(pa.Table.from_arrays(columns, schema=schema))
        held += part.num_rows
        if held >= BLOCK_ROWS:
            table = pa.concat_tables(pending)
            whole = held - held % BLOCK_ROWS
            for start in range(0, whole, BLOCK_ROWS):
                yield table.slice(start, BLOCK_ROWS).combine_chunks()
            pending, held = [table.slice(whole)], held - whole
    if held:
        yield pa.concat_tables(pending).combine_chunks()
