"""Let days pass on the laptop: what monitors look back on becomes older.

The clocks of this machine stay. The records of the logs bucket move into the past instead: requests of the inference
log and their counts, reports of monitors, and their decisions. A monitor compares them with
the present, so to it the time has passed. What is signed (bundles, ledgers) and tables keep their times.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

from pipelines.data.glue_client import s3
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.monitoring.log_compaction import older_part
from pipelines.monitoring.log_records import parquet_part
from pipelines.registry import store
from pipelines.serving.request_counts import count_of

PREFIXES = ("inference/", "monitoring/")
"""Parts of the logs bucket whose records move."""

LARGEST_OBJECT = 256 << 20
"""Size limit of an object, in bytes."""

_DAY_MILLISECONDS = 86_400_000
_DAY_IN_KEY = re.compile(r"(?<=/)(\d{4})/(\d{2})/(\d{2})(?=/)")
_TIME_IN_KEY = re.compile(r"(?<=/)(\d{4})(\d{2})(\d{2})(?=T\d{6}Z)")
_COUNT_IN_KEY = re.compile(r"(?<=/)(\d{1,15})-(\d{1,15})(?=-)")
_REQUEST = re.compile(rb'(?m)^(\{"time":")(\d{4})-(\d{2})-(\d{2})(?=T)')
_TIME = re.compile(rb"()(?<![\d-])(\d{4})-(\d{2})-(\d{2})(?=[T ]\d{2}:\d{2})")


def pass_days(descriptor: EnvironmentDescriptor, days: int) -> int:
    """Make the records of an environment older, and return how many objects moved.

    Stop all writers first. An interrupted run leaves some objects moved and others not.

    Args:
        descriptor: the environment.
        days: number of days, at least 1.

    Raises:
        MlopsError: the logs bucket cannot be read or written.
    """
    client, bucket = s3(descriptor), descriptor.logs_bucket
    keys = [each.key for prefix in PREFIXES for each in store.listing(bucket, prefix, client=client)]
    moved = 0
    for key in keys:
        older = older_key(key, days)
        if older == key:
            continue
        content = store.get(bucket, key, limit=LARGEST_OBJECT, client=client).content
        kind = "text/html; charset=utf-8" if key.endswith(".html") else "application/json"
        store.put(bucket, older, older_content(key, content, days), content_type=kind, client=client)
        store.delete(bucket, key, client=client)
        moved += 1
    return moved


def older_key(key: str, days: int) -> str:
    """Return the key of a record after some days have passed."""

    def day(found: re.Match[str]) -> str:
        return f"{_earlier(found[1], found[2], found[3], days):%Y/%m/%d}"

    def moment(found: re.Match[str]) -> str:
        return f"{_earlier(found[1], found[2], found[3], days):%Y%m%d}"

    def milliseconds(found: re.Match[str]) -> str:
        begin, end = (int(found[group]) - days * _DAY_MILLISECONDS for group in (1, 2))
        return f"{begin}-{end}"

    folder, slash, name = _TIME_IN_KEY.sub(moment, _DAY_IN_KEY.sub(day, key)).rpartition("/")
    if count_of(key) is not None:
        name = _COUNT_IN_KEY.sub(milliseconds, slash + name).removeprefix(slash)
    return f"{folder}{slash}{name}"


def older_content(key: str, content: bytes, days: int) -> bytes:
    """Return the content of a record after some days have passed.

    Of a request, only its time changes; what clients sent stays.
    """
    if parquet_part(key) is not None:
        return older_part(content, days)

    def earlier(found: re.Match[bytes]) -> bytes:
        day = _earlier(found[2].decode(), found[3].decode(), found[4].decode(), days)
        return found[1] + f"{day:%Y-%m-%d}".encode()

    return (_REQUEST if key.startswith("inference/") else _TIME).sub(earlier, content)


def _earlier(year: str, month: str, day: str, days: int) -> date:
    return date(int(year), int(month), int(day)) - timedelta(days=days)
