"""Count the requests that a bundle answered in an environment, from the inference log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import store
from pipelines.serving.request_counts import RequestCount, count_of, folder_of

LARGEST_OBJECT = 64 << 20
"""Size limit of an object of the log, in bytes."""

MOST_OBJECTS = 100_000

LONGEST = timedelta(days=7)
"""Older requests are not counted: they say little about today, and reading them takes long."""

FIRST_SERVER_ERROR = 500
"""Lowest HTTP status of a server error."""


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

    A listing of the counts in the log is enough. Requests before the first count that begins after `since` are left
    out. Pods of an older serving image write no counts; then the records are read, and invalid ones skipped.

    Raises:
        MlopsError: the log cannot be read.
    """
    until = now or datetime.now(UTC)
    begin = max(since, until - LONGEST)
    counts = [count for count in _counts(descriptor, model, begin, until) if count.bundle == digest]
    if counts:
        return Served(sum(count.requests for count in counts), sum(count.errors for count in counts))
    requests = errors = 0
    for key in _objects(descriptor, model, begin, until):
        for line in store.get(descriptor.logs_bucket, key, limit=LARGEST_OBJECT).content.splitlines():
            record = _record(line)
            if record is not None and record.get("bundle") == digest and record["time"] >= begin:
                requests += 1
                errors += record.get("status", 200) >= FIRST_SERVER_ERROR
    return Served(requests, errors)


def _counts(descriptor: EnvironmentDescriptor, model: str, begin: datetime, until: datetime) -> Iterator[RequestCount]:
    """Yield the counts that begin between two times."""
    first, last = begin.timestamp() * 1000, until.timestamp() * 1000
    day = begin.astimezone(UTC).date()
    while day <= until.astimezone(UTC).date():
        for listed in store.listing(descriptor.logs_bucket, folder_of(model, f"{day:%Y/%m/%d}")):
            count = count_of(listed.key)
            if count is not None and first <= count.begin <= last:
                yield count
        day += timedelta(days=1)


def _objects(descriptor: EnvironmentDescriptor, model: str, begin: datetime, until: datetime) -> Iterator[str]:
    """Yield the keys of the log's objects between two times; keys are partitioned by day and hour."""
    day, first = begin.astimezone(UTC).date(), f"{begin.astimezone(UTC):%Y/%m/%d/%H}"
    while day <= until.astimezone(UTC).date():
        above = f"inference/{model}/"
        for key in store.sizes(descriptor.logs_bucket, f"{above}{day:%Y/%m/%d}/", limit=MOST_OBJECTS):
            if key.removeprefix(above) >= first:
                yield key
        day += timedelta(days=1)


def _record(line: bytes) -> dict[str, Any] | None:
    """Parse a log record; return None if it is not one."""
    try:
        record = json.loads(line)
        record["time"] = datetime.fromisoformat(record["time"])
        in_order = record["time"].tzinfo is not None and isinstance(record.get("status", 200), int)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return record if in_order else None
