"""AWS clients: answers are read as botocore reads them."""

from __future__ import annotations

from datetime import datetime

import boto3
import pytest
from botocore.utils import parse_timestamp

from pipelines.registry import clients
from tests.aws import REGION, EmulatedAccount, make_environment


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 30 Nov 2026 15:31:55 GMT",
        "Mon, 30 Nov 2026 15:31:55 +0200",
        "Mon, 30 Nov 2026 15:31:55 -0000",
        "Monday, 30-Nov-26 15:31:55 GMT",
        "2026-11-30T15:31:55Z",
        "2026-11-30T15:31:55.123Z",
        "2026-11-30T15:31:55.123456789Z",
        "2026-11-30T15:31:55+02:00",
        "2026-11-30T15:31:55",
        "20261130T153155Z",
        "1796052715",
        "1796052715.5",
        1796052715,
        1796052715.5,
    ],
)
def test_a_timestamp_is_the_time_that_botocore_reads(value: str | float) -> None:
    assert clients.read_timestamp(value) == parse_timestamp(value)


@pytest.mark.parametrize("value", ["", "2026", "2026-13-30T15:31:55Z", "Mon, 99 Nov 2026 15:31:55 GMT", "soon"])
def test_what_botocore_refuses_as_a_timestamp_is_refused(value: str) -> None:
    def outcome(read: object) -> datetime | None:
        try:
            return read(value)  # type: ignore[operator, no-any-return]
        except ValueError:
            return None

    assert outcome(clients.read_timestamp) == outcome(parse_timestamp)


def test_clients_read_the_times_of_objects_as_others_do(account: EmulatedAccount) -> None:
    bucket = make_environment().registry_bucket
    made, other = clients.client("s3", REGION), boto3.client("s3")
    other.put_object(Bucket=bucket, Key="a", Body=b"a")
    assert made.list_objects_v2(Bucket=bucket)["Contents"] == other.list_objects_v2(Bucket=bucket)["Contents"]
    assert (
        made.get_object(Bucket=bucket, Key="a")["LastModified"]
        == (other.get_object(Bucket=bucket, Key="a")["LastModified"])
    )
