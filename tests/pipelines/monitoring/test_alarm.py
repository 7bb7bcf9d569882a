from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.alarm import read_alarm

BAD = "sha256:" + "b" * 64


def event(**changes: Any) -> dict[str, Any]:
    payload = {"model": "m1", "environment": "prod", "reason": "mae 61 is over 55"}
    return {"action": "breach", "client_payload": payload | changes.pop("payload", {}), **changes}


def test_an_alarm_is_read_from_its_event() -> None:
    alarm = read_alarm(json.dumps(event(payload={"bundle": BAD, "more": 1}, sender="x")).encode())
    assert (alarm.kind, alarm.model, alarm.environment, alarm.bundle) == ("breach", "m1", "prod", BAD)
    assert read_alarm(json.dumps(event(action="drift")).encode()).bundle is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b"x" * (1 << 20) + b"x",
        json.dumps(event(action="opened")).encode(),
        json.dumps(event(client_payload=None)).encode(),
        json.dumps(event(client_payload=[])).encode(),
        json.dumps(event(client_payload="text")).encode(),
        json.dumps(event(payload={"model": "../../etc"})).encode(),
        json.dumps(event(payload={"environment": "--help"})).encode(),
        json.dumps(event(payload={"reason": ""})).encode(),
        json.dumps(event(payload={"reason": "x" * 401})).encode(),
        json.dumps(event(payload={"bundle": "latest"})).encode(),
    ],
    ids=lambda content: str(content)[:40],
)
def test_an_event_that_is_not_an_alarm_is_refused(content: bytes) -> None:
    with pytest.raises(MlopsError, match="the event"):
        read_alarm(content)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"payload": {"reason": ""}}, 'reason: expected at least 1 character, found ""'),
        ({"client_payload": {"model": "m1", "reason": "x"}}, "KeyError('environment')"),
        ({"client_payload": None}, "TypeError(\"'NoneType' object is not subscriptable\")"),
    ],
)
def test_the_error_says_what_is_wrong_and_what_to_send(changes: dict[str, Any], detail: str) -> None:
    with pytest.raises(MlopsError) as caught:
        read_alarm(json.dumps(event(**changes)).encode())
    assert caught.value.what == f"the event is not an alarm: {detail}"
    assert caught.value.fix == (
        "send event_type drift or breach with client_payload {model, environment, reason, bundle}, or alarm with "
        "response as well"
    )


def test_an_event_is_read_up_to_its_size_limit() -> None:
    content = json.dumps(event()).encode()
    largest = content + b" " * ((1 << 20) - len(content))
    assert read_alarm(largest).reason == "mae 61 is over 55"
    with pytest.raises(MlopsError) as caught:
        read_alarm(largest + b" ")
    assert caught.value.what == "the event has 1048577 bytes; expected at most 1048576"


def test_an_alarm_of_a_monitor_names_its_response_and_its_identity() -> None:
    more = {"response": "ask", "id": "abc123", "checks": ["input-drift"], "monitor": "monitor-m1", "report": "r-1"}
    alarm = read_alarm(json.dumps(event(action="alarm", payload={**more, "bundle": BAD})).encode())
    assert (alarm.wanted, alarm.id, alarm.checks) == ("ask", "abc123", ("input-drift",))
    sent = {"action": "alarm", "client_payload": alarm.payload()}
    assert read_alarm(json.dumps(sent).encode()) == alarm


@pytest.mark.parametrize(("kind", "response"), [("drift", "retrain"), ("breach", "roll-back")])
def test_the_kind_of_an_alarm_from_elsewhere_says_the_response(kind: str, response: str) -> None:
    assert read_alarm(json.dumps(event(action=kind)).encode()).wanted == response


@pytest.mark.parametrize(
    "changes",
    [
        {"action": "alarm"},
        {"action": "drift", "payload": {"response": "roll-back"}},
        {"action": "alarm", "payload": {"response": "none"}},
        {"action": "alarm", "payload": {"response": "ask", "id": "../../x"}},
        {"action": "alarm", "payload": {"response": "ask", "checks": ["<script>"]}},
        {"action": "alarm", "payload": {"response": "ask", "report": "a b; rm"}},
    ],
)
def test_an_alarm_that_does_not_say_what_to_do_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MlopsError, match="the event is not an alarm"):
        read_alarm(json.dumps(event(**changes)).encode())
