"""Remove rows that are older than the contract's retention from the current version of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.data.file_replacement import (
    SETTLED,
    CurrentFile,
    current_files,
    is_settled,
    replace_files,
    stream_files,
)
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.plurals import counted
from pipelines.declarations.service_level import retention_time

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table

BINDING = ("active", "deprecated", "retired")
"""Statuses of contracts whose retention removes rows. A draft binds nobody."""

FILES_OF_COMMIT = 20
"""Number of files from which one commit removes rows."""


def row_retention(contract: Contract) -> tuple[Column, timedelta] | None:
    """Return the column that gives the age of rows, and the age at which they are removed; None if all rows stay."""
    column, age = contract.retention_column, retention_time(contract.service_levels)
    if column is None or age is None or contract.status not in BINDING:
        return None
    return column, age


def oldest_kept(contract: Contract, now: datetime) -> tuple[Column, datetime] | None:
    """Return the column that gives the age of rows, and the oldest value that stays; None if all rows stay."""
    kept = row_retention(contract)
    return None if kept is None else (kept[0], now - kept[1])


def files_with_old_rows(table: Table, column: Column, oldest: datetime) -> list[CurrentFile]:
    """Return the files of the current version that may have older rows, by their statistics."""
    from pyiceberg.expressions import LessThan, Reference
    from pyiceberg.expressions.literals import literal
    from pyiceberg.types import TimestamptzType

    if column.name not in {field.name for field in table.schema().fields}:
        return []  # the contract has it, but no batch yet
    limit = oldest.date().isoformat()
    if column.stored_as == "timestamp":
        zoned = isinstance(table.schema().find_field(column.name).field_type, TimestamptzType)
        limit = oldest.astimezone(UTC).replace(tzinfo=None).isoformat() + ("+00:00" if zoned else "")
    older = LessThan(term=Reference(column.name), value=literal(limit))
    possible = {task.file.file_path for task in table.scan(row_filter=older).plan_files()}
    return [file for file in current_files(table) if file.path in possible and not file.has_deletes]


def remove_old_rows(
    descriptor: EnvironmentDescriptor,
    table: Table,
    contract: Contract,
    now: datetime,
    compared: int,
    log: Callable[[str], None],
) -> int:
    """Remove the rows whose age exceeds the contract's retention. Rows without a value stay.

    Earlier versions have the rows until they expire.

    Args:
        descriptor: the environment.
        table: the table; it is refreshed.
        contract: the dataset's contract.
        now: the current time.
        compared: sequence number of the oldest delivery that the dataset's monitor compares.
        log: called with each line of progress.

    Returns:
        The number of rows that were removed.

    Raises:
        MlopsError: other writers commit all the time.
    """
    limit = oldest_kept(contract, now)
    if limit is None:
        return 0
    column, oldest = limit
    removed = 0
    found = files_with_old_rows(table, column, oldest)
    for start in range(0, len(found), FILES_OF_COMMIT):
        replaced: list[CurrentFile] = []
        written: list[str] = []
        rows = 0
        for file in found[start : start + FILES_OF_COMMIT]:
            kept = _KeptRows(table, file, column, oldest)
            written += kept.write(descriptor, SETTLED if is_settled(file.path) or file.sequence < compared else "")
            if kept.removed:
                replaced.append(file)
                rows += kept.removed
        if replaced and replace_files(descriptor, table, replaced, written, "retention") is not None:
            removed += rows
    if removed:
        log(f"retention: removed {counted(removed, 'row')} with {column.name} before {oldest:%Y-%m-%d %H:%M} UTC")
    return removed


class _KeptRows:
    """The rows of a file that are young enough; `removed` counts the others once the rows were read."""

    def __init__(self, table: Table, file: CurrentFile, column: Column, oldest: datetime) -> None:
        self.table, self.file, self.column, self.oldest = table, file, column, oldest
        self.removed = 0

    def write(self, descriptor: EnvironmentDescriptor, prefix: str) -> list[str]:
        """Write them to new files; none if there are none, or if all of them stay."""
        import pyarrow as pa

        from pipelines.data.data_files import write_data_files

        rows = stream_files(self.table, [self.file])
        for _ in self._kept(rows):  # first count, so that a file without old rows is not written again
            pass
        if self.removed in (0, self.file.rows):
            return []
        self.removed = 0
        rows = stream_files(self.table, [self.file])
        kept = pa.RecordBatchReader.from_batches(rows.schema, self._kept(rows))
        return write_data_files(descriptor, self.table, kept, prefix=prefix)

    def _kept(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.compute as pc

        for batch in rows:
            values = batch.column(self.column.name)
            limit = self.oldest.date() if pa.types.is_date(values.type) else self.oldest.astimezone(UTC)
            if isinstance(limit, datetime) and values.type.tz is None:
                limit = limit.replace(tzinfo=None)
            stays = pc.fill_null(pc.greater_equal(values, pa.scalar(limit, values.type)), True)
            kept = batch.filter(stays)
            self.removed += batch.num_rows - kept.num_rows
            yield kept
