"""Start a server process, read its log from stderr, and stop it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

ROOT = Path(__file__).parents[3]
PATIENCE = 30.0
"""Timeout of a test in seconds, generous enough for a busy machine."""


class ServerProcess:
    """A server process, as a context manager that kills the process on exit.

    Attributes:
        said: lines on stderr so far: log records as objects, other lines under `text`.
    """

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env={**os.environ, "HOST": "127.0.0.1", "PORT": "0", "DRAIN_SECONDS": "0.8", **environ},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.said: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                said = json.loads(line)
            except ValueError:
                said = {"text": line.decode(errors="replace")}
            self.said.append(said)
            self._lines.put(said)
        self._lines.put(None)

    def wait_for(self, message: str) -> dict[str, Any]:
        """Return the log record with this message; fail if the process ends first."""
        deadline = time.monotonic() + PATIENCE
        while True:
            said = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert said is not None, f"the server ended without logging {message!r}: {self.said}"
            if said.get("message") == message:
                return said

    def url(self) -> str:
        """Return the URL that it listens on."""
        live = self.wait_for("live")
        return f"http://{live['host']}:{live['port']}"

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def status(self) -> int:
        """Wait for the process to end; return its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()


# A client takes a tenth of a second to make, so all tests share this one. It keeps no connections.
client = httpx.Client(
    trust_env=False,
    verify=False,  # noqa: S501
    timeout=PATIENCE,
    limits=httpx.Limits(max_keepalive_connections=0),
)


def get(url: str) -> httpx.Response:
    """Send a GET request on a new connection."""
    return client.get(url)
