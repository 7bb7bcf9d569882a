"""The monitor of a dataset: a job that judges each delivery, and the CloudWatch alarms on its metrics."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.grants import Statements, publish_metrics, read_prefix, read_table, write_prefix
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.storage import Storage
from pipelines.declarations.contract import Contract
from pipelines.declarations.data_monitoring import (
    ALARMS_METRIC,
    DATASET_DIMENSION,
    RUNS_METRIC,
    longest_silence_hours,
    monitor_schedule,
)
from pipelines.declarations.model import Resources
from pipelines.declarations.names import monitor_name, table_name

_RESOURCES = Resources(cpu="1", memory="2Gi")
_DEADLINE_SECONDS = 1800
_HOUR = 3600
_RUNBOOK = "What to do: docs/on-call.md#alarms-of-data-monitors"


@dataclass(frozen=True, kw_only=True)
class DataMonitorArgs:
    """Arguments of `DataMonitor`.

    Attributes:
        context: the settings that all jobs share.
        contract: the dataset's contract.
        storage: holds the table, and receives the reports.
    """

    context: JobContext
    contract: Contract
    storage: Storage


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
        )
        super().__init__("mlops:monitoring:DataMonitor", dataset, job, opts)
        if args.context.image is not None:
            self._alarm(
                f"{name}-alarm",
                args,
                aws.cloudwatch.MetricAlarmArgs(
                    alarm_description=f"A check of the monitor of {dataset} found something: "
                    f"mlops monitor show {dataset} --env {args.context.environment.name}. {_RUNBOOK}",
                    metric_name=ALARMS_METRIC,
                    statistic="Maximum",
                    comparison_operator="GreaterThanThreshold",
                    threshold=0,
                    evaluation_periods=1,
                    treat_missing_data="ignore",  # between two runs, the alarm keeps its state
                ),
            )
            hours = longest_silence_hours(args.contract.service_levels)
            self._alarm(
                f"{name}-silent",
                args,
                aws.cloudwatch.MetricAlarmArgs(
                    alarm_description=f"The monitor of {dataset} has not finished a run for {hours} hours: "
                    f"kubectl -n {args.context.environment.config.namespace} get jobs. {_RUNBOOK}",
                    metric_name=RUNS_METRIC,
                    statistic="Sum",
                    comparison_operator="LessThanThreshold",
                    threshold=1,
                    evaluation_periods=hours,
                    treat_missing_data="breaching",
                ),
            )

    def _alarm(self, name: str, args: DataMonitorArgs, alarm: aws.cloudwatch.MetricAlarmArgs) -> None:
        environment = args.context.environment
        topics = list(environment.config.monitoring.alarm_topics)
        alarm.name = f"{environment.prefix}-{name}"
        alarm.namespace = environment.prefix
        alarm.dimensions = {DATASET_DIMENSION: args.contract.name}
        alarm.period = _HOUR
        alarm.alarm_actions = topics
        alarm.ok_actions = topics
        alarm.tags = environment.tags()
        aws.cloudwatch.MetricAlarm(name, alarm, opts=pulumi.ResourceOptions(parent=self))


def _statements(dataset: str, args: DataMonitorArgs) -> Statements:
    environment, storage = args.context.environment, args.storage
    table = table_name(dataset)
    return [
        *read_table(environment, table),
        *read_prefix(storage.lake, f"{environment.catalog_database}/{table}/", f"quarantine/{dataset}/"),
        *write_prefix(storage.logs, f"monitoring/data/{dataset}/"),
        *publish_metrics(environment.prefix),
    ]
