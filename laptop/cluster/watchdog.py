"""A process that outlives the one that started it by a moment, to end the process groups that it left behind.

It reads lines from its standard input: `+<pgid>` takes a group into its care, `-<pgid>` lets it go. When the input
ends, because the starter closed it or died in whatever way, it kills every group in its care.
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
    """Reads `lines` to their end, then kills the groups in care."""
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
            # -I and -S: nothing of the environment, and no site-packages, so that it is up in milliseconds.
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )
        self._lock = threading.Lock()

    def guard(self, group: int) -> None:
        """Takes a process group into care."""
        self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """Lets a process group go: it has ended, and its number may come again for another."""
        self._tell(f"-{group}\n")

    def close(self) -> None:
        """Ends whatever is still in care, and the watchdog."""
        with self._lock, contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.write(line.encode())
                self._process.stdin.flush()


if __name__ == "__main__":
    watch(sys.stdin)
