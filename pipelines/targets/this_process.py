"""Describe this process and the machine it runs on, and find other processes of the machine."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from pipelines.github.workflow_run import run_url
from pipelines.targets.stack_lock import Holder, WorkflowJob

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROCESS_NAMESPACE = Path("/proc/self/ns/pid")


def describe_this_process(operation: str) -> Holder:
    """Return this process as the holder of a stack, for an operation that starts now."""
    job = _workflow_job()
    return Holder(
        operation=operation,
        since=datetime.now(UTC),
        user=(os.environ.get("GITHUB_ACTOR") if job else None) or _user(),
        host=socket.gethostname(),
        machine=machine_identity(),
        pid=os.getpid(),
        process_started=psutil.Process().create_time(),
        job=job,
    )


def machine_identity() -> str:
    """Return an identity that the processes of this machine share, until it restarts.

    Host names are not unique: containers and virtual machines made of one image may share theirs. Processes of two
    containers cannot see each other, so the identity includes the process namespace.
    """
    with suppress(OSError):
        return f"{_BOOT_ID.read_text().strip()}/{_PROCESS_NAMESPACE.readlink()}"
    return f"{socket.gethostname()}/{psutil.boot_time():.0f}"


def start_time(pid: int) -> float | None:
    """Return the start time of a process of this machine in seconds since 1970; None if it does not run."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return str(os.getuid())


def _workflow_job() -> WorkflowJob | None:
    """Return the job of the workflow that this process is part of; None outside a workflow."""
    run, url = os.environ.get("GITHUB_RUN_ID", ""), run_url()
    attempt = os.environ.get("GITHUB_RUN_ATTEMPT") or "1"
    if not (url and run.isdigit() and attempt.isdigit()):
        return None
    return WorkflowJob(
        repository=os.environ["GITHUB_REPOSITORY"],
        run=int(run),
        attempt=int(attempt),
        runner=os.environ.get("RUNNER_NAME", ""),
        url=url,
    )
