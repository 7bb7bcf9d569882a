"""Data files of Iceberg tables: write them, and stream their rows."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import InputStream, OutputStream
from pyiceberg.io.pyarrow import ArrowScan, PyArrowFile, PyArrowFileIO, schema_to_pyarrow
from pyiceberg.table import FileScanTask, Table

from pipelines.data.glue_client import s3
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import store
from pipelines.registry.store import split_url

ROW_GROUP_BYTES = 32 << 20
"""Size in memory of one row group, and so of the part of a stream that is held at once."""

STREAMED_ROWS = 65_536
"""Rows of a data file that are read at once."""

DATA_FILE_BYTES = 256 << 20
"""Size of a data file after which the next one is started."""


class _NewFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        return super().create(overwrite=True)


class TableFiles(PyArrowFileIO):
    """pyiceberg's Arrow file IO, without the check that a new file does not exist.

    Names contain a UUID, so they are always new. The check would need permission to list the bucket: without it, S3
    answers 403 for an absent object.
    """

    def new_output(self, location: str) -> PyArrowFile:
        """Return a new file to write."""
        file = super().new_output(location)
        return _NewFile(location=file.location, fs=file._filesystem, path=file._path, buffer_size=file._buffer_size)


def write_data_files(
    descriptor: EnvironmentDescriptor, table: Table, rows: pa.RecordBatchReader, *, prefix: str = ""
) -> list[str]:
    """Write a stream of rows as data files of a table, without adding them to a snapshot.

    Files are written to a local temporary file first. pyiceberg's append reads the whole stream before it writes the
    first file, and Arrow's S3 files buffer without limit what the network has not sent yet.

    Args:
        descriptor: the environment.
        table: the table.
        rows: stream of rows with columns of the table, in any order.
        prefix: first part of the names of the files.

    Returns:
        The URLs of the files (`s3://…`).
    """
    whole = schema_to_pyarrow(table.schema(), include_field_ids=True)
    schema = pa.schema([field for field in whole if field.name in rows.schema.names])
    urls: list[str] = []
    groups = _groups(rows, schema)
    group = next(groups, None)
    while group is not None:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                while group is not None and file.tell() < DATA_FILE_BYTES:
                    writer.write_table(group, row_group_size=group.num_rows)
                    group = next(groups, None)
            file.flush()
            url = table.location_provider().new_data_location(f"{prefix}{uuid.uuid4()}.parquet")
            store.upload(*split_url(url), Path(file.name), client=s3(descriptor))
            urls.append(url)
    return urls


def _groups(rows: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    """Convert rows to the types of the table and group them into row groups."""
    pending: list[pa.RecordBatch] = []
    held = 0
    for batch in rows:
        arrays = [batch.column(field.name).cast(field.type) for field in schema]
        pending.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        held += pending[-1].nbytes
        if held >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(pending)
            pending, held = [], 0
    if pending:
        yield pa.Table.from_batches(pending)


def stream_rows(table: Table, tasks: Iterable[FileScanTask], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream some columns of data files, in bounded memory. A file without one of the columns leaves it out."""
    for task in tasks:
        if task.delete_files:
            yield from _without_deleted(table, task, columns)
            continue
        with table.io.new_input(task.file.file_path).open() as file:
            yield from stream_file(file, columns)


def stream_file(source: Path | BinaryIO | InputStream, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream some columns of a Parquet file, in the memory of one row group. Columns that it lacks are left out.

    Row groups are read one at a time. A reader of several keeps what it has read of all of them, and a batch across two
    could hold any number of long texts.
    """
    with pq.ParquetFile(source) as parquet:
        present = [name for name in columns if name in parquet.schema_arrow.names]
        for group in range(parquet.num_row_groups):
            yield from parquet.iter_batches(STREAMED_ROWS, [group], columns=present, use_threads=False)


def _without_deleted(table: Table, task: FileScanTask, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream a file from which another engine has deleted rows."""
    known = {field.name for field in table.schema().fields}
    schema = table.schema().select(*(name for name in columns if name in known))
    yield from ArrowScan(table.metadata, table.io, schema, AlwaysTrue()).to_record_batches([task])
