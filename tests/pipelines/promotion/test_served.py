from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.promotion.facts.served import LONGEST, Served, count_requests
from pipelines.registry import store
from pipelines.serving.request_counts import RequestCount, key_of
from tests.aws import EmulatedAccount, make_environment

MODEL = "price"
BUNDLE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NOW = datetime(2026, 3, 2, 0, 20, tzinfo=UTC)
SINCE = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def environment(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment()


@pytest.fixture
def dev(environment: EnvironmentDescriptor, request: pytest.FixtureRequest) -> EnvironmentDescriptor:
    bucket = f"logs-{abs(hash(request.node.nodeid))}"
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return environment.model_copy(update={"logs_bucket": bucket})


def line(at: datetime, **changes: Any) -> dict[str, Any]:
    written = f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
    return {"time": written, "model": MODEL, "bundle": BUNDLE, "id": "1", "trace": "0" * 32, "rows": 1, **changes}


def log(
    descriptor: EnvironmentDescriptor,
    at: datetime,
    *lines: dict[str, Any] | bytes,
    pod: str = "pod-1",
    model: str = MODEL,
) -> None:
    """Write lines into the log object of their hour."""
    content = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)
    key = f"inference/{model}/{at.astimezone(UTC):%Y/%m/%d/%H}/{pod}.jsonl"
    boto3.client("s3").put_object(Bucket=descriptor.logs_bucket, Key=key, Body=content)


def count(descriptor: EnvironmentDescriptor, since: datetime = SINCE) -> Served:
    return count_requests(descriptor, MODEL, BUNDLE, since, now=NOW)


def test_requests_are_counted_across_hours_and_midnight(dev: EnvironmentDescriptor) -> None:
    for hours in (-1.5, -1, -0.5, 0.2):
        at = NOW.replace(minute=0) + timedelta(hours=hours)
        log(dev, at, line(at), line(at + timedelta(seconds=1)), pod=f"pod-{hours}")
    assert count(dev) == Served(8, 0)


def test_requests_before_the_start_are_not_counted(dev: EnvironmentDescriptor) -> None:
    log(dev, SINCE, line(SINCE - timedelta(milliseconds=1)), line(SINCE), line(SINCE + timedelta(milliseconds=1)))
    earlier = SINCE - timedelta(hours=1)
    log(dev, earlier, line(earlier))
    assert count(dev) == Served(2, 0)


def test_the_start_may_be_in_any_time_zone(dev: EnvironmentDescriptor) -> None:
    from datetime import timezone

    log(dev, SINCE, line(SINCE))
    assert count(dev, SINCE.astimezone(timezone(timedelta(hours=9)))) == Served(1, 0)


def test_requests_of_other_bundles_and_models_are_not_counted(dev: EnvironmentDescriptor) -> None:
    log(dev, NOW, line(NOW), line(NOW, bundle=OTHER))
    log(dev, NOW, line(NOW), pod="pod-2")
    log(dev, NOW, line(NOW), model="churn")
    log(dev, NOW, line(NOW), model="price-of-houses")
    assert count(dev) == Served(2, 0)


def test_only_server_errors_count_as_errors(dev: EnvironmentDescriptor) -> None:
    log(dev, NOW, line(NOW), line(NOW, status=500), line(NOW, status=503), line(NOW, status=499), line(NOW, status=200))
    assert count(dev) == Served(5, 2)


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b'{"bundle":"x"}',
        b"[" * 100_000,
        line(NOW) | {"time": "yesterday"},
        line(NOW) | {"time": None},
        line(NOW) | {"time": "2026-03-02T00:10:00"},
        line(NOW) | {"status": "500"},
        line(NOW) | {"status": None},
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_line_is_skipped(dev: EnvironmentDescriptor, malformed: bytes | dict[str, Any]) -> None:
    log(dev, NOW, line(NOW), malformed, line(NOW, status=500))
    assert count(dev) == Served(2, 1)


def test_an_empty_or_missing_log_counts_as_no_requests(dev: EnvironmentDescriptor) -> None:
    assert count(dev) == Served(0, 0)
    log(dev, NOW)
    assert count(dev) == Served(0, 0)


def test_requests_older_than_a_week_are_not_read(dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (8, 6):
        at = NOW - timedelta(days=days)
        log(dev, at, line(at))
    listed: list[str] = []
    sizes = store.sizes
    monkeypatch.setattr(store, "sizes", lambda b, prefix, **k: listed.append(prefix) or sizes(b, prefix, **k))
    assert count(dev, NOW - timedelta(days=400)) == Served(1, 0)
    assert len(listed) == LONGEST.days + 1, "one listing per day"


def test_an_unreadable_log_is_an_error(dev: EnvironmentDescriptor, account: EmulatedAccount) -> None:
    log(dev, NOW, line(NOW))
    account.denied.add(dev.logs_bucket)
    with pytest.raises(store.AccessDeniedError):
        count(dev)


def test_counts_are_added_up_without_reading_any_object(
    dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state(at: datetime, requests: int, errors: int = 0, bundle: str = BUNDLE, pod: str = "pod-1") -> None:
        begin = int(at.timestamp() * 1000)
        key = key_of(RequestCount(begin, begin + 1000, requests, errors, bundle), MODEL, pod, 1)
        boto3.client("s3").put_object(Bucket=dev.logs_bucket, Key=key, Body=b"{}")

    state(SINCE, 1_000_000)
    state(NOW, 500_000, 7, pod="pod-2")
    state(SINCE - timedelta(milliseconds=1), 11)
    state(NOW, 13, bundle=OTHER)
    log(dev, NOW, line(NOW))
    monkeypatch.setattr(store, "get", lambda *_, **__: pytest.fail("an object is read"))
    assert count(dev) == Served(1_500_000, 7)
