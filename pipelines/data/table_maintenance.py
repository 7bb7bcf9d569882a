"""Maintain a dataset's table: remove unused files and old rows, expire versions, and join small files.

The steps are independent, and each is safe to stop and to run again. Files come first, so that a version that expires
today keeps its files until the next run. Joining files comes last: if it fails, all that had to be removed is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.data.catalog import MissingTableError, has_table, open_table
from pipelines.data.compaction import CompactionPlan, compact, oldest_compared, plan_compaction
from pipelines.data.delivery_history import compared_snapshots
from pipelines.data.file_replacement import MOST_ATTEMPTS, current_files, pause_before
from pipelines.data.lineage import lineage, table_data
from pipelines.data.orphan_files import find_orphans, remove_orphans
from pipelines.data.row_retention import find_old_rows, remove_old_rows
from pipelines.data.table_changes import MOST_EXPIRED, TableChange, TableConflictError, make_change
from pipelines.data.version_retention import AUDIT_DAYS, KEPT_DAYS, ExpiryPlan, plan_expiry
from pipelines.data.versions import TableVersion, list_versions
from pipelines.declarations.contract import Contract
from pipelines.declarations.data_monitoring import RUNS_METRIC, TABLE_DIMENSION
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import maintenance_name, predictions_name
from pipelines.declarations.plurals import counted
from pipelines.declarations.predictions_contract import is_predictions
from pipelines.declarations.service_level import retention_time
from pipelines.registry import clients
from pipelines.registry.named_versions import named_versions
from pipelines.registry.store import Listed

if TYPE_CHECKING:
    from pyiceberg.table import Table

SHOWN_FILES = 5

FIGURES = ("RemovedFiles", "RemovedRows", "JoinedFiles", "SmallFiles", "ExpiredVersions")
"""Names of the metrics that say what was done."""


@dataclass(frozen=True)
class MaintenancePlan:
    """Planned maintenance of a table.

    Attributes:
        dataset: name of the contract.
        orphans: files that no version names.
        retention: which rows are past the retention; None if all rows stay.
        old: number of files that may have rows to remove.
        compaction: files to join.
        expiry: versions that may expire, and the others.
        overdue: versions that stay although they are older than the retention, and so may have rows that are.
    """

    dataset: str
    orphans: tuple[Listed, ...]
    retention: str | None
    old: int
    compaction: CompactionPlan
    expiry: ExpiryPlan
    overdue: tuple[TableVersion, ...]

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to do."""
        return not (self.orphans or self.old or self.compaction.groups or self.expiry.expired)


def kept_time(contract: Contract) -> timedelta:
    """Return the age up to which every version stays: 90 days, or the contract's retention if that is shorter.

    The versions of predictions stay for the audit period: each is the answer to a request.
    """
    days = AUDIT_DAYS if is_predictions(contract) else KEPT_DAYS
    return min(timedelta(days=days), retention_time(contract.service_levels) or timedelta.max)


def reference_deliveries(contract: Contract) -> int:
    """Return the number of deliveries whose files compaction leaves alone, in addition to the newest one."""
    return contract.monitoring.reference_deliveries if contract.is_monitored else 0


def plan_maintenance(
    descriptor: EnvironmentDescriptor, contract: Contract, predicting: Sequence[str], now: datetime
) -> MaintenancePlan:
    """Look at a table, and decide what its maintenance would do. Read-only.

    Args:
        descriptor: the environment.
        contract: the dataset's contract.
        predicting: models whose batch predictions may have read the table.
        now: the current time.

    Raises:
        MlopsError: the environment has no such table; or its files, its metadata or the registry cannot be read.
    """
    table = open_table(descriptor, contract.name)
    orphans = tuple(find_orphans(descriptor, table, now))
    old = find_old_rows(descriptor, table, contract, now)
    compared = oldest_compared(table, reference_deliveries(contract))
    expiry = _plan_expiry(descriptor, contract, predicting, table, now)
    return MaintenancePlan(
        dataset=contract.name,
        orphans=orphans,
        retention=old.described if old is not None else None,
        old=len(old.files) if old is not None else 0,
        compaction=plan_compaction(current_files(table), compared),
        expiry=expiry,
        overdue=overdue_versions(list_versions(table), expiry, retention_time(contract.service_levels), now),
    )


def overdue_versions(
    versions: Sequence[TableVersion], expiry: ExpiryPlan, retention: timedelta | None, now: datetime
) -> tuple[TableVersion, ...]:
    """Return the former versions that are older than the retention, but stay because a tag or a bundle names them."""
    if retention is None:
        return ()
    old = (version for version in versions if not version.is_current and now - version.at >= retention)
    return tuple(version for version in old if version.snapshot in expiry.kept)


def _plan_expiry(
    descriptor: EnvironmentDescriptor, contract: Contract, predicting: Sequence[str], table: Table, now: datetime
) -> ExpiryPlan:
    """Decide which versions may expire. The bundles of this registry include all that were trained on the table."""
    named = {
        **predicted_versions(descriptor, predicting, contract.name, now - kept_time(contract)),
        **compared_snapshots(table, contract, now),
        **named_versions(descriptor, contract.name),
    }
    return plan_expiry(list_versions(table), named, now, keep=kept_time(contract))


def predicted_versions(
    descriptor: EnvironmentDescriptor, models: Sequence[str], dataset: str, since: datetime
) -> dict[str, str]:
    """Return the snapshots of a dataset that batch predictions have read since a time, and why each stays."""
    found: dict[str, str] = {}
    for model in models:
        try:
            table = open_table(descriptor, predictions_name(model))
        except MissingTableError:  # nothing was predicted yet
            continue
        for version in list_versions(table):
            if version.read_version is not None and version.at >= since:
                read, snapshot = version.read_version
                if read == dataset:
                    found[snapshot] = f"a batch prediction of {model} has read it"
    return found


