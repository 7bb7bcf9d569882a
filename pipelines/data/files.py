"""The files of a table: how they are opened, and how rows become data files."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO, schema_to_pyarrow
from pyiceberg.table import Table

from pipelines.data.clients import s3
from pipelines.declarations.environment import EnvironmentDescriptor

LARGEST_GROUP = 32 << 20
"""Bytes in memory of one row group: what is held of a stream at once."""

LARGEST_FILE = 256 << 20
"""Bytes in storage after which the next data file is begun."""


class _NewFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:
        return super().create(overwrite=True)


class TableFiles(PyArrowFileIO):
    """Writes without looking first whether the file is there: every name holds a new UUID.

    The look would need the right to list the whole bucket: to others S3 answers 403 for an object that is not there.
    """

    def new_output(self, location: str) -> PyArrowFile:
        """A file to write."""
        file = super().new_output(location)
        return _NewFile(location=file.location, fs=file._filesystem, path=file._path, buffer_size=file._buffer_size)


def write_data_files(descriptor: EnvironmentDescriptor, table: Table, rows: pa.RecordBatchReader) -> list[str]:
    """Write rows as data files of a table, a bounded part of the stream at a time; they belong to no snapshot yet.

    By way of a file on this machine. pyiceberg's own append reads a stream to its end before it writes the first file,
    and Arrow's S3 files hold in memory whatever the network has not taken yet.

    Args:
        descriptor: the environment.
        table: the table.
        rows: with columns of the table, by name, in any order.

    Returns:
        Where the files are (`s3://…`).
    """
    whole = schema_to_pyarrow(table.schema(), include_field_ids=True)
    schema = pa.schema([field for field in whole if field.name in rows.schema.names])
    places: list[str] = []
    groups = _groups(rows, schema)
    group = next(groups, None)
    while group is not None:
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as writer:
                while group is not None and file.tell() < LARGEST_FILE:
                    writer.write_table(group, row_group_size=group.num_rows)
                    group = next(groups, None)
            file.flush()
            place = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet")
            bucket, _, key = place.removeprefix("s3://").partition("/")
            s3(descriptor).upload_file(file.name, bucket, key)
            places.append(place)
    return places


def _groups(rows: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in the table's types, in parts that are row groups."""
    pending: list[pa.RecordBatch] = []
    held = 0
    for batch in rows:
        arrays = [batch.column(field.name).cast(field.type) for field in schema]
        pending.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        held += pending[-1].nbytes
        if held >= LARGEST_GROUP:
            yield pa.Table.from_batches(pending)
            pending, held = [], 0
    if pending:
        yield pa.Table.from_batches(pending)
