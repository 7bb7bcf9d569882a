"""Know a process again, and end what a job left behind."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

TRACKING = "RUNNER_TRACKING_ID"
"""Every process of a job has this variable; as on GitHub, what still has it when the job ends is killed."""


def identity(pid: int) -> str:
    """A process, apart from a later one with the same number: `pid:start`."""
    return f"{pid}:{_started(pid)}"


def alive(known: str) -> bool:
    """Does the process with this `identity` still run?"""
    pid, started = known.split(":", 1)
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; "gone" for a zombie, "" where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "gone" if fields[0] in "ZX" else fields[19]


def end_group(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal the process group that `pid` leads; no error when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_tracked(prefix: str) -> None:
    """Kill every process whose tracking id starts with `prefix`, also what they start meanwhile.

    Without /proc (macOS) nothing is found: there, only the process groups of the steps are ended.
    """
    wanted = f"{TRACKING}={prefix}".encode()
    for _ in range(10):
        found = [pid for pid in _processes() if _carries(pid, wanted)]
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _processes() -> list[int]:
    folder = Path("/proc")
    return [int(entry.name) for entry in folder.glob("[0-9]*") if int(entry.name) != os.getpid()]


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(variable.startswith(wanted) for variable in variables)
