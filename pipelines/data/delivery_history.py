"""Snapshots of a table by the run of the ingest job that added them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.data.catalog import BATCH, RUN, history
from pipelines.declarations.contract import Contract
from pipelines.declarations.data_monitoring import VOLUME_PERIODS
from pipelines.declarations.service_level import retention_time

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot


def snapshots_by_run(table: Table) -> list[list[Snapshot]]:
    """Return the snapshots that added rows of batches to the current version, grouped by run, the oldest first.

    A snapshot without the id of a run is one group. Quarantined rows that were released later belong to the
    run of their batch. Snapshots of other changes, such as compaction, are left out.
    """
    groups: dict[str, list[Snapshot]] = {}
    run_of_batch: dict[str, str] = {}
    for snapshot in history(table):
        batch = summary_property(snapshot, BATCH)
        if batch:
            run = run_of_batch.setdefault(batch, summary_property(snapshot, RUN) or str(snapshot.snapshot_id))
            groups.setdefault(run, []).append(snapshot)
    return list(groups.values())


def compared_snapshots(table: Table, contract: Contract, now: datetime) -> dict[str, str]:
    """Return the snapshots that the dataset's monitor needs, and why each stays.

    It compares the newest delivery with those before it, and finds them by their snapshots. Those that are older than
    the contract's retention are left out.
    """
    if not contract.is_monitored:
        return {}
    deliveries = max(VOLUME_PERIODS, contract.monitoring.reference_deliveries) + 1
    kept = retention_time(contract.service_levels)
    oldest = (now - kept).timestamp() * 1000 if kept is not None else 0
    return {
        str(snapshot.snapshot_id): "the monitor compares its delivery"
        for run in snapshots_by_run(table)[-deliveries:]
        for snapshot in run
        if snapshot.timestamp_ms > oldest
    }


def summary_property(snapshot: Snapshot, name: str) -> str:
    """Return a property of a snapshot's summary; an empty text if it has none."""
    summary = snapshot.summary
    return str(summary.additional_properties.get(name, "")) if summary is not None else ""
