"""Records of the logs bucket become older, and nothing else changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import boto3
import pytest

from laptop.passing_days import older_content, older_key, pass_days
from pipelines.serving.request_counts import RequestCount, count_of, key_of
from tests.aws import EmulatedAccount, make_environment

BUNDLE = "sha256:" + "a" * 64
NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "older"),
    [
        ("inference/churn/2026/03/01/12/pod-1-7.jsonl", "inference/churn/2026/02/28/12/pod-1-7.jsonl"),
        ("monitoring/data/churn-data/20260301T050000Z-81.json", "monitoring/data/churn-data/20260228T050000Z-81.json"),
        ("monitoring/models/churn/20260301T050000Z-ab.html", "monitoring/models/churn/20260228T050000Z-ab.html"),
        (
            "monitoring/models/churn/responses/20260301T050000Z-0f.sent",
            "monitoring/models/churn/responses/20260228T050000Z-0f.sent",
        ),
        ("lineage/2026.json", "lineage/2026.json"),
    ],
)
def test_the_time_in_a_key_moves_back(key: str, older: str) -> None:
    assert older_key(key, 1) == older


def test_a_count_of_requests_moves_back_as_a_whole() -> None:
    begin = int(NOW.timestamp() * 1000)
    key = older_key(key_of(RequestCount(begin, begin + 5000, 20, 1, BUNDLE), "churn", "pod-1", 3), 2)
    found, day = count_of(key), NOW - timedelta(days=2)
    assert found == RequestCount(begin - 2 * 86_400_000, begin - 2 * 86_400_000 + 5000, 20, 1, BUNDLE)
    assert key.startswith(f"inference/churn/counts/{day:%Y/%m/%d}/")


def test_what_a_client_sent_stays() -> None:
    line = b'{"time":"2026-03-01T12:00:00.123Z","inputs":{"since":[["2026-03-01T12:00"]]}}\n'
    older = b'{"time":"2026-02-28T12:00:00.123Z","inputs":{"since":[["2026-03-01T12:00"]]}}\n'
    assert older_content("inference/churn/2026/03/01/12/a.jsonl", line * 2, 1) == older * 2


def test_every_time_of_a_report_moves_back_and_dates_stay() -> None:
    report = b'{"time": "2026-03-01T12:00:00Z", "reason": "from 2026-03-01 09:00 to 10:00", "version": "2026-03-01"}'
    older = b'{"time": "2026-02-28T12:00:00Z", "reason": "from 2026-02-28 09:00 to 10:00", "version": "2026-03-01"}'
    assert older_content("monitoring/models/churn/20260301T120000Z-a.json", report, 1) == older


@pytest.mark.slow
def test_records_move_and_other_objects_stay(account: EmulatedAccount) -> None:
    descriptor, client = make_environment(), boto3.client("s3")
    bucket = descriptor.logs_bucket
    kept = {"lineage/a.json": b'{"time": "2026-03-01T12:00:00Z"}'}
    moving = {"inference/churn/2026/03/01/12/a-1.jsonl": b'{"time":"2026-03-01T12:00:00.123Z","rows":1}\n'}
    for key, content in (kept | moving).items():
        client.put_object(Bucket=bucket, Key=key, Body=content)
    assert pass_days(descriptor, 1) == 1
    listed = [each["Key"] for each in client.list_objects_v2(Bucket=bucket)["Contents"]]
    found = {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in listed}
    assert found == kept | {
        "inference/churn/2026/02/28/12/a-1.jsonl": b'{"time":"2026-02-28T12:00:00.123Z","rows":1}\n'
    }