def plan_lines(plan: MaintenancePlan) -> list[str]:
    """Return the lines that show a plan to people."""
    lines = [f"keep   version {snapshot}: {why}" for snapshot, why in plan.expiry.kept.items()]
    lines += [f"expire version {each.snapshot} of {each.at:%Y-%m-%d %H:%M} UTC" for each in plan.expiry.expired]
    if plan.compaction.groups:
        lines.append(f"join   {plan.compaction.joined} small files into {len(plan.compaction.groups)}")
    elif plan.compaction.small:
        lines.append(f"keep   {counted(plan.compaction.small, 'small file')}: too few, or the monitor compares them")
    if plan.retention is not None:
        found = f"{counted(plan.old, 'file')} may have them" if plan.old else "there are none"
        lines.append(f"remove rows {plan.retention}: {found}")
    lines += [f"remove unused file {file.key} ({file.size} bytes)" for file in plan.orphans[:SHOWN_FILES]]
    if len(plan.orphans) > SHOWN_FILES:
        lines.append(f"remove {counted(len(plan.orphans) - SHOWN_FILES, 'more unused file')}")
    return [*lines, *_overdue_lines(plan.overdue)]


def _overdue_lines(overdue: Sequence[TableVersion]) -> list[str]:
    if not overdue:
        return []
    names = ", ".join(version.snapshot for version in overdue[:SHOWN_FILES])
    return [
        f"past the retention: {counted(len(overdue), 'version')} stay ({names}): remove the tags, or train again and "
        "use `mlops data expire`"
    ]


def maintain_table(
    descriptor: EnvironmentDescriptor,
    contract: Contract,
    predicting: Sequence[str],
    now: datetime,
    log: Callable[[str], None],
) -> dict[str, float]:
    """Maintain a table. Running it again, or two at once, does no harm.

    Args:
        descriptor: the environment.
        contract: the dataset's contract.
        predicting: models whose batch predictions may have read the table.
        now: the current time.
        log: called with each line of progress.

    Returns:
        Name → figure: what was done.

    Raises:
        MlopsError: the environment has no such table, AWS denied a request, or other writers commit all the time. A
            table of predictions may be missing, because the first batch prediction makes it.
    """
    dataset = contract.name
    if is_predictions(contract) and not has_table(descriptor, dataset):
        log(f"{dataset}: nothing was predicted yet")
        return dict.fromkeys(FIGURES, 0)
    data = table_data(descriptor, dataset)
    with lineage(descriptor, maintenance_name(dataset), [data], [data]) as run:
        table = open_table(descriptor, dataset)
        compared = oldest_compared(table, reference_deliveries(contract))
        orphans = find_orphans(descriptor, table, now)
        remove_orphans(descriptor, orphans)
        if orphans:
            size = sum(file.size for file in orphans)
            log(f"removed {counted(len(orphans), 'file')} that no version names ({size} bytes)")
        removed = remove_old_rows(descriptor, table, contract, now, compared, log)
        expired = _expire(descriptor, contract, predicting, table.refresh(), now, log)
        joined = compact(descriptor, table.refresh(), reference_deliveries(contract), log)
        current = table.refresh().current_snapshot()
        version = str(current.snapshot_id) if current is not None else None
        run.outputs = [table_data(descriptor, dataset, version=version, contract=contract)]
    figures = (len(orphans), removed, joined.joined, joined.small + len(joined.groups), expired)
    return dict(zip(FIGURES, figures, strict=True))


def _expire(
    descriptor: EnvironmentDescriptor,
    contract: Contract,
    predicting: Sequence[str],
    table: Table,
    now: datetime,
    log: Callable[[str], None],
) -> int:
    expired = 0
    for attempt in range(1, MOST_ATTEMPTS + 1):
        plan = _plan_expiry(descriptor, contract, predicting, table.refresh(), now)
        chosen = tuple(version.snapshot for version in plan.expired[:MOST_EXPIRED])
        if not chosen:
            break
        try:
            make_change(descriptor, contract, TableChange(action="expire", snapshots=chosen), log)
            expired += len(chosen)
        except TableConflictError:
            if attempt == MOST_ATTEMPTS:
                raise
            pause_before(attempt)
    overdue = overdue_versions(list_versions(table), plan, retention_time(contract.service_levels), now)
    for line in _overdue_lines(overdue):
        log(line)
    return expired


def publish_figures(
    descriptor: EnvironmentDescriptor, dataset: str, namespace: str, figures: Mapping[str, float], now: datetime
) -> None:
    """Send the figures of a run to CloudWatch, and that it has finished.

    Raises:
        MlopsError: CloudWatch denied the request or cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    metrics = [
        {
            "MetricName": name,
            "Dimensions": [{"Name": TABLE_DIMENSION, "Value": dataset}],
            "Timestamp": now,
            "Value": value,
            "Unit": "Count",
        }
        for name, value in {RUNS_METRIC: 1.0, **figures}.items()
    ]
    try:
        clients.client("cloudwatch", descriptor.region).put_metric_data(Namespace=namespace, MetricData=metrics)
    except (BotoCoreError, ClientError) as error:
        raise MlopsError(
            f"the metrics of {maintenance_name(dataset)} were not published to the namespace {namespace}: {error}",
            fix="grant the job's role cloudwatch:PutMetricData on this namespace, and run the job again",
        ) from None
