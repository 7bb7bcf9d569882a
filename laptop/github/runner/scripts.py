"""Run the script of a step as a process with a time limit."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from laptop.github.process_tracking import signal_group

GRACE_SECONDS = 2.0
"""Time between SIGTERM and SIGKILL."""

_DRAIN_SECONDS = 0.5
"""Time to wait for the output after the script ends: a background process may keep it open."""

LONGEST_LINE = 1 << 16
"""Bytes of a line in the log; longer lines are broken."""


class StopSignal(Protocol):
    """Set to request the end of a job."""

    def is_set(self) -> bool: ...


@dataclass(frozen=True)
class ScriptEnd:
    """End of a script; `why` is "", "timeout" or "cancelled"."""

    code: int
    why: str


def run_script(
    command: Sequence[str],
    folder: Path,
    environ: Mapping[str, str],
    *,
    on_line: Callable[[str], None],
    deadline: float,
    cancelled: StopSignal,
) -> ScriptEnd:
    """Run a command in a new process group until it ends, times out or is cancelled.

    Args:
        command: the program and its arguments.
        folder: its working directory.
        environ: its whole environment.
        on_line: called with each line of its output, without the newline.
        deadline: time limit on the clock of `time.monotonic`, in seconds.
        cancelled: stops the script when set.

    Raises:
        OSError: the program does not start.
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
    reader.join(_DRAIN_SECONDS)
    if not reader.is_alive() and process.stdout is not None:
        process.stdout.close()
    return ScriptEnd(process.returncode, why)


def _end(process: subprocess.Popen[bytes]) -> None:
    signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_SECONDS)
    signal_group(process.pid)
    process.wait()


def _read_lines(process: subprocess.Popen[bytes], on_line: Callable[[str], None]) -> None:
    assert process.stdout is not None
    with contextlib.suppress(ValueError, OSError):
        while read := process.stdout.readline(LONGEST_LINE):
            # Only these three end a line for GitHub's runner, which reads lines by .NET's `StreamReader`.
            for line in re.split(
                "\r\n|\r|\n", read.decode("utf-8", errors="replace").removesuffix("\n").removesuffix("\r")
            ):
                on_line(line)
