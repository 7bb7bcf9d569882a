"""What a bundle has answered in an environment, counted from its inference log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import store

LARGEST_OBJECT = 64 << 20
MOST_OBJECTS = 100_000


@dataclass(frozen=True)
class Served:
    """What a bundle has answered.

    Attributes:
        requests: how many.
        errors: of those, answered with a server error.
    """

    requests: int
    errors: int


def count_requests(descriptor: EnvironmentDescriptor, model: str, digest: str, since: datetime) -> Served:
    """Count what a bundle has answered since a time, from the inference log of its model.

    Raises:
        MlopsError: the log cannot be read.
    """
    requests = errors = 0
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    now = datetime.now(UTC)
    while hour <= now:
        prefix = f"inference/{model}/{hour:%Y/%m/%d/%H}/"
        for key in store.sizes(descriptor.logs_bucket, prefix, limit=MOST_OBJECTS):
            for line in store.get(descriptor.logs_bucket, key, limit=LARGEST_OBJECT).content.splitlines():
                record = json.loads(line)
                if record.get("bundle") == digest and datetime.fromisoformat(record["time"]) >= since:
                    requests += 1
                    errors += "error" in record
        hour += timedelta(hours=1)
    return Served(requests, errors)
