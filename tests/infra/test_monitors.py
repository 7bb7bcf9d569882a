"""Monitors of datasets: their jobs, roles and alarms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.infra.recording import ACCOUNT, REGION, Recording, edit, record, release_everywhere
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
CRON_JOB = "kubernetes:batch/v1:CronJob"
DATASET = "diabetes-patients"
MONITOR = f"monitor-{DATASET}"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:ml-platform"


def recorded(folder: Path, *edits: tuple[str, tuple[str, ...], Any]) -> Recording:
    """Record dev after edits of files: name, keys, value."""
    project = release_everywhere(copy_as_forked(folder / "project"))
    for name, keys, value in edits:
        edit(project / name, *keys, value=value)
    return record(project, "dev")


def in_environment(*keys: str) -> tuple[str, tuple[str, ...]]:
    return "Pulumi.dev.yaml", ("config", "mlops:environment", *keys)


CONTRACT = f"data-contracts/{DATASET}.odcs.yaml"


def test_a_daily_dataset_is_monitored_after_it_is_ingested(graphs: dict[str, Recording]) -> None:
    job = graphs["dev"].one(CRON_JOB, MONITOR)
    assert str(job.at("spec", "schedule")).endswith(" 5 * * *")
    assert job.at("spec", "suspend") is False


def test_a_monitor_that_is_silent_for_longer_than_a_day_is_an_alarm(graphs: dict[str, Recording]) -> None:
    alarm = graphs["dev"].one(ALARM, f"{MONITOR}-silent")
    assert (alarm.at("namespace"), alarm.at("metricName"), alarm.at("dimensions")) == (
        "mlops-dev",
        "Runs",
        {"Dataset": DATASET},
    )
    assert (alarm.at("statistic"), alarm.at("comparisonOperator"), alarm.at("threshold")) == (
        "Sum",
        "LessThanThreshold",
        1,
    )
    assert alarm.at("period") * alarm.at("evaluationPeriods") == 26 * 3600
    assert alarm.at("treatMissingData") == "breaching"


def test_an_alarm_stays_until_a_run_finds_nothing(graphs: dict[str, Recording]) -> None:
    alarm = graphs["dev"].one(ALARM, f"{MONITOR}-alarm")
    assert (alarm.at("metricName"), alarm.at("statistic"), alarm.at("threshold")) == ("Alarms", "Maximum", 0)
    assert (alarm.at("comparisonOperator"), alarm.at("treatMissingData")) == ("GreaterThanThreshold", "ignore")


def test_data_that_arrives_hourly_is_monitored_hourly_and_missed_after_three_hours(tmp_path: Path) -> None:
    hourly = [{"property": "frequency", "value": 1, "unit": "h"}]
    graph = recorded(tmp_path, (CONTRACT, ("slaProperties",), hourly))
    assert str(graph.one(CRON_JOB, MONITOR).at("spec", "schedule")).endswith(" * * * *")
    alarm = graph.one(ALARM, f"{MONITOR}-silent")
    assert alarm.at("period") * alarm.at("evaluationPeriods") == 3 * 3600


def test_the_role_of_a_monitor_reads_one_dataset_and_writes_only_reports_events_and_metrics(
    graphs: dict[str, Recording],
) -> None:
    policy = graphs["dev"].one("aws:iam/rolePolicy:RolePolicy", MONITOR).at("policy")
    statements = json.loads(policy)["Statement"]
    allowed = {action: each for each in statements for action in each["Action"]}
    assert set(allowed) == {
        "cloudwatch:PutMetricData",
        "glue:GetDatabase",
        "glue:GetTable",
        "kms:Decrypt",
        "kms:GenerateDataKey",
        "s3:AbortMultipartUpload",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:PutObject",
    }
    lake, logs = (f"arn:aws:s3:::mlops-dev-{bucket}-{ACCOUNT}" for bucket in ("lake", "logs"))
    assert allowed["s3:GetObject"]["Resource"] == [
        f"{lake}/mlops_dev/diabetes_patients/*",
        f"{lake}/quarantine/{DATASET}/*",
    ]
    assert allowed["s3:PutObject"]["Resource"] == [
        f"{logs}/monitoring/data/{DATASET}/*",
        f"{logs}/lineage/{MONITOR}/*",
    ]
    assert allowed["cloudwatch:PutMetricData"]["Condition"] == {"StringEquals": {"cloudwatch:namespace": "mlops-dev"}}


def test_reports_expire_like_other_logs(graphs: dict[str, Recording]) -> None:
    rules = graphs["dev"].one("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", "logs").at("rules")
    expiring = {rule["filter"]["prefix"]: rule["expiration"]["days"] for rule in rules if "expiration" in rule}
    assert expiring["monitoring/"] == expiring["lineage/"]


def test_alarms_notify_the_topics_that_the_environment_names(tmp_path: Path, graphs: dict[str, Recording]) -> None:
    graph = recorded(tmp_path, (*in_environment("monitoring"), {"alarm_topics": [TOPIC]}))
    for name in (f"{MONITOR}-alarm", f"{MONITOR}-silent"):
        assert (graph.one(ALARM, name).at("alarmActions"), graph.one(ALARM, name).at("okActions")) == ([TOPIC], [TOPIC])
        assert not graphs["dev"].one(ALARM, name).at("alarmActions")


@pytest.mark.parametrize(
    "change",
    [
        (*in_environment("monitoring"), {"datasets": False}),
        (CONTRACT, ("customProperties",), [{"property": "monitoring", "value": {"enabled": False}}]),
        (CONTRACT, ("status",), "retired"),
    ],
    ids=["environment", "contract", "retired"],
)
def test_a_dataset_without_a_monitor_has_no_job_no_role_and_no_alarm(
    tmp_path: Path, change: tuple[str, tuple[str, ...], Any]
) -> None:
    graph = recorded(tmp_path, change)
    for type_ in (CRON_JOB, "aws:iam/role:Role", ALARM):
        assert not [name for name in graph.of_type(type_) if name.startswith("monitor-")]


def test_without_an_image_there_are_no_alarms_for_a_job_that_does_not_exist(fresh: Recording) -> None:
    assert fresh.of_type(ALARM) == {}
    assert MONITOR in fresh.of_type("aws:iam/role:Role")
