from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from laptop.cluster.kinds import CRON_JOB, JOB
from laptop.cluster.schedules import ScheduleError, last_run, next_run, parse_schedule
from laptop.tests.cluster.running_cluster import RunningCluster, job, refusal, wait_for

NOON = datetime(2025, 3, 29, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "zone", "expected"),
    [
        ("30 4 * * *", None, "2025-03-30T04:30:00+00:00"),
        ("@hourly", None, "2025-03-29T13:00:00+00:00"),
        ("0 0 * * MON", None, "2025-03-31T00:00:00+00:00"),
        ("0 12 * * *", "Europe/Berlin", "2025-03-30T10:00:00+00:00"),  # summer time has begun
        ("*/15 * * * *", "Etc/UTC", "2025-03-29T12:15:00+00:00"),
    ],
)
def test_the_next_run_is_the_first_due_time_of_the_schedule(schedule: str, zone: str | None, expected: str) -> None:
    found = next_run(schedule, zone, NOON)
    assert found is not None
    assert found.astimezone(UTC).isoformat() == expected


@pytest.mark.parametrize(
    ("schedule", "zone"),
    [("", None), ("* * * *", None), ("61 * * * *", None), ("0 0 31 2 *", None), ("* * * * *", "Mars/Olympus")],
)
def test_an_invalid_schedule_is_refused(schedule: str, zone: str | None) -> None:
    with pytest.raises(ScheduleError):
        parse_schedule(schedule, zone)


def test_a_cron_job_with_a_wrong_schedule_is_refused(cluster: RunningCluster, namespace: str) -> None:
    spec = {"schedule": "every day", "jobTemplate": {"spec": job("x", "print(1)")["spec"]}}
    error = refusal(lambda: cluster.create(CRON_JOB, namespace, {"metadata": {"name": "c"}, "spec": spec}))
    assert "'every day' is not a cron schedule: expected five fields" in error.message


def test_a_cron_job_creates_a_job_when_it_is_due(cluster: RunningCluster, namespace: str) -> None:
    spec = {"schedule": "0 0 29 2 *", "jobTemplate": {"spec": job("x", "print('on time')")["spec"]}}
    cluster.create(CRON_JOB, namespace, {"metadata": {"name": "nightly"}, "spec": spec})
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    due, before = now - timedelta(minutes=7), now - timedelta(hours=2)
    cluster.merge(CRON_JOB, namespace, "nightly", {"spec": {"schedule": f"{due.minute} * * * *"}})
    last = {"status": {"lastScheduleTime": before.strftime("%Y-%m-%dT%H:%M:%SZ")}}
    cluster.merge(CRON_JOB, namespace, "nightly", last, sub="status")
    (made,) = wait_for(lambda: cluster.find_all(JOB, namespace))
    assert made["metadata"]["name"] == f"nightly-{int(due.timestamp()) // 60}"
    assert cluster.ended(namespace, made["metadata"]["name"])["type"] == "Complete"
    found = cluster.wait(CRON_JOB, namespace, "nightly", lambda found: found["status"].get("lastSuccessfulTime"))
    assert found["status"]["lastScheduleTime"] == due.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("schedule", "expected"), [("0 * * * *", "12:00"), ("30 12 * * *", None), ("29 12 * * *", "12:29")]
)
def test_the_last_due_time_is_the_newest_one_in_between(schedule: str, expected: str | None) -> None:
    after, until = (datetime.fromisoformat(f"2026-01-01T{time}:30+00:00") for time in ("10:15", "12:29"))
    found = last_run(schedule, None, after, until)
    assert (found.strftime("%H:%M") if found is not None else None) == expected


def test_finished_jobs_beyond_the_history_limit_are_deleted(cluster: RunningCluster, namespace: str) -> None:
    spec = {
        "schedule": "* * * * *",
        "suspend": True,
        "successfulJobsHistoryLimit": 1,
        "jobTemplate": {"spec": job("x", "print(1)")["spec"]},
    }
    owner = cluster.create(CRON_JOB, namespace, {"metadata": {"name": "c"}, "spec": spec})
    reference = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": "c",
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    for name in ("one", "two"):  # as when started by hand
        manifest = job(name, "print(1)")
        manifest["metadata"]["ownerReferences"] = [reference]
        cluster.create(JOB, namespace, manifest)
        if name == "one":
            cluster.ended(namespace, name)
    wait_for(lambda: [found["metadata"]["name"] for found in cluster.find_all(JOB, namespace)] == ["two"])
