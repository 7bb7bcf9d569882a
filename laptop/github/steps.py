"""Run one script of a job as a process of its own, with a time limit."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from laptop.github.processes import end_group

GRACE = 2.0
"""Seconds between asking a script to end and ending it."""

_DRAIN = 0.5
"""Seconds that the output of a script may outlive it (a background process may keep it open)."""

LONGEST_LINE = 1 << 16
"""Bytes of a line in the log; longer ones are broken."""


class Stop(Protocol):
    """Set when somebody wants an end."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class Ended:
    """How a script ended; `why` is "", "timeout" or "cancelled"."""

    code: int
    why: str


def run_script(
    command: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    *,
    on_line: Callable[[str], None],
    deadline: float,
    cancelled: Stop,
) -> Ended:
    """Run a command in a process group of its own until it ends, time is up, or somebody cancels.

    Args:
        command: the program and its arguments.
        folder: where it runs.
        environ: its whole environment.
        on_line: gets each line of its output, without the end of the line.
        deadline: on the clock of `time.monotonic`, in seconds.
        cancelled: set by whoever wants it to stop.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    reader = threading.Thread(target=_read_lines, args=(process, on_line), daemon=True)
    reader.start()
    why = ""
    while True:
        try:
            process.wait(timeout=min(0.05, max(0.001, deadline - time.monotonic())))
            break
        except subprocess.TimeoutExpired:
            why = "cancelled" if cancelled.is_set() else ("timeout" if time.monotonic() >= deadline else "")
            if why:
                _end(process)
                break
    reader.join(_DRAIN)
    if not reader.is_alive() and process.stdout is not None:
        process.stdout.close()
    return Ended(process.returncode, why)


def _end(process: subprocess.Popen[bytes]) -> None:
    end_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE)
    end_group(process.pid)
    process.wait()


def _read_lines(process: subprocess.Popen[bytes], on_line: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):
        while line := process.stdout.readline(LONGEST_LINE):
            on_line(line.decode("utf-8", errors="replace").rstrip("\r\n"))
