from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
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


def log(
    descriptor: EnvironmentDescriptor,
    at: datetime,
    requests: int = 1,
    errors: int = 0,
    *,
    bundle: str = BUNDLE,
    model: str = MODEL,
    pod: str = "pod-1",
) -> None:
    """Write a count of requests that began at a time."""
    begin = int(at.timestamp() * 1000)
    key = key_of(RequestCount(begin, begin + 1000, requests, errors, bundle), model, pod, 1)
    boto3.client("s3").put_object(Bucket=descriptor.logs_bucket, Key=key, Body=b"{}")


def count(descriptor: EnvironmentDescriptor, since: datetime = SINCE) -> Served:
    return count_requests(descriptor, MODEL, BUNDLE, since, now=NOW)


def test_requests_are_counted_across_hours_and_midnight(dev: EnvironmentDescriptor) -> None:
    for hours in (-1.5, -1, -0.5, 0.2):
        log(dev, NOW.replace(minute=0) + timedelta(hours=hours), 2)
    assert count(dev) == Served(8, 0)


def test_requests_before_the_start_are_not_counted(dev: EnvironmentDescriptor) -> None:
    log(dev, SINCE - timedelta(milliseconds=1))
    log(dev, SINCE)
    log(dev, SINCE + timedelta(milliseconds=1))
    log(dev, SINCE - timedelta(hours=1))
    assert count(dev) == Served(2, 0)


def test_the_start_may_be_in_any_time_zone(dev: EnvironmentDescriptor) -> None:
    log(dev, SINCE)
    assert count(dev, SINCE.astimezone(timezone(timedelta(hours=9)))) == Served(1, 0)


def test_requests_of_other_bundles_and_models_are_not_counted(dev: EnvironmentDescriptor) -> None:
    log(dev, NOW)
    log(dev, NOW, pod="pod-2")
    log(dev, NOW, bundle=OTHER)
    log(dev, NOW, model="churn")
    log(dev, NOW, model="price-of-houses")
    assert count(dev) == Served(2, 0)


def test_errors_are_counted(dev: EnvironmentDescriptor) -> None:
    log(dev, NOW, 5, 2)
    log(dev, NOW, 3, 1, pod="pod-2")
    assert count(dev) == Served(8, 3)


@pytest.mark.parametrize("name", ["", "x.json", "1-2-3-4-abc-pod-1.json", "-1-2-3-4-" + "a" * 64 + "-pod-1.json"])
def test_an_object_that_is_not_a_count_is_skipped(dev: EnvironmentDescriptor, name: str) -> None:
    log(dev, NOW, 2, 1)
    key = f"inference/{MODEL}/counts/{NOW:%Y/%m/%d}/{name}"
    boto3.client("s3").put_object(Bucket=dev.logs_bucket, Key=key, Body=b"{}")
    assert count(dev) == Served(2, 1)


def test_an_empty_log_counts_as_no_requests(dev: EnvironmentDescriptor) -> None:
    assert count(dev) == Served(0, 0)


def test_requests_older_than_a_week_are_not_listed(dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (8, 6):
        log(dev, NOW - timedelta(days=days))
    listed: list[str] = []
    listing = store.listing

    def listing_noted(bucket: str, prefix: str, **options: Any) -> Any:
        listed.append(prefix)
        return listing(bucket, prefix, **options)

    monkeypatch.setattr(store, "listing", listing_noted)
    assert count(dev, NOW - timedelta(days=400)) == Served(1, 0)
    assert len(listed) == LONGEST.days + 1, "one listing per day"


def test_a_log_that_cannot_be_listed_is_an_error(dev: EnvironmentDescriptor, account: EmulatedAccount) -> None:
    log(dev, NOW)
    account.denied.add(dev.logs_bucket)
    with pytest.raises(store.AccessDeniedError):
        count(dev)


def test_the_content_of_the_log_is_never_read(dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    log(dev, SINCE, 1_000_000)
    log(dev, NOW, 500_000, 7, pod="pod-2")
    record = f"inference/{MODEL}/{NOW:%Y/%m/%d/%H}/pod-1.jsonl"
    boto3.client("s3").put_object(Bucket=dev.logs_bucket, Key=record, Body=b'{"features": [1]}')
    monkeypatch.setattr(store, "get", lambda *_, **__: pytest.fail("an object is read"))
    assert count(dev) == Served(1_500_000, 7)
