"""Decisions about the lock of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.targets.stack_lock import (
    Holder,
    Liveness,
    LockFacts,
    PulumiLock,
    WorkflowJob,
    blocking,
    job_has_ended,
    judge_locks,
)

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
JOB = WorkflowJob(
    repository="acme/mlops", run=7, attempt=2, runner="GitHub Actions 12", url="https://github.com/acme/mlops/runs/7"
)


def holder(**changes: Any) -> Holder:
    base = Holder(
        operation="up",
        since=NOON,
        user="ada",
        host="runner",
        machine="boot-1/pid:[1]",
        pid=100,
        process_started=NOON.timestamp() - 1,
    )
    return base.model_copy(update=changes)


HERE = holder(operation="refresh", machine="boot-2/pid:[1]", pid=500, user="grace")


def lock(seconds: float = 2, **changes: Any) -> PulumiLock:
    values = {"key": "locks/one.json", "user": "ada", "host": "runner", "pid": 101, **changes}
    return PulumiLock(since=NOON + timedelta(seconds=seconds), **values)


def judge(
    recorded: Holder | None,
    *locks: PulumiLock,
    processes: Mapping[int, float] | None = None,
    ended: bool | None = None,
    here: Holder = HERE,
) -> list[Liveness]:
    """Judge locks on a machine with these processes (process id → seconds between noon and its start)."""
    started = {pid: NOON.timestamp() + seconds for pid, seconds in (processes or {}).items()}
    return [one.liveness for one in judge_locks(LockFacts(recorded, locks, here, started.get, ended))]


ENDED, LIVING, UNKNOWN = Liveness.ENDED, Liveness.LIVING, Liveness.UNKNOWN


@pytest.mark.parametrize(("on_github", "expected"), [(True, ENDED), (False, LIVING), (None, UNKNOWN)])
def test_github_decides_about_a_run_on_another_machine_and_its_pulumi(
    on_github: bool | None, expected: Liveness
) -> None:
    assert judge(holder(job=JOB), lock(), ended=on_github) == [expected, expected]


def test_a_person_on_another_machine_may_still_run() -> None:
    assert judge(holder(), lock()) == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ({}, [ENDED, ENDED]),
        ({100: -1, 101: 1}, [LIVING, LIVING]),
        ({101: 1}, [ENDED, LIVING]),  # Pulumi outlived the process that started it
        ({100: 60, 101: 60}, [ENDED, ENDED]),  # other processes have their ids now
    ],
)
def test_processes_decide_about_a_holder_of_this_machine(
    processes: Mapping[int, float], expected: list[Liveness]
) -> None:
    assert judge(holder(machine=HERE.machine), lock(), processes=processes) == expected


def test_processes_decide_even_if_github_says_that_the_run_goes_on() -> None:
    """A step was killed, and a later step of the same job works on the stack."""
    here = HERE.model_copy(update={"job": JOB})
    assert judge(holder(machine=HERE.machine, job=JOB), lock(), ended=False, here=here) == [ENDED, ENDED]


def test_a_lock_that_is_older_than_the_holder_is_not_the_holders() -> None:
    assert judge(holder(job=JOB), lock(seconds=-60), ended=True) == [ENDED, UNKNOWN]


def test_a_lock_of_another_host_is_not_the_holders() -> None:
    assert judge(holder(job=JOB), lock(host="desk"), ended=True) == [ENDED, UNKNOWN]


@pytest.mark.parametrize(("processes", "expected"), [({}, ENDED), ({101: 1}, LIVING), ({101: 60}, ENDED)])
def test_a_lock_of_pulumi_alone_is_judged_on_its_own_host(processes: Mapping[int, float], expected: Liveness) -> None:
    here = HERE.model_copy(update={"user": "ada"})
    assert judge(None, lock(), processes=processes, here=here) == [expected]


@pytest.mark.parametrize("changes", [{"user": "grace"}, {"host": "desk"}, {"job": JOB}])
def test_a_lock_of_pulumi_alone_is_unknown_elsewhere_and_in_workflows(changes: dict[str, Any]) -> None:
    """Virtual machines of GitHub share host names."""
    here = HERE.model_copy(update={"user": "ada", **changes})
    assert judge(None, lock(), here=here) == [UNKNOWN]


def test_a_message_names_the_holder_the_time_and_the_run() -> None:
    (found, of_pulumi) = judge_locks(LockFacts(holder(job=JOB), (lock(),), HERE, lambda _: None, False))
    assert str(found) == (f"`up` in run 7 (attempt 2) of ada, {JOB.url} since 2026-11-29T12:00:00+00:00, is running")
    assert str(of_pulumi) == str(found), "one holder is named once"
    (alone,) = judge_locks(LockFacts(None, (lock(),), HERE, lambda _: None))
    assert str(alone) == "pulumi, process 101 of ada on runner since 2026-11-29T12:00:02+00:00, may be running"
    here = LockFacts(holder(machine=HERE.machine), (lock(),), HERE, {101: NOON.timestamp()}.get)
    assert str(judge_locks(here)[1]) == (
        "pulumi, process 101, started by `up` in process 100 of ada on runner since 2026-11-29T12:00:00+00:00, "
        "is running"
    )


def test_holders_that_run_are_named_before_those_that_may_run() -> None:
    found = judge_locks(LockFacts(holder(job=JOB), (lock(), lock(host="desk")), HERE, lambda _: None, False))
    assert [one.liveness for one in blocking(found[::-1])] == [LIVING, LIVING, UNKNOWN]
    assert blocking(judge_locks(LockFacts(holder(job=JOB), (lock(),), HERE, lambda _: None, True))) == []


@pytest.mark.parametrize(
    ("run", "jobs", "expected"),
    [
        ("in_progress", [("other", "in_progress"), (JOB.runner, "completed")], True),
        ("in_progress", [(JOB.runner, "completed"), (JOB.runner, "in_progress")], False),
        ("in_progress", [("other", "completed")], False),
        ("completed", [("other", "completed")], True),
        ("queued", [], False),
    ],
)
def test_the_job_decides_because_its_run_may_go_on(run: str, jobs: list[tuple[str, str]], expected: bool) -> None:
    listed = [{"runner_name": name, "status": status} for name, status in jobs]
    assert job_has_ended({"status": run}, listed, JOB.runner) is expected
