"""Remove rows that are older than the contract's retention from the current version of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from pipelines.data.expired_versions import ExpiredVersion, read_expired
from pipelines.data.file_replacement import (
    SETTLED,
    CurrentFile,
    current_files,
    is_settled,
    replace_files,
    stream_files,
)
from pipelines.data.versions import TableVersion, list_versions
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.plurals import counted
from pipelines.declarations.predictions_contract import BATCH_COLUMN, batch_names, is_predictions
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


@dataclass(frozen=True)
class OldRows:
    """Rows that are past the retention.

    Attributes:
        described: what they are, for messages.
        files: files of the current version that may have some.
        stays: returns which rows of a batch of rows are young enough.
    """

    described: str
    files: tuple[CurrentFile, ...]
    stays: Callable[[pa.RecordBatch], pa.Array]


def find_old_rows(descriptor: EnvironmentDescriptor, table: Table, contract: Contract, now: datetime) -> OldRows | None:
    """Find the rows that the retention removes; None if all rows stay.

    Args:
        descriptor: the environment.
        table: the table.
        contract: the dataset's contract. The age of a prediction is that of its batch.
        now: the current time.
    """
    if is_predictions(contract):
        return _old_predictions(descriptor, table, contract, now)
    kept = row_retention(contract)
    if kept is None:
        return None
    column, oldest = kept[0], now - kept[1]
    files = tuple(_files_with_old_values(table, column, oldest))
    return OldRows(f"with {column.name} before {_shown(oldest)}", files, partial(_is_young, column.name, oldest))


def _shown(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _is_young(name: str, oldest: datetime, rows: pa.RecordBatch) -> pa.Array:
    """Return which rows have a date or a timestamp that is young enough, or none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = rows.column(name)
    limit = oldest.date() if pa.types.is_date(values.type) else oldest.astimezone(UTC)
    if isinstance(limit, datetime) and values.type.tz is None:
        limit = limit.replace(tzinfo=None)
    return pc.fill_null(pc.greater_equal(values, pa.scalar(limit, values.type)), True)


def _files_with_old_values(table: Table, column: Column, oldest: datetime) -> list[CurrentFile]:
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


def _old_predictions(
    descriptor: EnvironmentDescriptor, table: Table, contract: Contract, now: datetime
) -> OldRows | None:
    """Find the predictions of batches that are past the retention. What is on record about these batches stays."""
    import pyarrow as pa

    from pipelines.data.data_files import stream_rows

    age = retention_time(contract.service_levels)
    if age is None:
        return None
    oldest = now - age
    known: list[TableVersion | ExpiredVersion] = [*list_versions(table), *read_expired(descriptor, contract.name)]
    old = {version.batch for version in known if version.batch is not None and version.at < oldest}
    names = pa.array(sorted(name for batch in old for name in batch_names(batch)), pa.string())

    def has_some(file: CurrentFile) -> bool:
        parts = stream_rows(table, [file.task], [BATCH_COLUMN])
        return any(_is_in(part, names).true_count for part in parts)

    files = [file for file in current_files(table) if old and not file.has_deletes and has_some(file)]
    return OldRows(f"predicted before {_shown(oldest)}", tuple(files), partial(_is_other, names))


def _is_in(rows: pa.RecordBatch, names: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    column = rows.column(BATCH_COLUMN)
    return pc.is_in(column, value_set=names.cast(column.type))


def _is_other(names: pa.Array, rows: pa.RecordBatch) -> pa.Array:
    import pyarrow.compute as pc

    return pc.invert(_is_in(rows, names))


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
    old = find_old_rows(descriptor, table, contract, now)
    if old is None:
        return 0
    removed = 0
    for start in range(0, len(old.files), FILES_OF_COMMIT):
        replaced: list[CurrentFile] = []
        written: list[str] = []
        rows = 0
        for file in old.files[start : start + FILES_OF_COMMIT]:
            kept = _KeptRows(table, file, old.stays)
            written += kept.write(descriptor, SETTLED if is_settled(file.path) or file.sequence < compared else "")
            if kept.removed:
                replaced.append(file)
                rows += kept.removed
        if replaced and replace_files(descriptor, table, replaced, written, "retention") is not None:
            removed += rows
    if removed:
        log(f"retention: removed {counted(removed, 'row')} {old.described}")
    return removed


class _KeptRows:
    """The rows of a file that are young enough; `removed` counts the others once the rows were read."""

    def __init__(self, table: Table, file: CurrentFile, stays: Callable[[pa.RecordBatch], pa.Array]) -> None:
        self.table, self.file, self.stays = table, file, stays
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
        for batch in rows:
            kept = batch.filter(self.stays(batch))
            self.removed += batch.num_rows - kept.num_rows
            yield kept
