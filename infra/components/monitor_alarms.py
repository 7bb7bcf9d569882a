"""The two CloudWatch alarms of a monitor: a check found something, and the monitor is silent."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.scopes import Environment
from pipelines.declarations.data_monitoring import ALARMS_METRIC, RUNS_METRIC
from pipelines.declarations.model import Model

_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class MonitorAlarmsArgs:
    """Arguments of `monitor_alarms`.

    Attributes:
        environment: the environment.
        workload: name of the monitor's workload, and the first part of the alarms' names.
        about: the dataset or the model.
        dimension: dimension of the metrics that names it.
        silent_hours: hours without a run after which the monitor counts as dead.
        model: the model that the alarms belong to; None for a dataset.
    """

    environment: Environment
    workload: str
    about: str
    dimension: str
    silent_hours: int
    model: Model | None = None


def monitor_alarms(args: MonitorAlarmsArgs, opts: pulumi.ResourceOptions) -> None:
    """Create the alarms of a monitor."""
    environment, hours = args.environment, args.silent_hours
    runbook = f"What to do: docs/on-call.md#alarms-of-{'data' if args.model is None else 'model'}-monitors"
    found = aws.cloudwatch.MetricAlarmArgs(
        alarm_description=f"A check of the monitor of {args.about} found something: "
        f"mlops monitor show {args.about} --env {environment.name}. {runbook}",
        metric_name=ALARMS_METRIC,
        statistic="Maximum",
        comparison_operator="GreaterThanThreshold",
        threshold=0,
        evaluation_periods=1,
        treat_missing_data="ignore",  # between two runs, the alarm keeps its state
    )
    silent = aws.cloudwatch.MetricAlarmArgs(
        alarm_description=f"The monitor of {args.about} has not finished a run for {hours} hours: "
        f"mlops logs {args.workload} --env {environment.name}. {runbook}",
        metric_name=RUNS_METRIC,
        statistic="Sum",
        comparison_operator="LessThanThreshold",
        threshold=1,
        evaluation_periods=hours,
        treat_missing_data="breaching",
    )
    topics = list(environment.config.monitoring.alarm_topics)
    for suffix, alarm in (("alarm", found), ("silent", silent)):
        name = f"{args.workload}-{suffix}"
        alarm.name = f"{environment.prefix}-{name}"
        alarm.namespace = environment.prefix
        alarm.dimensions = {args.dimension: args.about}
        alarm.period = _HOUR
        alarm.alarm_actions = topics
        alarm.ok_actions = topics
        alarm.tags = environment.tags(args.model)
        aws.cloudwatch.MetricAlarm(name, alarm, opts=opts)
