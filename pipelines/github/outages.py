"""Outlast outages of GitHub."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.declarations.errors import MlopsError

T = TypeVar("T")

OUTAGE_SECONDS = 60.0
"""Time to repeat a request while GitHub is unavailable."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds between two attempts."""

AFTER_AN_OUTAGE = "run this again when https://www.githubstatus.com says that GitHub works"

UNAVAILABLE = (429, 500, 502, 503, 504)
"""HTTP statuses of a service that may answer later."""

_STATUS = re.compile(r"(?:\bHTTP|requested URL returned error:) (\d{3})\b")  # of gh and git

_NO_ANSWER = re.compile(
    r"error connecting to "  # gh
    r"|Could not resolve host|Failed to connect to|Couldn't connect to server|Empty reply from server"  # curl in git
    r"|Connection (?:refused|reset|timed out)|Operation timed out|Network is unreachable|the remote end hung up"
    r"|remote: Internal Server Error|SSL_ERROR_SYSCALL",
    re.IGNORECASE,
)


class OutageError(MlopsError):
    """GitHub does not answer, or answers that it is unavailable."""


def status_in(text: str) -> int | None:
    """Return the HTTP status in what `gh` or `git` says; None if it names none."""
    found = _STATUS.search(text)
    return int(found[1]) if found else None


def is_outage(text: str) -> bool:
    """Return whether `gh` or `git` says that GitHub does not answer, or not now."""
    status = status_in(text)
    return status in UNAVAILABLE if status is not None else bool(_NO_ANSWER.search(text))


def outlast(call: Callable[[], T]) -> T:
    """Call `call` and return its result; repeat it while GitHub is unavailable.

    Args:
        call: makes requests that may be made twice.

    Raises:
        OutageError: the outage lasted.
    """
    until, pause = time.monotonic() + OUTAGE_SECONDS, FIRST_PAUSE
    while True:
        try:
            return call()
        except OutageError:
            if time.monotonic() + pause > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
