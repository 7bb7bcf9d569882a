"""Metrics of monitors in CloudWatch. The alarms on them are provisioned with the monitor."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.declarations.data_monitoring import ALARMS_METRIC, DATASET_DIMENSION, RUNS_METRIC
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model_monitoring import MODEL_DIMENSION
from pipelines.monitoring.data_report import DataMonitorReport
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_findings import MonitorFinding, count_verdict
from pipelines.registry import clients


def report_metrics(report: DataMonitorReport | ModelMonitorReport) -> list[dict[str, Any]]:
    """Return the metrics of a report, as `MetricData` of PutMetricData."""
    values: list[tuple[str, float, str]] = [
        (RUNS_METRIC, 1, "Count"),
        (ALARMS_METRIC, count_verdict(report.findings, "alarm"), "Count"),
        ("ChecksToWatch", count_verdict(report.findings, "watch"), "Count"),
        ("UnknownChecks", count_verdict(report.findings, "unknown"), "Count"),
    ]
    if isinstance(report, DataMonitorReport):
        dimension, about, created = DATASET_DIMENSION, report.dataset, report.created
        values += _data_values(report)
    else:
        dimension, about, created = MODEL_DIMENSION, report.model, report.time
        values += _model_values(report)
    return [
        {
            "MetricName": name,
            "Dimensions": [{"Name": dimension, "Value": about}],
            "Timestamp": created,
            "Value": value,
            "Unit": unit,
        }
        for name, value, unit in values
    ]


def _data_values(report: DataMonitorReport) -> list[tuple[str, float, str]]:
    values: list[tuple[str, float, str]] = []
    if report.delivery is not None:
        values.append(("DeliveredRows", report.delivery.rows, "Count"))
    for finding in report.findings:
        if finding.figure is None or finding.subject:
            continue
        if finding.check == "freshness":
            values.append(("AgeSeconds", max(finding.figure, 0.0) * 3600, "Seconds"))
        elif finding.check == "quality":
            values.append(("QuarantinedRows", finding.figure, "Percent"))
    return values


def _model_values(report: ModelMonitorReport) -> list[tuple[str, float, str]]:
    values: list[tuple[str, float, str]] = [
        ("Requests", report.requests, "Count"),
        ("Rows", report.rows, "Count"),
        ("LostRecords", report.lost, "Count"),
        ("DriftedFeatures", sum(1 for each in report.findings if _is_drifted(each)), "Count"),
    ]
    for finding in report.findings:
        if finding.figure is None:
            continue
        if finding.check == "errors":
            values.append(("Errors", finding.figure, "Percent"))
        elif finding.check == "latency":
            values.append(("SlowRequests", finding.figure, "Percent"))
        elif finding.check == "estimated-accuracy":
            values.append(("EstimatedAccuracy", 100 * finding.figure, "Percent"))
    if report.accuracy:
        measured = [each for each in report.accuracy if each.rows]
        if measured:
            newest = max(measured, key=lambda each: (each.labelled > 0, each.end))
            values.append(("LabelledRows", 100 * min(1.0, newest.labelled / newest.rows), "Percent"))
    return values


def _is_drifted(finding: MonitorFinding) -> bool:
    return finding.check == "input-drift" and finding.verdict == "alarm"


def publish_metrics(
    descriptor: EnvironmentDescriptor, report: DataMonitorReport | ModelMonitorReport, namespace: str
) -> None:
    """Send the metrics of a report to CloudWatch.

    Raises:
        MlopsError: CloudWatch denied the request or cannot be reached.
    """
    try:
        client = clients.client("cloudwatch", descriptor.region)
        client.put_metric_data(Namespace=namespace, MetricData=report_metrics(report))
    except (BotoCoreError, ClientError) as error:
        about = report.dataset if isinstance(report, DataMonitorReport) else report.model
        raise MlopsError(
            f"the metrics of {about} were not published to the namespace {namespace}: {error}",
            fix="grant the job's role cloudwatch:PutMetricData on this namespace, and run the monitor again",
        ) from None
