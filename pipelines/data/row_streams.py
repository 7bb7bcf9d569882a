"""Stream the rows of an Iceberg scan with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import DataScan, FileScanTask, Table


def stream_rows(
    table: Table, scan: DataScan, order: Callable[[FileScanTask], int] | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Return the columns of a scan, and its rows.

    One data file is in memory at a time. pyiceberg's own reader of batches starts to read every file at once, and keeps
    what it has read.

    Args:
        table: the table.
        scan: what to read of it.
        order: sorts the data files; by default they come as the table lists them.
    """
    from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow

    tasks = list(scan.plan_files())
    if order is not None:
        tasks.sort(key=order)
    reader = ArrowScan(table.metadata, table.io, scan.projection(), scan.row_filter)
    schema = schema_to_pyarrow(scan.projection(), include_field_ids=False)
    return schema, (_cast(rows, schema) for task in tasks for rows in reader.to_record_batches([task]))


def _cast(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([rows.column(f.name).cast(f.type) for f in schema], schema=schema)
