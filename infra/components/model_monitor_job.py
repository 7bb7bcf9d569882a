"""The monitor of a model: a job that judges its requests, CloudWatch alarms on its metrics, and the dashboard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.grants import (
    Statements,
    list_versions,
    publish_metrics,
    read_prefix,
    read_table,
    send_alarms,
    write_prefix,
)
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.monitor_alarms import MonitorAlarmsArgs, monitor_alarms
from infra.components.registry import Registry
from infra.components.storage import Storage
from infra.scopes import Environment
from pipelines.declarations.model import Model, Resources
from pipelines.declarations.model_monitoring import MODEL_DIMENSION, model_monitor_schedule
from pipelines.declarations.names import model_monitor_name, table_name

_RESOURCES = Resources(cpu="1", memory="2Gi")
_DEADLINE_SECONDS = 1800
_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class ModelMonitorArgs:
    """Arguments of `ModelMonitor`.

    Attributes:
        context: the settings that all jobs share.
        model: the model.
        storage: holds the inference log and the labels, and receives the reports.
        registry: holds the bundles and the ledger.
    """

    context: JobContext
    model: Model
    storage: Storage
    registry: Registry


class ModelMonitor(JobComponent):
    """The job `observe-<model>`, which reads the inference log and the labels, and writes reports and metrics.

    Two alarms watch its metrics: one if a check found something, one if no run has finished for too long. Without an
    image there is no job, and no alarms.
    """

    def __init__(self, model: str, args: ModelMonitorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        environment, settings = args.context.environment, args.model.monitoring
        name = model_monitor_name(model)
        job = JobArgs(
            context=args.context,
            name=name,
            container="monitor",
            command=[
                *("python", "-m", "pipelines.monitoring", "model", model, "--namespace", environment.prefix),
                *(["--send-alarms"] if environment.config.monitoring.github is not None else []),
            ],
            statements=_statements(args),
            resources=_RESOURCES,
            scratch="1Gi",
            deadline_seconds=_DEADLINE_SECONDS,
            schedule=model_monitor_schedule(model, settings),
            model=args.model,
        )
        super().__init__("mlops:monitoring:ModelMonitor", model, job, opts)
        if args.context.image is not None:
            alarms = MonitorAlarmsArgs(
                environment=environment,
                workload=name,
                about=model,
                dimension=MODEL_DIMENSION,
                silent_hours=settings.longest_silence_hours,
                model=args.model,
            )
            monitor_alarms(alarms, pulumi.ResourceOptions(parent=self))


def _statements(args: ModelMonitorArgs) -> Statements:
    environment, storage, model = args.context.environment, args.storage, args.model
    registry, reports = args.registry.bucket, f"monitoring/models/{model.name}/"
    statements = [
        *read_prefix(storage.logs, f"inference/{model.name}/", reports),
        *write_prefix(storage.logs, reports, f"lineage/{model_monitor_name(model.name)}/"),
        *read_prefix(registry, f"bundles/{model.name}/", f"ledger/{model.name}/"),
        *list_versions(registry, f"ledger/{model.name}/"),
        *publish_metrics(environment.prefix),
    ]
    if environment.config.monitoring.github is not None:
        statements += send_alarms(environment, model.name)
    if model.monitoring.labels is not None:
        table = table_name(model.monitoring.labels.dataset)
        statements += read_table(environment, table)
        statements += read_prefix(storage.lake, f"{environment.catalog_database}/{table}/")
    return statements


@dataclass(frozen=True, kw_only=True)
class ModelDashboardArgs:
    """Arguments of `ModelDashboard`.

    Attributes:
        environment: the environment.
        models: names of the models that are monitored, in order.
    """

    environment: Environment
    models: Sequence[str]


class ModelDashboard(pulumi.ComponentResource):
    """The CloudWatch dashboard `<project>-<environment>-models`, with a row of graphs for each model."""

    def __init__(self, name: str, args: ModelDashboardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:monitoring:ModelDashboard", name, None, opts)
        aws.cloudwatch.Dashboard(
            name,
            dashboard_name=f"{args.environment.prefix}-{name}",
            dashboard_body=json.dumps({"widgets": dashboard_widgets(args.environment, args.models)}),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({})


_GRAPHS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("checks", ("Alarms", "ChecksToWatch", "UnknownChecks")),
    ("requests", ("Requests", "Rows", "LostRecords")),
    ("errors and slow requests, %", ("Errors", "SlowRequests")),
    ("estimated accuracy and labelled rows, %", ("EstimatedAccuracy", "LabelledRows")),
)
"""Title → metrics of each graph of a row."""

_WIDTH, _HEIGHT = 6, 6
"""Size of a graph; a dashboard is 24 wide."""


def dashboard_widgets(environment: Environment, models: Sequence[str]) -> list[dict[str, Any]]:
    """Return the widgets of a dashboard, a row for each model.

    Source: Amazon CloudWatch user guide, "Dashboard body structure and syntax".
    """
    return [
        {
            "type": "metric",
            "x": column * _WIDTH,
            "y": row * _HEIGHT,
            "width": _WIDTH,
            "height": _HEIGHT,
            "properties": {
                "title": f"{model}: {title}",
                "view": "timeSeries",
                "region": environment.region,
                "period": _DAY,
                "stat": "Maximum",
                "metrics": [[environment.prefix, metric, MODEL_DIMENSION, model] for metric in metrics],
            },
        }
        for row, model in enumerate(models)
        for column, (title, metrics) in enumerate(_GRAPHS)
    ]
