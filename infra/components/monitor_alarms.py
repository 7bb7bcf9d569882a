"""CloudWatch alarms of scheduled jobs: a check of a monitor found something, and a job is silent."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.runbook import runbook
from infra.scopes import Environment
from pipelines.declarations.data_monitoring import ALARMS_METRIC, RUNS_METRIC
from pipelines.declarations.model import Model

_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class MonitorAlarmsArgs:
    """Arguments of `monitor_alarms` and `silence_alarm`.

    Attributes:
        environment: the environment.
        workload: name of the job's workload, and the first part of the alarms' names.
        about: the dataset or the model.
        dimension: dimension of the metrics that names it.
        silent_hours: hours without a run after which the job counts as dead.
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
    environment = args.environment
    kind = "data" if args.model is None else "model"
    anchor = f"alarms-of-{kind}-monitors"
    found = aws.cloudwatch.MetricAlarmArgs(
        alarm_description=f"A check of the monitor of {args.about} found something: "
        f"mlops monitor show {args.about} --kind {kind} --env {environment.name}. "
        f"What to do: {runbook(environment, anchor)}",
        metric_name=ALARMS_METRIC,
        statistic="Maximum",
        comparison_operator="GreaterThanThreshold",
        threshold=0,
        evaluation_periods=1,
        treat_missing_data="ignore",  # between two runs, the alarm keeps its state
    )
    _alarm(args, "alarm", found, opts)
    silence_alarm(args, f"The monitor of {args.about} has not finished a run", anchor, opts)


def silence_alarm(args: MonitorAlarmsArgs, what: str, anchor: str, opts: pulumi.ResourceOptions) -> None:
    """Create the alarm that goes off if a scheduled job does not run.

    Args:
        args: the job, and the hours without a run.
        what: the missing event, for the description.
        anchor: heading of `docs/on-call.md` that says what to do.
        opts: options of the resource.
    """
    silent = aws.cloudwatch.MetricAlarmArgs(
        alarm_description=f"{what} for {args.silent_hours} hours: "
        f"mlops logs {args.workload} --env {args.environment.name}. What to do: {runbook(args.environment, anchor)}",
        metric_name=RUNS_METRIC,
        statistic="Sum",
        comparison_operator="LessThanThreshold",
        threshold=1,
        evaluation_periods=args.silent_hours,
        treat_missing_data="breaching",
    )
    _alarm(args, "silent", silent, opts)


def _alarm(
    args: MonitorAlarmsArgs, suffix: str, alarm: aws.cloudwatch.MetricAlarmArgs, opts: pulumi.ResourceOptions
) -> None:
    environment, name = args.environment, f"{args.workload}-{suffix}"
    topics = list(environment.config.monitoring.alarm_topics)
    alarm.name = f"{environment.prefix}-{name}"
    alarm.namespace = environment.prefix
    alarm.dimensions = {args.dimension: args.about}
    alarm.period = _HOUR
    alarm.alarm_actions = topics
    alarm.ok_actions = topics
    alarm.tags = environment.tags(args.model)
    aws.cloudwatch.MetricAlarm(name, alarm, opts=opts)
