"""Monitor of a dataset: read the newest delivery and those before it, judge them, and publish a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipelines.data.catalog import open_table
from pipelines.data.columns import iceberg_type
from pipelines.data.data_files import stream_rows
from pipelines.data.expired_versions import read_expired
from pipelines.data.file_replacement import current_files
from pipelines.data.lineage import lineage, table_data
from pipelines.data.row_balance import RowBalance, balance_rows
from pipelines.data.row_quarantine import BatchRecord, read_records
from pipelines.data.spark_rows import rows_of_files
from pipelines.data.spark_session import open_spark
from pipelines.data.versions import list_versions
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.data_monitoring import VOLUME_PERIODS, DataMonitorSettings, is_daily
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.names import monitor_name
from pipelines.declarations.service_level import frequency_minutes, freshness_minutes
from pipelines.monitoring.cloudwatch_metrics import publish_metrics
from pipelines.monitoring.column_comparison import ColumnComparison
from pipelines.monitoring.column_drift import (
    DELIVERIES,
    FIRST_DELIVERY,
    compare_column,
    judge_drift,
    judge_nulls,
    without_rare,
)
from pipelines.monitoring.column_profiles import not_profiled, profile_streams
from pipelines.monitoring.data_checks import (
    judge_freshness,
    judge_open_files,
    judge_quality,
    judge_rows,
    judge_schema,
)
from pipelines.monitoring.data_report import DataMonitorReport, ExaminedDelivery, VolumePoint
from pipelines.monitoring.deliveries import (
    Delivery,
    daily_rows,
    deliveries,
    files_by_snapshot,
    quality_counts,
)
from pipelines.monitoring.monitor_findings import MonitorFinding, overall_verdict
from pipelines.monitoring.monitor_lineage import assertions_of, report_data
from pipelines.monitoring.monitor_reports import write_report
from pipelines.monitoring.profile_counter import ColumnProfile
from pipelines.monitoring.report_page import render_page
from pipelines.monitoring.spark_profiles import profile_on_spark
from pipelines.monitoring.volume import forecast_volume, judge_volume, volume_bounds

if TYPE_CHECKING:
    from pyiceberg.table import Table

SHOWN_PERIODS = 60


@dataclass(frozen=True)
class VolumeSeries:
    """Rows by period.

    Attributes:
        seasonal: True for days, False for deliveries.
        labels: of each period, the oldest first.
        rows: rows of each period; None for a day without a delivery. The last period is the one to judge.
    """

    seasonal: bool
    labels: tuple[str, ...]
    rows: tuple[int | None, ...]


def examine(descriptor: EnvironmentDescriptor, contract: Contract, now: datetime) -> DataMonitorReport:
    """Judge the newest delivery of a dataset. Read-only.

    Args:
        descriptor: the environment.
        contract: the dataset's contract.
        now: the present time, in UTC.

    Raises:
        MlopsError: the environment has no such table, or AWS denied a request.
    """
    settings = contract.monitoring
    table = open_table(descriptor, contract.name)
    records = read_records(descriptor, contract.name)
    snapshot = table.current_snapshot()
    found = deliveries(table)
    waiting = judge_open_files(_undecided(records), f"mlops data list {contract.name} --env {descriptor.name}")
    facts: dict[str, Any] = {
        "environment": descriptor.name,
        "dataset": contract.name,
        "contract": contract.version,
        "created": now,
        "snapshot": str(snapshot.snapshot_id) if snapshot is not None else None,
    }
    if not found:
        empty = MonitorFinding(check="volume", verdict="unknown", figure=0.0, unit="rows", reason="no delivery yet")
        findings = (empty, *waiting)
        return DataMonitorReport(**facts, verdict=overall_verdict(findings), findings=findings)
    newest, before = found[-1], found[:-1][-settings.reference_deliveries :]
    comparisons = _compare_columns(table, contract, settings, newest, before)
    series = volume_series(contract, found, now)
    *history, rows = series.rows
    history = history[-VOLUME_PERIODS:]
    levels = contract.service_levels
    fresh = judge_freshness(newest.committed, now, freshness_minutes(levels), frequency_minutes(levels))
    declared = {name: str(iceberg_type(column)) for name, column in contract.columns.items()}
    checked, checked_before = quality_counts([newest], records), quality_counts(before, records)
    findings = (
        *judge_schema(declared, newest.columns, before[-1].columns if before else None),
        *([fresh] if fresh is not None else []),
        judge_volume(rows or 0, history, seasonal=series.seasonal),
        judge_rows(_balance(descriptor, contract.name, table, records)),
        *judge_quality(checked, checked_before, settings.minimum_rows),
        *waiting,
        *judge_nulls(comparisons, settings),
        *judge_drift(comparisons, settings, DELIVERIES if before else FIRST_DELIVERY),
    )
    forecast = forecast_volume(history, seasonal=series.seasonal)
    low, high = volume_bounds(forecast) if forecast is not None else (None, None)
    return DataMonitorReport(
        **facts,
        verdict=overall_verdict(findings),
        delivery=ExaminedDelivery(
            committed=newest.committed,
            batches=len(newest.batches),
            rows=newest.rows,
            reference_deliveries=len(before),
            reference_rows=sum(delivery.rows for delivery in before),
        ),
        findings=findings,
        columns=tuple(shown_comparison(one, contract.columns[one.column], settings) for one in comparisons),
        volumes=tuple(
            VolumePoint(label=label, rows=count)
            for label, count in list(zip(series.labels, series.rows, strict=True))[-SHOWN_PERIODS:]
        ),
        expected_low=low,
        expected_high=high,
        skipped=_skipped(contract, settings),
    )


def _balance(
    descriptor: EnvironmentDescriptor, dataset: str, table: Table, records: Sequence[BatchRecord]
) -> RowBalance:
    files = current_files(table)
    # Rows that another engine has deleted are still in its files, and the version does not count them.
    held = sum(file.rows for file in files) if not any(file.has_deletes for file in files) else None
    expired = {each.batch for each in read_expired(descriptor, dataset) if each.batch is not None}
    return balance_rows(list_versions(table), expired, records, held)


def _undecided(records: Sequence[BatchRecord]) -> list[str]:
    return [one.file for one in records if one.verdict in ("refused", "quarantined") and one.dropped is None]


def _skipped(contract: Contract, settings: DataMonitorSettings) -> dict[str, str]:
    return {
        name: reason
        for name, column in contract.columns.items()
        if (reason := "ignored in the contract" if name in settings.ignored_columns else not_profiled(column))
    }


def _compare_columns(
    table: Table, contract: Contract, settings: DataMonitorSettings, newest: Delivery, before: Sequence[Delivery]
) -> list[ColumnComparison]:
    """Compare the columns of a delivery with the deliveries before it, in one pass over both; see `Contract.engine`.

    A column that a delivery did not have yet is compared with the deliveries that had it.
    """
    skipped = _skipped(contract, settings)
    columns = [column for name, column in contract.columns.items() if name not in skipped and name in newest.columns]
    # With enough known deliveries, rows before them are too old. Else deliveries whose versions expired count, too.
    is_complete = len(before) == settings.reference_deliveries
    files = files_by_snapshot(table, before[0].sequence if is_complete else 0)
    earlier = {snapshot for delivery in before for snapshot in delivery.snapshots}
    known = {snapshot for delivery in deliveries(table) for snapshot in delivery.snapshots}
    # Files of another engine hold the rows of compacted deliveries, so they count as earlier ones.
    old = [task for snapshot, tasks in files.items() if snapshot in earlier or snapshot not in known for task in tasks]
    new = [task for snapshot in newest.snapshots for task in files.get(snapshot, ())]
    names = [column.name for column in columns]
    if contract.engine == "spark":
        types = {column.name: column.stored_as for column in columns}
        both = (rows_of_files(table, old, types), rows_of_files(table, new, types))
        with open_spark() as spark:
            reference, current = profile_on_spark(spark, columns, *both)
    else:
        reference, current = profile_streams(columns, stream_rows(table, old, names), stream_rows(table, new, names))
    rows_without = {
        name: sum(
            task.file.record_count
            for delivery in before
            if name not in delivery.columns
            for snapshot in delivery.snapshots
            for task in files.get(snapshot, ())
        )
        for name in names
    }
    return [compare_column(name, _without_rows(reference[name], rows_without[name]), current[name]) for name in names]


def _without_rows(profile: ColumnProfile, rows: int) -> ColumnProfile:
    """Leave out rows from before the column: they were read as rows without a value."""
    absent = min(rows, profile.nulls)
    return replace(profile, rows=profile.rows - absent, nulls=profile.nulls - absent)


def shown_comparison(comparison: ColumnComparison, column: Column, settings: DataMonitorSettings) -> ColumnComparison:
    """Return what a report shows of a comparison.

    The distribution of few rows is left out: it would show single values. So are distribution and moments of a column
    that may be about a person, because the limits of the groups are values of rows. Lengths of texts are not, and the
    levels of a boolean, or of a column that lists its values, are in the contract.
    """
    is_declared = column.logical_type == "boolean" or column.valid_values is not None
    if is_personal(column) and comparison.kind != "length" and not is_declared:
        hidden = dict.fromkeys(("reference_mean", "current_mean", "reference_deviation", "current_deviation"))
        return comparison.model_copy(update={**hidden, "bars": ()})
    return without_rare(comparison, settings.minimum_rows)


def volume_series(contract: Contract, found: Sequence[Delivery], now: datetime) -> VolumeSeries:
    """Return the rows of each period up to the one to judge.

    Periods are days if data arrives daily or more often; today does not count before it ends if more deliveries are
    due. Otherwise each delivery is a period.
    """
    minutes = frequency_minutes(contract.service_levels)
    if minutes is not None and minutes > 24 * 60:
        return VolumeSeries(False, tuple(f"{d.committed:%Y-%m-%d %H:%M}" for d in found), tuple(d.rows for d in found))
    last = found[-1].committed.date()
    complete = found
    if not is_daily(contract.service_levels) and last == now.date():
        complete = [delivery for delivery in found if delivery.committed.date() < last] or list(found)
        last = complete[-1].committed.date()
    rows = daily_rows(complete, last)
    first = last.toordinal() - len(rows) + 1
    labels = tuple(last.fromordinal(first + number).isoformat() for number in range(len(rows)))
    return VolumeSeries(True, labels, tuple(rows))


def run_data_monitor(
    descriptor: EnvironmentDescriptor, contract: Contract, namespace: str, now: datetime | None = None
) -> tuple[DataMonitorReport, str]:
    """Run the monitor of a dataset: judge it, write the report, then publish its metrics.

    In this order, so that a run that was killed midway is seen as missing, and another run does all of it again.

    Args:
        descriptor: the environment.
        contract: the dataset's contract.
        namespace: CloudWatch namespace of the metrics; "" to publish none.
        now: the present time; by default the clock's.

    Returns:
        The report and its name.

    Raises:
        MlopsError: the environment has no such table, or AWS denied a request.
    """
    table, reports = table_data(descriptor, contract.name), report_data(descriptor, contract.name)
    with lineage(descriptor, monitor_name(contract.name), [table], [reports]) as run:
        report = examine(descriptor, contract, now or datetime.now(UTC))
        name = write_report(descriptor, report, render_page(report))
        found = assertions_of(report.findings, contract.columns)
        facts: dict[str, Any] = {"version": report.snapshot, "assertions": found, "contract": contract}
        run.inputs = [table_data(descriptor, contract.name, **facts)]
        run.outputs = [report_data(descriptor, contract.name, name=name)]
        if namespace:
            publish_metrics(descriptor, report, namespace)
    return report, name
