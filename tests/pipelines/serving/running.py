"""Start a server process, follow what it says on stderr, and leave none behind."""

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
"""Seconds that anything may take on a busy machine."""


class Running:
    """A server process, as a context; it is killed at the end if it still runs.

    Attributes:
        said: what it said on stderr so far: the log's lines as objects, anything else under `text`.
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
        """The log line with this message; fails if the process ends before it says so."""
        deadline = time.monotonic() + PATIENCE
        while True:
            said = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert said is not None, f"it ended without saying {message!r}: {self.said}"
            if said.get("message") == message:
                return said

    def url(self) -> str:
        """Where it listens."""
        live = self.wait_for("live")
        return f"http://{live['host']}:{live['port']}"

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def status(self) -> int:
        """Its exit status, when it ends."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def __enter__(self) -> Running:
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


# Making a client takes a tenth of a second; every request has a connection of its own.
client = httpx.Client(
    trust_env=False,
    verify=False,  # noqa: S501
    timeout=PATIENCE,
    limits=httpx.Limits(max_keepalive_connections=0),
)


def get(url: str) -> httpx.Response:
    """One request on a connection of its own."""
    return client.get(url)
