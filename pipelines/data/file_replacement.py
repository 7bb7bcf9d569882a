"""Replace data files of a table by others, in one commit that loses no rows of other writers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import FileScanTask, Table

MAINTENANCE = "mlops.maintenance"
"""Snapshot property: why table maintenance made the snapshot: `compaction` or `retention`."""

SETTLED = "settled-"
"""First part of the names of files whose rows are older than the deliveries that the dataset's monitor compares.

A name tells so also after the snapshot that wrote the file has expired."""

MOST_ATTEMPTS = 8
"""Maximum number of attempts to commit while other writers commit first."""

LONGEST_PAUSE = 10.0
"""Seconds between two attempts."""


@dataclass(frozen=True)
class CurrentFile:
    """A data file of the current version of a table.

    Attributes:
        path: its URL.
        size: size in bytes.
        rows: number of rows.
        sequence: Iceberg's sequence number of the commit that added it.
        snapshot: id of the snapshot that added it.
        task: how to read it.
    """

    path: str
    size: int
    rows: int
    sequence: int
    snapshot: int
    task: FileScanTask

    @property
    def has_deletes(self) -> bool:
        """True if another engine has deleted some of its rows."""
        return bool(self.task.delete_files)


def current_files(table: Table) -> list[CurrentFile]:
    """Return the data files of the current version of a table, the oldest first."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return []
    added = {
        entry.data_file.file_path: (entry.sequence_number or 0, entry.snapshot_id)
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    }
    found = []
    for task in table.scan().plan_files():
        file = task.file
        sequence, by = added.get(file.file_path, (snapshot.sequence_number or 0, None))
        by = by or snapshot.snapshot_id
        found.append(CurrentFile(file.file_path, file.file_size_in_bytes, file.record_count, sequence, by, task))
    return sorted(found, key=lambda each: (each.sequence, each.path))


def is_settled(path: str) -> bool:
    """Return True if a file holds only rows that are older than those that the dataset's monitor compares."""
    return PurePosixPath(path).name.startswith(SETTLED)


def stream_files(table: Table, files: Sequence[CurrentFile]) -> pa.RecordBatchReader:
    """Stream the rows of files with the columns and types that the table has now, in bounded memory."""
    import pyarrow as pa
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow

    schema = schema_to_pyarrow(table.schema(), include_field_ids=False)

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:  # one after the other, because pyiceberg reads tasks ahead
            for batch in ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_record_batches(
                [file.task]
            ):
                arrays = [batch.column(field.name).cast(field.type) for field in schema]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def replace_files(
    descriptor: EnvironmentDescriptor,
    table: Table,
    replaced: Sequence[CurrentFile],
    written: Sequence[str],
    reason: str,
) -> str | None:
    """Replace files of the current version by files that were written for it.

    If another writer commits first, the attempt is repeated on its version, as long as that has the files unchanged.

    Args:
        descriptor: the environment.
        table: the table; it is refreshed.
        replaced: files of its current version.
        written: URLs of the new files; none to remove the rows.
        reason: value of the snapshot property `mlops.maintenance`.

    Returns:
        The id of the new snapshot; None if another writer has replaced the files.

    Raises:
        MlopsError: other writers commit all the time.
    """
    from pyiceberg.exceptions import CommitFailedException

    for attempt in range(1, MOST_ATTEMPTS + 1):
        table.refresh()
        files = {file.path: file for file in current_files(table)}
        if any(file.path not in files or files[file.path].has_deletes for file in replaced):
            return None
        try:
            return _commit(table, replaced, written, reason)
        except CommitFailedException:
            pause_before(attempt)
    raise MlopsError(
        f"the {reason} of {'.'.join(table.name())} in {descriptor.name} was given up: other writers committed "
        f"{MOST_ATTEMPTS} times in a row",
        fix="run the job again when fewer writers use the table",
    )


def pause_before(attempt: int) -> None:
    """Wait for a random time, longer on average after each attempt to commit."""
    time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**attempt)))  # noqa: S311 - not for security


def _commit(table: Table, replaced: Sequence[CurrentFile], written: Sequence[str], reason: str) -> str:
    from pyiceberg.io.pyarrow import parquet_files_to_data_files

    from pipelines.data.catalog import without_retries

    with without_retries(table).transaction() as transaction:
        with transaction.update_snapshot(snapshot_properties={MAINTENANCE: reason}).overwrite() as change:
            for file in replaced:
                change.delete_data_file(file.task.file)
            for new in parquet_files_to_data_files(table.io, transaction.table_metadata, iter(written)):
                change.append_data_file(new)
        snapshot = transaction.table_metadata.current_snapshot_id
    return str(snapshot)
