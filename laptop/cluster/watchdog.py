"""Process that kills the process groups that its parent leaves behind.

It reads lines from its standard input: `+<pgid>` adds a group, `-<pgid>` removes one. When the input ends, because the
parent closed it or died, it kills every group that is left. It runs without site-packages, so it starts in
milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable


def watch(lines: Iterable[str]) -> None:
    """Read `lines` to their end, then kill the groups that are left."""
    groups: set[int] = set()
    for line in lines:
        sign, number = line[:1], line[1:].strip()
        if not number.isdigit() or int(number) <= 1:
            continue
        (groups.add if sign == "+" else groups.discard)(int(number))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


class Watchdog:
    """The watchdog of this process. Thread-safe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )
        self._lock = threading.Lock()

    def guard(self, group: int) -> None:
        """Add a process group."""
        self._send(f"+{group}\n")

    def release(self, group: int) -> None:
        """Remove a process group that has ended: its id may be reused."""
        self._send(f"-{group}\n")

    def close(self) -> None:
        """Kill the groups that are left, and end the watchdog."""
        with self._lock, contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()

    def _send(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


if __name__ == "__main__":
    watch(sys.stdin)
