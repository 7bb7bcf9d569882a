"""The monitor of a dataset: a job that judges each delivery, and the CloudWatch alarms on its metrics."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.components.grants import Statements, publish_metrics, read_prefix, read_table, write_prefix
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.monitor_alarms import MonitorAlarmsArgs, monitor_alarms
from infra.components.spark_server import SparkAccess
from infra.components.storage import Storage
from pipelines.declarations.contract import Contract
from pipelines.declarations.data_monitoring import (
    DATASET_DIMENSION,
    longest_silence_hours,
    monitor_schedule,
)
from pipelines.declarations.model import Resources
from pipelines.declarations.names import monitor_name, table_name

_RESOURCES = Resources(cpu="1", memory="2Gi")
_DEADLINE_SECONDS = 1800


@dataclass(frozen=True, kw_only=True)
class DataMonitorArgs:
    """Arguments of `DataMonitor`.

    Attributes:
        context: the settings that all jobs share.
        contract: the dataset's contract.
        storage: holds the table, and receives the reports.
        spark: leads to the Spark server that reads the table; None to read it in the job.
    """

    context: JobContext
    contract: Contract
    storage: Storage
    spark: SparkAccess | None = None


class DataMonitor(JobComponent):
    """The job `monitor-<dataset>`, which reads the table and writes reports and metrics.

    Two alarms watch its metrics: one if a check found something, one if no run has finished for too long. Without an
    image there is no job, and no alarms.
    """

    def __init__(self, dataset: str, args: DataMonitorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        name = monitor_name(dataset)
        namespace = args.context.environment.prefix
        job = JobArgs(
            context=args.context,
            name=name,
            container="monitor",
            command=["python", "-m", "pipelines.monitoring", "data", dataset, "--namespace", namespace],
            statements=_statements(dataset, args),
            resources=_RESOURCES,
            scratch="1Gi",
            deadline_seconds=_DEADLINE_SECONDS,
            schedule=monitor_schedule(dataset, args.contract.service_levels),
            variables=args.spark.variables if args.spark is not None else (),
            egress=args.spark.egress if args.spark is not None else (),
        )
        super().__init__("mlops:monitoring:DataMonitor", dataset, job, opts)
        if args.context.image is not None:
            alarms = MonitorAlarmsArgs(
                environment=args.context.environment,
                workload=name,
                about=dataset,
                dimension=DATASET_DIMENSION,
                silent_hours=longest_silence_hours(args.contract.service_levels),
            )
            monitor_alarms(alarms, pulumi.ResourceOptions(parent=self))


def _statements(dataset: str, args: DataMonitorArgs) -> Statements:
    environment, storage = args.context.environment, args.storage
    table = table_name(dataset)
    return [
        *read_table(environment, table),
        *read_prefix(storage.lake, f"{environment.catalog_database}/{table}/", f"quarantine/{dataset}/"),
        *write_prefix(storage.logs, f"monitoring/data/{dataset}/", f"lineage/{monitor_name(dataset)}/"),
        *publish_metrics(environment.prefix),
    ]
