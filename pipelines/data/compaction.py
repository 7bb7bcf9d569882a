"""Join small data files of a table into larger ones. The rows stay the same, which their digest proves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.data.catalog import primary_key_of
from pipelines.data.delivery_history import snapshots_by_run
from pipelines.data.file_replacement import SETTLED, CurrentFile, current_files, replace_files, stream_files
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table

SMALL_FILE = 16 << 20
"""Size in bytes below which a file is joined with others."""

GROUP_BYTES = 32 << 20
"""Size in bytes of the files that are joined into one."""

HELD_BYTES = 256 << 20
"""Size in memory of the rows that are joined at once. A file of a few kilobytes can hold gigabytes of equal texts."""

GROUP_ROWS = 2_000_000
"""Maximum number of rows of the files that are joined into one."""

GROUPS_OF_COMMIT = 20
"""Number of new files that one commit adds."""

FEWEST_FILES = 8
"""Number of small files from which joining them is worth a new version of the table."""


@dataclass(frozen=True)
class CompactionPlan:
    """Files to join.

    Attributes:
        groups: the files that become one, for each new file.
        small: number of small files that stay as they are.
    """

    groups: tuple[tuple[CurrentFile, ...], ...]
    small: int

    @property
    def joined(self) -> int:
        """Number of files that are joined."""
        return sum(map(len, self.groups))


def plan_compaction(files: Iterable[CurrentFile], before: int) -> CompactionPlan:
    """Decide which files to join.

    Files that another engine deletes rows from stay, and so do those of the newest deliveries: the dataset's monitor
    compares them, and finds their rows by their files.

    Args:
        files: data files of the current version, the oldest first.
        before: sequence number of the first delivery whose files stay.
    """
    small = [file for file in files if file.size < SMALL_FILE]
    chosen = [file for file in small if file.sequence < before and not file.has_deletes]
    groups: list[list[CurrentFile]] = []
    if len(chosen) >= FEWEST_FILES:
        size = rows = 0
        for file in chosen:
            if not groups or size + file.size > GROUP_BYTES or rows + file.rows > GROUP_ROWS:
                groups.append([])
                size = rows = 0
            groups[-1].append(file)
            size, rows = size + file.size, rows + file.rows
    worth = tuple(tuple(group) for group in groups if len(group) > 1)
    return CompactionPlan(worth, len(small) - sum(map(len, worth)))


def oldest_compared(table: Table, reference_deliveries: int) -> int:
    """Return the sequence number of the oldest delivery that a monitor compares with the newest one.

    Args:
        table: the table.
        reference_deliveries: number of deliveries that the newest one is compared with.
    """
    runs = snapshots_by_run(table)[-reference_deliveries - 1 :]
    return min((snapshot.sequence_number or 0 for run in runs for snapshot in run), default=0)


def compact(
    descriptor: EnvironmentDescriptor, table: Table, reference_deliveries: int, log: Callable[[str], None]
) -> CompactionPlan:
    """Join the small files of a table. A job that is killed loses only the groups since its last commit.

    Args:
        descriptor: the environment.
        table: the table; it is refreshed.
        reference_deliveries: number of deliveries that the monitor compares with the newest one.
        log: called with each line of progress.

    Returns:
        What was joined, and the number of small files that are left.

    Raises:
        MlopsError: the new files do not have the same rows, and nothing was committed; or other writers commit all
            the time.
    """
    plan = plan_compaction(current_files(table), oldest_compared(table, reference_deliveries))
    done: list[tuple[CurrentFile, ...]] = []
    for start in range(0, len(plan.groups), GROUPS_OF_COMMIT):
        parts: list[tuple[CurrentFile, ...]] = []
        paths: list[str] = []
        for group in plan.groups[start : start + GROUPS_OF_COMMIT]:
            for part, rows in _parts(table, group):
                paths += _rewrite(descriptor, table, rows)
                parts.append(part)
        files = [file for part in parts for file in part]
        if not files:
            continue
        snapshot = replace_files(descriptor, table, files, paths, "compaction")
        if snapshot is None:
            log(f"compaction: another writer replaced some of {counted(len(files), 'file')}; the next run looks again")
        else:
            done += parts
            total = counted(sum(file.rows for file in files), "row")
            log(f"compaction: {len(files)} files of {total} became {len(paths)}, snapshot {snapshot}")
    return CompactionPlan(tuple(done), plan.small + plan.joined - sum(map(len, done)))


def _parts(table: Table, group: Sequence[CurrentFile]) -> Iterator[tuple[tuple[CurrentFile, ...], pa.Table]]:
    """Yield files of a group that can be joined in bounded memory, with their rows. A file that is too large stays."""
    import pyarrow as pa

    files: list[CurrentFile] = []
    held: list[pa.RecordBatch] = []
    used = 0
    for file in group:
        rows = _rows_within(table, file, HELD_BYTES - used)
        if rows is None and files:
            if len(files) > 1:
                yield tuple(files), pa.Table.from_batches(held)
            files, held, used = [], [], 0
            rows = _rows_within(table, file, HELD_BYTES)
        if rows is not None:
            files.append(file)
            held += rows
            used += sum(batch.nbytes for batch in rows)
    if len(files) > 1:
        yield tuple(files), pa.Table.from_batches(held)


def _rows_within(table: Table, file: CurrentFile, limit: int) -> list[pa.RecordBatch] | None:
    """Read the rows of a file; None if they need more memory than `limit`, in bytes."""
    batches, held = [], 0
    for batch in stream_files(table, [file]):
        held += batch.nbytes
        if held > limit:
            return None
        batches.append(batch)
    return batches


def _rewrite(descriptor: EnvironmentDescriptor, table: Table, rows: pa.Table) -> list[str]:
    """Write the rows of files into one file, and prove that it has the same rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipelines.data.data_files import write_data_files
    from pipelines.data.row_digest import digest_of_rows

    snapshot = table.current_snapshot()
    key = primary_key_of(table, snapshot) if snapshot is not None else ()
    expected = digest_of_rows(rows, key)
    reader = pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches())
    paths = write_data_files(descriptor, table, reader, prefix=SETTLED)
    written = []
    for path in paths:
        with table.io.new_input(path).open() as file:
            written.append(pq.read_table(file).cast(rows.schema))
    found = digest_of_rows(pa.concat_tables(written), key) if written else digest_of_rows(rows.slice(0, 0), key)
    if found != expected:
        raise MlopsError(
            f"the compaction of {'.'.join(table.name())} was given up before its commit: expected rows with the digest "
            f"{expected}, found {found} in {', '.join(paths)}",
            fix="run the job again; the new files are removed later, because nothing names them",
        )
    return paths
