"""The job that maintains a dataset's table, and the CloudWatch alarm that watches whether it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from infra.components.grants import (
    Statements,
    commit_table,
    delete_from_prefix,
    publish_metrics,
    read_manifests,
    read_prefix,
    read_table,
    write_prefix,
)
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.monitor_alarms import MonitorAlarmsArgs, silence_alarm
from infra.components.registry import Registry
from infra.components.storage import Storage
from pipelines.declarations.data_monitoring import DAILY_SILENCE_HOURS, TABLE_DIMENSION, maintenance_schedule
from pipelines.declarations.model import Resources
from pipelines.declarations.names import PREDICTIONS_SUFFIX, maintenance_name, predictions_name, table_name

_RESOURCES = Resources(cpu="1", memory="2Gi")
_DEADLINE_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class TableMaintenanceArgs:
    """Arguments of `TableMaintenance`.

    Attributes:
        context: the settings that all jobs share.
        storage: holds the table.
        registry: its bundles name the versions that must stay.
        predicting: models whose batch predictions may have read the table; those versions must stay, too.
    """

    context: JobContext
    storage: Storage
    registry: Registry
    predicting: Sequence[str]


class TableMaintenance(JobComponent):
    """The job `maintain-<dataset>`, which expires versions, joins small files, and removes unused files and old rows.

    An alarm watches whether it runs. Without an image there is no job, and no alarm.
    """

    def __init__(self, dataset: str, args: TableMaintenanceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        name, environment = maintenance_name(dataset), args.context.environment
        job = JobArgs(
            context=args.context,
            name=name,
            container="maintenance",
            command=[
                *("python", "-m", "pipelines.data", "maintain", dataset, "--namespace", environment.prefix),
                *(f"--predicting={model}" for model in args.predicting),
            ],
            statements=_statements(dataset, args),
            resources=_RESOURCES,
            scratch="1Gi",
            deadline_seconds=_DEADLINE_SECONDS,
            schedule=maintenance_schedule(dataset),
        )
        super().__init__("mlops:data:TableMaintenance", dataset, job, opts)
        if args.context.image is not None:
            alarm = MonitorAlarmsArgs(
                environment=environment,
                workload=name,
                about=dataset,
                dimension=TABLE_DIMENSION,
                silent_hours=DAILY_SILENCE_HOURS,
            )
            what = f"The table of {dataset} has not been maintained"
            silence_alarm(alarm, what, "a-table-is-not-maintained", pulumi.ResourceOptions(parent=self))


def _statements(dataset: str, args: TableMaintenanceArgs) -> Statements:
    environment, lake = args.context.environment, args.storage.lake
    table = table_name(dataset)
    files = f"{environment.catalog_database}/{table}/"
    records = f"quarantine/{dataset}/expired/"
    # The age of a prediction is on record after its version has expired.
    aged = (records,) if dataset.endswith(PREDICTIONS_SUFFIX) else ()
    predictions = [table_name(predictions_name(model)) for model in args.predicting]
    return [
        *read_prefix(lake, files, *aged, *(f"{environment.catalog_database}/{each}/metadata/" for each in predictions)),
        *(statement for each in predictions for statement in read_table(environment, each)),
        *write_prefix(lake, files, records),
        *delete_from_prefix(lake, files),
        *commit_table(environment, table),
        *read_manifests(args.registry.bucket),
        *write_prefix(args.storage.logs, f"lineage/{maintenance_name(dataset)}/"),
        *publish_metrics(environment.prefix),
    ]
