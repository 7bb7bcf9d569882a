"""Stream a Parquet file of this machine in little memory, whatever the size of its row groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

READ_BYTES = 256 << 10
"""Bytes of each column that are read ahead."""


def stream_parquet(path: Path, columns: Iterable[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Stream some columns of a file, in batches of at most so many rows.

    Arrow would read all columns of a row group before the first row, and one thread holds the fewest pages in memory.
    """
    with pq.ParquetFile(path, buffer_size=READ_BYTES, pre_buffer=False) as file:
        yield from file.iter_batches(rows, columns=list(columns), use_threads=False)
