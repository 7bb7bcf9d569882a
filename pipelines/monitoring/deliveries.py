"""Deliveries of a dataset: what each run of its ingest job appended, from the history of the table. Read-only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.data.catalog import BATCH, schema_of
from pipelines.data.delivery_history import snapshots_by_run, summary_property
from pipelines.data.file_replacement import current_files, is_settled
from pipelines.data.row_quarantine import BatchRecord
from pipelines.monitoring.data_checks import QualityCounts

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask, Table
    from pyiceberg.table.snapshots import Snapshot


@dataclass(frozen=True)
class Delivery:
    """Batches that one run of the ingest job appended.

    Attributes:
        snapshots: ids of the snapshots that added rows, including those of quarantined rows that were released later.
        batches: digests of the landing files.
        committed: when the last batch was committed, in UTC.
        rows: rows added.
        columns: column → Iceberg type of the table at that time.
        sequence: Iceberg's sequence number of the first snapshot.
    """

    snapshots: tuple[int, ...]
    batches: tuple[str, ...]
    committed: datetime
    rows: int
    columns: dict[str, str]
    sequence: int = 0


def deliveries(table: Table) -> list[Delivery]:
    """Return the deliveries whose rows the current version of a table holds, the oldest first.

    A snapshot without the id of a run is a separate delivery. Quarantined rows that were released later belong to
    the delivery of their batch.
    """
    return [_delivery(table, snapshots) for snapshots in snapshots_by_run(table)]


def _delivery(table: Table, snapshots: Sequence[Snapshot]) -> Delivery:
    by_batch: dict[str, Snapshot] = {}
    for snapshot in snapshots:
        by_batch.setdefault(summary_property(snapshot, BATCH), snapshot)
    first = list(by_batch.values())
    return Delivery(
        snapshots=tuple(one.snapshot_id for one in snapshots),
        batches=tuple(by_batch),
        committed=datetime.fromtimestamp(first[-1].timestamp_ms / 1000, UTC),
        rows=sum(int(summary_property(one, "added-records") or 0) for one in snapshots),
        columns={field.name: str(field.field_type) for field in schema_of(table, first[-1]).fields},
        sequence=snapshots[0].sequence_number or 0,
    )


def daily_rows(found: Sequence[Delivery], until: date) -> list[int | None]:
    """Return the rows of each day from the first delivery to a day, in UTC; None for a day without a delivery."""
    totals: Counter[date] = Counter()
    for delivery in found:
        totals[delivery.committed.date()] += delivery.rows
    if not totals:
        return []
    start = min(totals)
    days = (start + timedelta(days=number) for number in range((until - start).days + 1))
    return [totals.get(day) for day in days]


def quality_counts(found: Iterable[Delivery], records: Iterable[BatchRecord]) -> QualityCounts:
    """Add up what the ingest job recorded about the batches of deliveries."""
    batches = {batch for delivery in found for batch in delivery.batches}
    rows = quarantined = 0
    broken: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record.batch in batches:
            rows += record.rows
            quarantined += record.quarantined
            for reason in record.reasons:
                broken[reason.column, reason.rule] += reason.rows
    return QualityCounts(rows, quarantined, dict(broken))


def files_by_snapshot(table: Table, since: int = 0) -> dict[int, list[FileScanTask]]:
    """Return the data files of the current version of a table, by the snapshot that added them.

    Args:
        table: the table.
        since: sequence number of a snapshot. Files that were added earlier are left out, and so are settled files,
            whose rows are earlier. 0 for all files.
    """
    found: dict[int, list[FileScanTask]] = {}
    for file in current_files(table):
        if since == 0 or (file.sequence >= since and not is_settled(file.path)):
            found.setdefault(file.snapshot, []).append(file.task)
    return found
