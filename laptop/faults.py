"""Faults that the laptop can have for a while, to see what the product makes of them.

A fault is an entry of a file in the laptop's home: its name, and when it ends. Every process of the laptop reads it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

FILE = "faults.json"

FAULTS = {
    "api-401": "The Kubernetes API answers 401, as for a token that has expired",
    "api-403": "The Kubernetes API answers 403 to everything but discovery",
    "api-409": "The Kubernetes API answers 409 to changes",
    "api-429": "The Kubernetes API answers 429",
    "api-restart": "The Kubernetes API is killed: its connections end without an answer, and nothing listens",
    "watch-closed": "The Kubernetes API ends every watch and followed log at once",
    "ecr-throttled": "ECR answers ThrottlingException",
    "s3-down": "S3 answers ServiceUnavailable",
    "s3-slow": "S3 answers changes after five seconds",
    "s3-throttled": "S3 answers SlowDown to changes",
    "eventbridge-down": "EventBridge answers 500 to events",
    "load-balancer-stuck": "Load balancers that are not active yet do not become active",
    "targets-stuck": "Targets of load balancers that are not healthy yet do not become healthy",
    "dns-gone": "Runners cannot look up the names of load balancers",
    "app-token-revoked": "GitHub answers 401 to the app",
    "github-down": "GitHub answers 503 to everyone, by its API and by git",
}
"""Name → what happens."""

S3_SLOW_SECONDS = 5.0
"""Time that S3 takes for a change while it is slow."""

NEEDS_LOAD_BALANCERS = frozenset({"load-balancer-stuck", "targets-stuck", "dns-gone"})
"""Faults of load balancers as AWS runs them, which only a realistic laptop has."""

API_STATUSES = {
    "api-401": (401, "Unauthorized", "Unauthorized"),
    "api-403": (403, "Forbidden", "forbidden: a fault of the laptop"),
    "api-409": (409, "Conflict", "the object has been modified; please apply your changes to the latest version"),
    "api-429": (429, "TooManyRequests", "too many requests, please try again later"),
}
"""Fault → code, reason and message of the Kubernetes API."""


class Faults:
    """Faults of one laptop.

    Args:
        home: the laptop's home.
        clock: returns seconds since 1970.
    """

    def __init__(self, home: Path, clock: Callable[[], float] = time.time) -> None:
        self._file = home / FILE
        self._clock = clock
        self._seen = 0
        self._ends: dict[str, float] = {}

    def inject(self, name: str, seconds: float) -> None:
        """Begin a fault that ends by itself.

        Raises:
            MlopsError: no fault has this name.
        """
        if name not in FAULTS:
            raise MlopsError(f"fault {name!r}: expected one of {', '.join(FAULTS)}", fix="correct the name.")
        with FileLock(self._file.with_suffix(".lock")):
            found = {other: end for other, end in self._read().items() if end > self._clock()}
            write_atomically(self._file, json.dumps({**found, name: self._clock() + seconds}) + "\n")

    def active(self) -> frozenset[str]:
        """Return the names of the faults that the laptop has now."""
        try:
            changed = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return frozenset()
        if changed != self._seen:
            self._ends, self._seen = self._read(), changed
        return frozenset(name for name, end in self._ends.items() if end > self._clock())

    def _read(self) -> dict[str, float]:
        try:
            found: dict[str, float] = json.loads(self._file.read_text(encoding="utf-8"))
            return found
        except FileNotFoundError:
            return {}
