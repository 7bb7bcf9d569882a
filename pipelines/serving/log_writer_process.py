"""Processes that write the inference log of a server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Protocol


class LogWriter(Protocol):
    """A running writer.

    Attributes:
        channel: socket that is connected to it.
    """

    channel: socket.socket

    def stop(self, seconds: float) -> None:
        """Wait until it has ended; end it after some seconds."""


StartLogWriter = Callable[[], LogWriter]
"""Starts a writer. Raises `OSError` if that is not possible now."""


class LogWriterProcess:
    """A writer in a child process, which has the other end of the channel as its standard input.

    Args:
        command: program and arguments of the process.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.channel, other = socket.socketpair()
        try:
            with other:
                self._process = subprocess.Popen(command, stdin=other.fileno(), stdout=subprocess.DEVNULL)
        except OSError:
            self.channel.close()
            raise

    def stop(self, seconds: float) -> None:
        """Wait until the process has ended; kill it after some seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class EarlyLogWriter:
    """Starts a first writer at once: its imports take as long as loading a bundle. Call it for a writer.

    Args:
        start: starts a writer.
    """

    def __init__(self, start: StartLogWriter) -> None:
        self._start = start
        self._first: LogWriter | None = None
        with contextlib.suppress(OSError):  # the log tries again, and says so
            self._first = start()

    def __call__(self) -> LogWriter:
        first, self._first = self._first, None
        return first or self._start()

    def close(self) -> None:
        """End the first writer if nobody took it."""
        first, self._first = self._first, None
        if first is not None:
            first.channel.close()
            first.stop(0)
