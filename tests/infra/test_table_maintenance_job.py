"""The job that maintains a dataset's table: schedule, role and alarm."""

from __future__ import annotations

import json

import pytest

from tests.infra.recording import ACCOUNT, Recording

pytestmark = pytest.mark.slow

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
CRON_JOB = "kubernetes:batch/v1:CronJob"
DATASET = "diabetes-patients"
MAINTENANCE, PREDICTIONS_MAINTENANCE = f"maintain-{DATASET}", "maintain-diabetes-progression-predictions"


def test_tables_are_cared_for_every_night_before_new_data_is_looked_for(graphs: dict[str, Recording]) -> None:
    job = graphs["dev"].one(CRON_JOB, MAINTENANCE)
    assert str(job.at("spec", "schedule")).endswith(" 2 * * *") and job.at("spec", "suspend") is False
    assert job.at("spec", "concurrencyPolicy") == "Forbid"


def test_a_table_that_was_not_cared_for_in_a_day_is_an_alarm(graphs: dict[str, Recording]) -> None:
    alarm = graphs["dev"].one(ALARM, f"{MAINTENANCE}-silent")
    assert (alarm.at("namespace"), alarm.at("metricName"), alarm.at("dimensions")) == (
        "mlops-dev",
        "Runs",
        {"Table": DATASET},
    )
    assert alarm.at("period") * alarm.at("evaluationPeriods") == 26 * 3600
    assert alarm.at("treatMissingData") == "breaching"
    assert "docs/on-call.md#a-table-is-not-maintained" in str(alarm.at("alarmDescription"))


def test_the_role_deletes_files_of_one_table_only(graphs: dict[str, Recording]) -> None:
    statements = json.loads(graphs["dev"].one("aws:iam/rolePolicy:RolePolicy", MAINTENANCE).at("policy"))["Statement"]
    by_action: dict[str, list[str]] = {}
    for statement in statements:
        for action in statement["Action"]:
            by_action.setdefault(action, []).extend(statement["Resource"])
    lake, registry = (f"arn:aws:s3:::mlops-dev-{bucket}-{ACCOUNT}" for bucket in ("lake", "registry"))
    files = f"{lake}/mlops_dev/diabetes_patients/*"
    assert by_action["s3:DeleteObject"] == [files]
    predictions = f"{lake}/mlops_dev/diabetes_progression_predictions/metadata/*"
    assert by_action["s3:GetObject"] == [files, predictions, f"{registry}/bundles/*/bundle.json"]
    assert {one for one in by_action["s3:PutObject"] if one.startswith(lake)} == {
        files,
        f"{lake}/quarantine/{DATASET}/expired/*",
    }
    assert not {action for action in by_action if action.startswith(("kms:Sign", "s3:DeleteObjectV", "events:"))}


def test_later_environments_maintain_only_the_predictions_of_their_models(graphs: dict[str, Recording]) -> None:
    assert MAINTENANCE not in graphs["prod"].of_type(CRON_JOB) and f"{MAINTENANCE}-silent" not in graphs[
        "prod"
    ].of_type(ALARM)
    job, alarm = (
        graphs["prod"].one(CRON_JOB, PREDICTIONS_MAINTENANCE),
        graphs["prod"].one(ALARM, f"{PREDICTIONS_MAINTENANCE}-silent"),
    )
    assert job.at("spec", "suspend") is False
    assert alarm.at("dimensions") == {"Table": "diabetes-progression-predictions"}


def test_without_an_image_no_alarm_waits_for_the_job(fresh: Recording) -> None:
    assert f"{MAINTENANCE}-silent" not in fresh.of_type(ALARM) and MAINTENANCE in fresh.of_type("aws:iam/role:Role")


def test_the_maintenance_of_predictions_knows_their_age_after_their_versions_have_expired(
    graphs: dict[str, Recording],
) -> None:
    read = [
        arn
        for each in graphs["prod"].policy(PREDICTIONS_MAINTENANCE)
        for arn in each["Resource"]
        if "s3:GetObject" in each["Action"]
    ]
    assert f"arn:aws:s3:::mlops-prod-lake-{ACCOUNT}/quarantine/diabetes-progression-predictions/expired/*" in read
