"""Counts of the inference log: how many requests a process logged in which time, and how many ended in an error.

Each count is an object of its own, and its key says all, so that counting takes a listing and no reads:

    inference/<model>/counts/<year>/<month>/<day>/<from>-<to>-<requests>-<errors>-<bundle>-<pod>-<number>.json

`from` and `to` are milliseconds since the epoch, and the bundle is the 64 digits of its digest. The content adds
`latencies`: the requests since the count before, in each bucket of `request_metrics.BUCKETS`.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

BURST = 10
"""Counts that a process may write one after the other."""

SECONDS = 120.0
"""Seconds between two counts under steady traffic: at most 720 objects a day and process."""

_NAME = re.compile(r"(\d{1,15})-(\d{1,15})-(\d{1,15})-(\d{1,15})-([0-9a-f]{64})-[^/]+\.json")


class RequestCount(NamedTuple):
    """Requests that one process logged between two times.

    Attributes:
        begin, end: first and last request, in milliseconds since the epoch.
        requests: number of requests.
        errors: number of requests that ended in a server error.
        bundle: digest of the bundle.
    """

    begin: int
    end: int
    requests: int
    errors: int
    bundle: str


def folder_of(model: str, day: str) -> str:
    """Return the key prefix of a day's counts, with a trailing slash.

    Args:
        model: name of the model.
        day: `<year>/<month>/<day>` in UTC.
    """
    return f"inference/{model}/counts/{day}/"


def key_of(count: RequestCount, model: str, pod: str, number: int) -> str:
    """Return the key of a count."""
    day = time.strftime("%Y/%m/%d", time.gmtime(count.begin // 1000))
    figures = f"{count.begin}-{count.end}-{count.requests}-{count.errors}"
    return f"{folder_of(model, day)}{figures}-{count.bundle.removeprefix('sha256:')}-{pod}-{number}.json"


def count_of(key: str) -> RequestCount | None:
    """Return the count that a key states; None if it is the key of something else."""
    found = _NAME.fullmatch(key.rpartition("/")[2])
    if found is None:
        return None
    begin, end, requests, errors = (int(found[group]) for group in range(1, 5))
    return RequestCount(begin, end, requests, errors, f"sha256:{found[5]}")


class PendingCount:
    """Adds up requests until their count may be written. Not thread-safe.

    Args:
        bundle: digest of the bundle.
    """

    def __init__(self, bundle: str) -> None:
        self._bundle = bundle
        self._count: RequestCount | None = None
        self._allowance = float(BURST)
        self._checked = time.monotonic()

    def add(self, begin: float, end: float, requests: int, errors: int) -> None:
        """Add requests between two times, in seconds since the epoch."""
        first, last = int(begin * 1000), int(end * 1000)
        before = self._count
        if before is not None:
            first, last = min(first, before.begin), max(last, before.end)
            requests, errors = requests + before.requests, errors + before.errors
        self._count = RequestCount(first, last, requests, errors, self._bundle)

    def take(self, *, is_last: bool = False, now: float | None = None) -> RequestCount | None:
        """Return the count if it may be written now, and start the next one.

        Args:
            is_last: True if the process ends.
            now: value of `time.monotonic()`.
        """
        checked = time.monotonic() if now is None else now
        self._allowance = min(float(BURST), self._allowance + max(0.0, checked - self._checked) / SECONDS)
        self._checked = checked
        if self._count is None or not (is_last or self._allowance >= 1):
            return None
        self._allowance -= 1
        taken, self._count = self._count, None
        return taken
