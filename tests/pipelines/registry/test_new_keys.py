"""Denials by new keys, whose tags AWS applies late."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from pipelines.registry import clients, new_keys
from pipelines.registry.new_keys import LATE, PAUSE_SECONDS, NewKeyRetries, creation_time, denying_key

KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
USER = "User: arn:aws:sts::111122223333:assumed-role/mlops-deploy-dev/run-1"
BECAUSE = "because no identity-based policy allows the action"


def message(action: str, resource: str) -> str:
    return f"{USER} is not authorized to perform: {action} on resource: {resource} {BECAUSE}"


def denied(
    action: str = "kms:Sign", resource: str = KEY, code: str = "AccessDeniedException"
) -> tuple[None, dict[str, Any]]:
    return None, {"Error": {"Code": code, "Message": message(action, resource)}}


def test_kms_and_s3_name_the_key_that_denies() -> None:
    assert denying_key(denied()[1]) == KEY
    assert denying_key(denied("kms:GenerateDataKey", code="AccessDenied")[1]) == KEY


@pytest.mark.parametrize(
    "answer",
    [
        denied("s3:PutObject", "arn:aws:s3:::mlops-dev-registry/ledger/1", "AccessDenied")[1],
        denied(code="KMSInvalidStateException")[1],
        {"Error": {"Code": "AccessDenied"}},
        {},
    ],
)
def test_other_answers_are_not_denials_by_a_key(answer: dict[str, Any]) -> None:
    assert denying_key(answer) is None


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        (NOW - timedelta(seconds=1), PAUSE_SECONDS),
        (NOW - LATE + timedelta(seconds=1), PAUSE_SECONDS),
        (NOW - LATE, None),
        (None, None),
    ],
)
def test_only_a_key_that_is_known_to_be_new_is_tried_again(created: datetime | None, expected: float | None) -> None:
    assert NewKeyRetries(lambda _: created, lambda: NOW)(denied()) == expected


def test_the_key_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    retries = NewKeyRetries(lambda _: NOW, lambda: NOW)
    assert [retries(denied()) for _ in range(3)] == [PAUSE_SECONDS] * 3
    assert [record.getMessage() for record in caplog.records] == [
        f"the new key {KEY} denies access: trying again until 12:06:00 UTC"
    ]


def test_a_key_that_may_not_be_described_is_asked_once() -> None:
    asked: list[str] = []

    def created(key: str) -> None:
        asked.append(key)
        assert retries(denied("kms:DescribeKey")) is None

    retries = NewKeyRetries(created, lambda: NOW)
    assert retries(denied()) is None
    assert asked == [KEY]


def test_a_request_without_an_answer_is_left_to_botocore() -> None:
    assert NewKeyRetries(lambda _: NOW, lambda: NOW)(None, caught_exception=OSError()) is None


@pytest.mark.usefixtures("account")
def test_the_age_of_a_key_is_read_from_kms() -> None:
    created = creation_time(lambda region: clients.client("kms", region))
    key = clients.client("kms", "eu-west-1").create_key()["KeyMetadata"]["Arn"]
    found = created(key)
    assert found is not None and abs(datetime.now(UTC) - found) < LATE
    assert created(KEY) is None


class Body(io.BytesIO):
    """Body of an answer, as urllib3 has it."""

    def stream(self, amount: int = 1024, **_: Any) -> Iterator[bytes]:
        while chunk := self.read(amount):
            yield chunk


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("service", ["kms", "s3"])
def test_a_request_that_a_new_key_denies_is_sent_again(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    monkeypatch.setattr(new_keys, "PAUSE_SECONDS", 0.0)
    kms, client = clients.client("kms"), clients.client(service)
    key = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["Arn"]
    answers = {
        "kms": (400, json.dumps({"__type": "AccessDeniedException", "message": message("kms:Sign", key)})),
        "s3": (403, f"<Error><Code>AccessDenied</Code><Message>{message('kms:Decrypt', key)}</Message></Error>"),
    }
    status, text = answers[service]
    sent: list[str] = []

    def deny_twice(request: Any, **_: Any) -> AWSResponse | None:
        sent.append(request.url)
        return AWSResponse(request.url, status, {}, Body(text.encode())) if len(sent) <= 2 else None

    operation = {"kms": "Sign", "s3": "ListBuckets"}[service]
    client.meta.events.register(f"before-send.{service}.{operation}", deny_twice)
    try:
        if service == "kms":
            kms.sign(KeyId=key, Message=b"m", MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256")
        else:
            client.list_buckets()
    finally:
        client.meta.events.unregister(f"before-send.{service}.{operation}", deny_twice)
    assert len(sent) == 3
