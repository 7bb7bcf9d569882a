"""Metrics of monitors in CloudWatch. The alarms on them are provisioned with the monitor."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.data_monitoring import ALARMS_METRIC, DATASET_DIMENSION, RUNS_METRIC
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.monitor_reports import DataMonitorReport
from pipelines.registry import clients


def report_metrics(report: DataMonitorReport) -> list[dict[str, Any]]:
    """Return the metrics of a report, as `MetricData` of PutMetricData."""
    values: list[tuple[str, float, str]] = [
        (RUNS_METRIC, 1, "Count"),
        (ALARMS_METRIC, report.count("alarm"), "Count"),
        ("ChecksToWatch", report.count("watch"), "Count"),
        ("UnknownChecks", report.count("unknown"), "Count"),
    ]
    if report.delivery is not None:
        values.append(("DeliveredRows", report.delivery.rows, "Count"))
    for finding in report.findings:
        if finding.figure is None or finding.subject:
            continue
        if finding.check == "freshness":
            values.append(("AgeSeconds", max(finding.figure, 0.0) * 3600, "Seconds"))
        elif finding.check == "quality":
            values.append(("QuarantinedRows", finding.figure, "Percent"))
    return [
        {
            "MetricName": name,
            "Dimensions": [{"Name": DATASET_DIMENSION, "Value": report.dataset}],
            "Timestamp": report.created,
            "Value": value,
            "Unit": unit,
        }
        for name, value, unit in values
    ]


def publish_metrics(descriptor: EnvironmentDescriptor, report: DataMonitorReport, namespace: str) -> None:
    """Send the metrics of a report to CloudWatch.

    Raises:
        MlopsError: CloudWatch denied the request or cannot be reached.
    """
    try:
        client = clients.client("cloudwatch", descriptor.region)
        client.put_metric_data(Namespace=namespace, MetricData=report_metrics(report))
    except (BotoCoreError, ClientError) as error:
        raise MlopsError(
            f"the metrics of {report.dataset} were not published to the namespace {namespace}: {error}",
            fix="grant the job's role cloudwatch:PutMetricData on this namespace, and run the monitor again",
        ) from None
