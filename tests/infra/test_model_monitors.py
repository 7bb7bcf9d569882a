"""Monitors of models: their jobs, roles, alarms and dashboard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.infra.conftest import ENVIRONMENTS
from tests.infra.recording import ACCOUNT, Recording, edit, record, release_everywhere
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
CRON_JOB = "kubernetes:batch/v1:CronJob"
DASHBOARD = "aws:cloudwatch/dashboard:Dashboard"
MODEL = "diabetes-progression"
MONITOR = f"observe-{MODEL}"
MODEL_FILE = f"models/{MODEL}/model.yaml"
NONE: Mapping[str, Recording] = {}
LABELS = {"dataset": "diabetes-patients", "id": "patient_id", "label": "progression"}


def recorded(
    folder: Path, environment: str, *edits: tuple[str, tuple[str, ...], Any], others: Mapping[str, Recording] = NONE
) -> Recording:
    """Record an environment after edits of files: name, keys, value. It may read the outputs of others."""
    project = release_everywhere(copy_as_forked(folder / "project"))
    for name, keys, value in edits:
        edit(project / name, *keys, value=value)
    descriptors = {name: one.outputs["descriptor"] for name, one in others.items() if name != environment}
    return record(project, environment, descriptors=descriptors)


def statements(graph: Recording) -> dict[str, list[dict[str, Any]]]:
    """Return action → statements of the monitor's role that allow it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for statement in graph.policy(MONITOR):
        for action in statement["Action"]:
            found.setdefault(action, []).append(statement)
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_released_model_is_monitored_in_every_environment(graphs: dict[str, Recording], environment: str) -> None:
    graph = graphs[environment]
    job = graph.one(CRON_JOB, MONITOR)
    assert str(job.at("spec", "schedule")).endswith(" 5 * * *")
    assert job.at("spec", "suspend") is False
    for suffix, metric in (("alarm", "Alarms"), ("silent", "Runs")):
        alarm = graph.one(ALARM, f"{MONITOR}-{suffix}")
        assert (alarm.at("namespace"), alarm.at("metricName"), alarm.at("dimensions")) == (
            f"mlops-{environment}",
            metric,
            {"Model": MODEL},
        )
    silent = graph.one(ALARM, f"{MONITOR}-silent")
    assert silent.at("period") * silent.at("evaluationPeriods") == 26 * 3600
    assert silent.at("treatMissingData") == "breaching"
    widgets = json.loads(graph.one(DASHBOARD, "models").at("dashboardBody"))["widgets"]
    metrics = {row[1] for widget in widgets for row in widget["properties"]["metrics"]}
    assert {"Alarms", "Requests", "Errors", "EstimatedAccuracy"} <= metrics


def test_the_dashboard_shows_metrics_that_monitors_send() -> None:
    from infra.components.model_monitor_job import _GRAPHS
    from pipelines.monitoring.cloudwatch_metrics import report_metrics
    from tests.pipelines.monitoring.model_reports import full_report

    sent = {each["MetricName"] for each in report_metrics(full_report())}
    assert {metric for _, metrics in _GRAPHS for metric in metrics} <= sent


def test_the_role_of_a_monitor_reads_one_model_and_writes_only_reports_events_and_metrics(
    graphs: dict[str, Recording],
) -> None:
    allowed = statements(graphs["prod"])
    assert set(allowed) == {
        "cloudwatch:PutMetricData",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "s3:AbortMultipartUpload",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:ListBucketVersions",
        "s3:PutObject",
    }
    logs, registry = (f"arn:aws:s3:::mlops-prod-{bucket}-{ACCOUNT}" for bucket in ("logs", "registry"))
    read = [arn for statement in allowed["s3:GetObject"] for arn in statement["Resource"]]
    assert read == [
        f"{logs}/inference/{MODEL}/*",
        f"{logs}/monitoring/models/{MODEL}/*",
        f"{registry}/bundles/{MODEL}/*",
        f"{registry}/ledger/{MODEL}/*",
    ]
    (written,) = allowed["s3:PutObject"]
    assert written["Resource"] == [f"{logs}/monitoring/models/{MODEL}/*", f"{logs}/lineage/observe-{MODEL}/*"]


def test_labels_are_ingested_and_read_where_the_model_is_monitored(
    tmp_path: Path, graphs: dict[str, Recording]
) -> None:
    graph = recorded(tmp_path, "prod", (MODEL_FILE, ("monitoring",), {"labels": LABELS}), others=graphs)
    assert "ingest-diabetes-patients" in graph.of_type(CRON_JOB)
    assert "ingest-diabetes-patients" not in graphs["prod"].of_type(CRON_JOB)
    read = [arn for statement in statements(graph)["s3:GetObject"] for arn in statement["Resource"]]
    assert f"arn:aws:s3:::mlops-prod-lake-{ACCOUNT}/mlops_prod/diabetes_patients/*" in read


def test_a_short_window_is_judged_hourly(tmp_path: Path) -> None:
    graph = recorded(tmp_path, "dev", (MODEL_FILE, ("monitoring",), {"window_hours": 6}))
    assert str(graph.one(CRON_JOB, MONITOR).at("spec", "schedule")).endswith(" * * * *")
    silent = graph.one(ALARM, f"{MONITOR}-silent")
    assert silent.at("period") * silent.at("evaluationPeriods") == 3 * 3600


@pytest.mark.parametrize(
    "change",
    [
        ("Pulumi.dev.yaml", ("config", "mlops:environment", "monitoring"), {"models": False}),
        (MODEL_FILE, ("monitoring",), {"enabled": False}),
        (f"models/{MODEL}/releases/dev.yaml", ("bundle",), None),
    ],
    ids=["environment", "model", "not released"],
)
def test_a_model_without_a_monitor_has_no_job_no_role_and_no_alarm(
    tmp_path: Path, change: tuple[str, tuple[str, ...], Any]
) -> None:
    graph = recorded(tmp_path, "dev", change)
    for type_ in (CRON_JOB, "aws:iam/role:Role", ALARM, DASHBOARD):
        assert not [name for name in graph.of_type(type_) if name.startswith(("observe-", "models"))]
