"""Count the requests that a bundle answered in an environment, from the keys of the inference log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import store
from pipelines.serving.request_counts import RequestCount, count_of, folder_of

LONGEST = timedelta(days=7)
"""Older requests are not counted: they say little about today."""


@dataclass(frozen=True)
class Served:
    """Requests that a bundle answered.

    Attributes:
        requests: number of requests.
        errors: number of requests that ended in a server error.
    """

    requests: int
    errors: int


def count_requests(
    descriptor: EnvironmentDescriptor, model: str, digest: str, since: datetime, *, now: datetime | None = None
) -> Served:
    """Count the requests that a bundle answered since a time, at most `LONGEST` ago.

    Keys of the log state the counts. Its content has the features of callers, and is never read. Requests before the
    first count that begins after `since` are left out.

    Raises:
        MlopsError: the log cannot be listed.
    """
    until = now or datetime.now(UTC)
    begin = max(since, until - LONGEST)
    counts = [count for count in _counts(descriptor, model, begin, until) if count.bundle == digest]
    return Served(sum(count.requests for count in counts), sum(count.errors for count in counts))


def _counts(descriptor: EnvironmentDescriptor, model: str, begin: datetime, until: datetime) -> Iterator[RequestCount]:
    """Yield the counts that begin between two times."""
    first, last = int(begin.timestamp() * 1000), until.timestamp() * 1000
    day = begin.astimezone(UTC).date()
    while day <= until.astimezone(UTC).date():
        for listed in store.listing(descriptor.logs_bucket, folder_of(model, f"{day:%Y/%m/%d}")):
            count = count_of(listed.key)
            if count is not None and first <= count.begin <= last:
                yield count
        day += timedelta(days=1)
