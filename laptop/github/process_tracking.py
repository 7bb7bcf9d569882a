"""Identify processes across restarts, and kill the processes that a job left behind."""

from __future__ import annotations

import contextlib
import os
import signal

TRACKING = "RUNNER_TRACKING_ID"
"""Environment variable of every process of a job. As on GitHub, processes that still have it are killed at the end."""

_CLOCK_TOLERANCE = 2.0
"""Seconds. A start time is computed from the boot time, which changes a little when the clock is set."""


def identity(pid: int) -> str:
    """Return `pid:start`, which tells a process from a later one with the same pid; `pid:` if it has ended."""
    started = _start_time(pid)
    return f"{pid}:" if started is None else f"{pid}:{started}"


def is_alive(known: str) -> bool:
    """Return whether the process with this `identity` is running. A zombie has ended."""
    pid, _, started = known.partition(":")
    now = _start_time(int(pid))
    return bool(started) and now is not None and abs(now - float(started)) <= _CLOCK_TOLERANCE


def _start_time(pid: int) -> float | None:
    import psutil  # imported late: git waits for the hooks, and most of them never need it

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def signal_group(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to the process group that `pid` leads. A group that has ended is not an error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def kill_tracked(prefix: str) -> None:
    """Kill every process whose tracking id starts with `prefix`, and the processes that they start until then."""
    import psutil

    for _ in range(10):
        found = [process for process in psutil.process_iter() if _is_tracked(process, prefix)]
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not found:
            return


def _is_tracked(process: object, prefix: str) -> bool:
    import psutil

    assert isinstance(process, psutil.Process)
    if process.pid == os.getpid():
        return False
    try:
        return process.environ().get(TRACKING, "").startswith(prefix) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
