"""Holding a stack, with its locks in an emulated S3 bucket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.targets import held_stack
from pipelines.targets.held_stack import StackHeldError, hold_stack, unlock_stack
from pipelines.targets.stack_lock import HolderRecord
from pipelines.targets.state_bucket import StackLocks
from pipelines.targets.this_process import describe_this_process, machine_identity, start_time
from tests.aws import REGION, EmulatedAccount

ROOT = Path(__file__).parents[3]
URL = "https://github.com/acme/mlops/actions/runs/7"


@pytest.fixture
def locks(account: EmulatedAccount) -> StackLocks:
    bucket = f"state-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    made = StackLocks.of_backend(f"s3://{bucket}?region={REGION}", "mlops", "dev")
    assert made is not None
    return made


def put_pulumi_lock(locks: StackLocks, *, pid: int, host: str | None = None) -> str:
    """Write a lock as Pulumi does, and return its key."""
    here = describe_this_process("up")
    content = {
        "pid": pid,
        "username": here.user,
        "hostname": host or here.host,
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f123Z"),
    }
    key = f".pulumi/locks/organization/mlops/dev/{uuid.uuid4()}.json"
    locks.client.put_object(Bucket=locks.bucket, Key=key, Body=json.dumps(content).encode())
    return key


def keys(locks: StackLocks) -> set[str]:
    listed = locks.client.list_objects_v2(Bucket=locks.bucket).get("Contents", ())
    return {entry["Key"] for entry in listed}


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_stack_is_recorded_as_held_during_the_block_and_free_after_it(locks: StackLocks) -> None:
    lines: list[str] = []
    with hold_stack(locks, ROOT, "up", lines.append):
        holder = locks.read_record()[0].holder
        assert holder is not None
        assert (holder.pid, holder.operation, holder.machine) == (os.getpid(), "up", machine_identity())
        with pytest.raises(StackHeldError) as caught, hold_stack(locks, ROOT, "refresh", lines.append):
            pytest.fail("a stack was held twice")
        assert f"process {os.getpid()}" in caught.value.what
        assert "is running" in caught.value.what
    assert locks.read_record()[0] == HolderRecord()
    with hold_stack(locks, ROOT, "up", lines.append):
        pass
    assert lines == []


def test_the_record_is_not_where_pulumi_looks_for_locks(locks: StackLocks) -> None:
    with hold_stack(locks, ROOT, "up", print):
        assert keys(locks) == {".mlops/holders/mlops/dev.json"}


@pytest.mark.parametrize(
    ("url", "bucket", "folder"),
    [
        ("s3://b", "b", ""),
        ("s3://b/team/ml/?use_path_style=true", "b", "team/ml/"),
        ("s3://b?region=eu-west-1", "b", ""),
    ],
)
def test_a_backend_may_be_a_folder_of_a_bucket(account: EmulatedAccount, url: str, bucket: str, folder: str) -> None:
    found = StackLocks.of_backend(url, "mlops", "dev")
    assert found is not None
    assert (found.bucket, found.folder) == (bucket, folder)
    assert found.record_key == f"{folder}.mlops/holders/mlops/dev.json"


@pytest.mark.parametrize("url", ["file:///tmp/state", "https://api.pulumi.com", "s3://"])
def test_other_backends_have_no_locks_here(url: str) -> None:
    assert StackLocks.of_backend(url, "mlops", "dev") is None


HOLD = """
import sys, time
from pathlib import Path
from pipelines.targets.held_stack import hold_stack
from pipelines.targets.state_bucket import StackLocks
locks = StackLocks.of_backend(sys.argv[1], "mlops", "dev")
with hold_stack(locks, Path.cwd(), "up", print):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def killed_holder(locks: StackLocks) -> Iterator[int]:
    """A process that held the stack and was killed; its process id."""
    command = [sys.executable, "-c", HOLD, f"s3://{locks.bucket}"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        yield child.pid


@pytest.mark.slow
def test_the_locks_of_a_killed_process_are_removed_and_named(
    locks: StackLocks, killed_holder: int, dead_pid: int
) -> None:
    left = put_pulumi_lock(locks, pid=dead_pid)
    lines: list[str] = []
    with hold_stack(locks, ROOT, "up", lines.append):
        assert left not in keys(locks)
    (line,) = lines
    assert f"process {killed_holder} of " in line
    assert line.endswith("has ended without releasing dev; removing its lock")


@pytest.mark.slow
def test_a_pulumi_that_outlives_its_parent_is_named_and_keeps_its_lock(locks: StackLocks, killed_holder: int) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as pulumi:
        left = put_pulumi_lock(locks, pid=pulumi.pid)
        with pytest.raises(StackHeldError) as caught, hold_stack(locks, ROOT, "up", print):
            pytest.fail("two processes worked on the stack")
        pulumi.kill()
    assert f"pulumi, process {pulumi.pid}, started by `up` in process {killed_holder}" in caught.value.what
    assert left in keys(locks)


def test_a_pulumi_that_was_killed_during_the_block_leaves_no_lock(locks: StackLocks, dead_pid: int) -> None:
    with hold_stack(locks, ROOT, "up", print):
        put_pulumi_lock(locks, pid=dead_pid)
    assert keys(locks) == {".mlops/holders/mlops/dev.json"}


def test_a_lock_of_another_host_is_kept_and_named_with_the_way_out(locks: StackLocks) -> None:
    left = put_pulumi_lock(locks, pid=7, host="desk")
    with pytest.raises(StackHeldError) as caught, hold_stack(locks, ROOT, "up", print):
        pytest.fail("the stack was locked")
    assert "process 7 of" in caught.value.what
    assert "may be running" in caught.value.what
    assert caught.value.fix.endswith("mlops unlock --env dev --force`")
    with pytest.raises(StackHeldError):
        unlock_stack(locks, ROOT, print, force=False)
    assert left in keys(locks)
    lines: list[str] = []
    unlock_stack(locks, ROOT, lines.append, force=True)
    assert left not in keys(locks)
    assert len(lines) == 1
    unlock_stack(locks, ROOT, lines.append, force=False)
    assert lines[1:] == ["dev is not locked"]


@pytest.fixture
def in_a_run(monkeypatch: pytest.MonkeyPatch, locks: StackLocks) -> None:
    """Record a holder of another machine: a job of a run."""
    for name, value in {
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "acme/mlops",
        "GITHUB_RUN_ID": "7",
        "GITHUB_RUN_ATTEMPT": "2",
        "GITHUB_ACTOR": "ada",
        "RUNNER_NAME": "one",
    }.items():
        monkeypatch.setenv(name, value)
    holder = describe_this_process("up").model_copy(update={"machine": "another"})
    locks.write_record(HolderRecord(holder=holder), "")


class FakeGh:
    """GitHub with one run; `status` is that of its job, and None stands for no answer."""

    repository = "acme/mlops"

    def __init__(self, status: str | None) -> None:
        self.status = status
        self.asked: list[str] = []

    def find(self, _root: Path) -> FakeGh:
        return self

    def get(self, path: str) -> Any:
        self.asked.append(path)
        if self.status is None:
            raise MlopsError("no answer")
        if path.endswith("/jobs?per_page=100"):
            return {"jobs": [{"runner_name": "one", "status": self.status}]}
        return {"status": "in_progress"}


@pytest.mark.parametrize(("status", "held"), [("completed", None), ("in_progress", "is running"), (None, "may be")])
def test_github_is_asked_about_the_job_of_a_run(
    locks: StackLocks, in_a_run: None, monkeypatch: pytest.MonkeyPatch, status: str | None, held: str | None
) -> None:
    gh = FakeGh(status)
    monkeypatch.setattr(held_stack, "Gh", gh)
    if held is None:
        with hold_stack(locks, ROOT, "up", print):
            pass
    else:
        with pytest.raises(StackHeldError, match=held) as caught, hold_stack(locks, ROOT, "up", print):
            pytest.fail("the stack was held")
        assert f"run 7 (attempt 2) of ada, {URL}" in caught.value.what
    assert gh.asked[0] == "actions/runs/7/attempts/2"


def test_a_run_of_another_repository_is_unknown(
    locks: StackLocks, in_a_run: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gh = FakeGh("completed")
    gh.repository = "acme/other"
    monkeypatch.setattr(held_stack, "Gh", gh)
    with pytest.raises(StackHeldError, match="may be running"), hold_stack(locks, ROOT, "up", print):
        pytest.fail("the stack was held")


def test_of_many_processes_that_find_a_dead_lock_one_gets_the_stack(locks: StackLocks, dead_pid: int) -> None:
    """And no one removes the lock of the one that got it."""
    dead = describe_this_process("up").model_copy(update={"pid": dead_pid})
    locks.write_record(HolderRecord(holder=dead), "")
    put_pulumi_lock(locks, pid=dead_pid)
    start, done = threading.Barrier(6), threading.Event()
    outcomes: list[str] = []
    living: list[str] = []

    def work() -> None:
        start.wait()
        try:
            with hold_stack(locks, ROOT, "up", lambda _: None):
                living.append(put_pulumi_lock(locks, pid=os.getpid()))
                done.wait(20)
                outcomes.append("kept" if living[0] in keys(locks) else "lost")
                locks.remove(living[0])
        except StackHeldError:
            outcomes.append("refused")
            if outcomes.count("refused") == 5:
                done.set()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["kept", *["refused"] * 5]
    assert keys(locks) == {".mlops/holders/mlops/dev.json"}


def test_a_lock_that_appears_after_another_process_took_the_stack_is_not_removed(
    locks: StackLocks, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host name may be that of the dead holder, whose locks are removed."""
    dead = describe_this_process("up").model_copy(update={"pid": dead_pid})
    etag = locks.write_record(HolderRecord(holder=dead), "")
    listed = StackLocks.pulumi_locks
    taken: list[str] = []

    def taken_by_another(self: StackLocks) -> Any:
        if not taken:
            new = describe_this_process("up").model_copy(update={"machine": "another"})
            locks.write_record(HolderRecord(holder=new), etag)
            taken.append(put_pulumi_lock(locks, pid=dead_pid))
        return listed(self)

    monkeypatch.setattr(StackLocks, "pulumi_locks", taken_by_another)
    with pytest.raises(StackHeldError, match="may be running"), hold_stack(locks, ROOT, "up", print):
        pytest.fail("the stack was held")
    assert taken[0] in keys(locks)


def test_a_stack_that_was_unlocked_by_force_is_not_released_twice(locks: StackLocks) -> None:
    lines: list[str] = []
    with hold_stack(locks, ROOT, "up", lines.append):
        unlock_stack(locks, ROOT, lambda _: None, force=True)
        _, etag = locks.read_record()
        other = describe_this_process("up").model_copy(update={"machine": "another"})
        locks.write_record(HolderRecord(holder=other), etag)
    assert locks.read_record()[0].holder == other
    assert lines == ["dev was unlocked by someone else during this operation"]


def test_an_error_of_the_block_is_not_hidden_by_a_bucket_that_fails(
    locks: StackLocks, account: EmulatedAccount
) -> None:
    lines: list[str] = []

    def fail_without_access() -> None:
        account.denied.add(locks.bucket)
        raise MlopsError("the program failed")

    try:
        with pytest.raises(MlopsError, match="the program failed"), hold_stack(locks, ROOT, "up", lines.append):
            fail_without_access()
    finally:
        account.denied.clear()
    assert len(lines) == 1
    assert lines[0].startswith("dev could not be released: ")


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"pid": 1, "username": "a", "hostname": "b", "timestamp": "x"}'])
def test_an_object_that_is_not_a_lock_is_an_error_that_names_it(locks: StackLocks, content: bytes) -> None:
    key = ".pulumi/locks/organization/mlops/dev/one.json"
    locks.client.put_object(Bucket=locks.bucket, Key=key, Body=content)
    with pytest.raises(MlopsError, match=r"one\.json is not a lock of Pulumi"), hold_stack(locks, ROOT, "up", print):
        pytest.fail("the lock could not be read")


def test_a_damaged_record_is_an_error_that_names_it(locks: StackLocks) -> None:
    locks.client.put_object(Bucket=locks.bucket, Key=locks.record_key, Body=b'{"holder": 1}')
    with pytest.raises(MlopsError, match=r"dev\.json is not the record of a holder: holder"):
        unlock_stack(locks, ROOT, print, force=False)


def test_the_start_of_a_process_is_known_while_it_runs(dead_pid: int) -> None:
    assert start_time(os.getpid()) == describe_this_process("up").process_started
    assert start_time(dead_pid) is None
