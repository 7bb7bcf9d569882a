"""Decisions are recorded before their alarms are sent, and alarms that were not sent are sent by the next run."""

from __future__ import annotations

import json
import threading
import urllib.request
import uuid
from datetime import timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model_responses import Hysteresis, ModelResponses
from pipelines.declarations.project import Project
from pipelines.monitoring import response_records
from pipelines.monitoring.monitor_reports import report_names, write_report
from pipelines.monitoring.response_records import read_decisions
from pipelines.monitoring.send_alarm import respond_to_newest, respond_to_reports
from pipelines.registry import clients, store
from tests.aws import ACCOUNT, REGION, EmulatedAccount, make_environment
from tests.http_responder import Answer, http_server
from tests.pipelines.monitoring.test_response_policy import DAY, START, report
from tests.sample_project import PROJECT

pytestmark = pytest.mark.slow

POLICY = ModelResponses(hysteresis=Hysteresis(alarms=1, of=1))


class Bus:
    """Stands in for EventBridge.

    Attributes:
        sent: entries of PutEvents.
        error: raised instead of an answer.
        failed: entries that EventBridge does not take.
    """

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.failed = 0

    def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - as boto3 has it
        if self.error is not None:
            raise self.error
        if self.failed:
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow"}]}
        self.sent += Entries
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Bus:
    made, client = Bus(), clients.client
    monkeypatch.setattr(clients, "client", lambda service, *where: made if service == "events" else client(service))
    return made


@pytest.fixture
def prod(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("prod")


def run(prod: EnvironmentDescriptor, day: int = 0, *checks: str, prefix: str = "mlops-prod") -> list[str]:
    lines: list[str] = []
    respond_to_reports(prod, "m1", [report(day, *checks)], POLICY, START + (day + 1) * DAY, prefix, lines.append)
    return lines


def test_an_alarm_is_sent_once_in_the_name_of_its_monitor(prod: EnvironmentDescriptor, bus: Bus) -> None:
    lines = run(prod, 0, "errors")
    (sent,) = bus.sent
    assert (sent["Source"], sent["DetailType"]) == ("mlops-prod.monitor.m1", "alarm")
    assert '"response": "roll-back"' in sent["Detail"] and '"model": "m1"' in sent["Detail"]
    assert lines[0] == "roll-back: errors: errors is off"
    assert run(prod, 0, "errors") == []
    assert len(bus.sent) == 1


def test_no_alarm_sends_nothing(prod: EnvironmentDescriptor, bus: Bus) -> None:
    assert run(prod, 0) == []
    assert bus.sent == []


@pytest.mark.parametrize("how", ["unreachable", "refused"])
def test_an_alarm_that_eventbridge_does_not_take_is_sent_by_the_next_run(
    prod: EnvironmentDescriptor, bus: Bus, how: str
) -> None:
    if how == "unreachable":
        bus.error = EndpointConnectionError(endpoint_url="https://events")
    else:
        bus.failed = 1
    with pytest.raises(MlopsError, match=r"was not sent|did not take"):
        run(prod, 0, "errors")
    assert len(read_decisions(prod, "m1")[1]) == 1
    bus.error, bus.failed = None, 0
    run(prod, 1)
    assert len(bus.sent) == 1
    assert read_decisions(prod, "m1")[1] == []


@pytest.mark.parametrize("how", ["no answer", "503"])
def test_an_alarm_during_an_outage_of_eventbridge_is_delivered_once_when_it_is_over(
    prod: EnvironmentDescriptor, account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """With the real client, over HTTP, through a rule to a queue."""
    queue = make_queue("mlops-prod.monitor.m1")
    is_up = threading.Event()

    def answer(_method: str, _path: str, body: bytes) -> Answer:
        if is_up.is_set():
            return put_events(account, body)
        return None if how == "no answer" else (503, b"{}")

    with http_server(answer) as endpoint:
        once = Config(retries={"total_max_attempts": 1})
        events, client = boto3.client("events", endpoint_url=endpoint, config=once), clients.client
        monkeypatch.setattr(
            clients, "client", lambda service, *where: events if service == "events" else client(service)
        )
        for _ in range(2):
            with pytest.raises(MlopsError, match="was not sent"):
                run(prod, 0, "errors")
        assert received(queue) == []
        is_up.set()
        for day in range(1, 3):
            run(prod, day)
    ((decision,), unsent) = read_decisions(prod, "m1")
    assert [one["id"] for one in received(queue)] == [decision.id]
    assert unsent == []


def make_queue(source: str) -> str:
    """Create a queue that gets the events of a source, and return its URL."""
    sqs, events = boto3.client("sqs"), boto3.client("events")
    name = f"alarms-{uuid.uuid4().hex[:8]}"
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    events.put_rule(Name=name, EventPattern=json.dumps({"source": [source]}))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"}])
    return str(url)


def received(queue: str) -> list[dict[str, Any]]:
    """Return the details of the events in a queue."""
    found = boto3.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    return [json.loads(one["Body"])["detail"] for one in found]


def put_events(account: EmulatedAccount, body: bytes) -> Answer:
    """Pass a request on to the account."""
    headers = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "AWSEvents.PutEvents",
        "Authorization": f"AWS4-HMAC-SHA256 Credential=x/20260301/{REGION}/events/aws4_request",
    }
    request = urllib.request.Request(account.endpoint, data=body, headers=headers)
    with urllib.request.urlopen(request) as answered:
        return answered.status, answered.read()


def test_a_monitor_killed_after_sending_sends_the_same_alarm_again(
    prod: EnvironmentDescriptor, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.monitoring.send_alarm.mark_sent", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(prod, 0, "errors")
    run(prod, 0, "errors")
    assert len(bus.sent) == 2
    assert bus.sent[0] == bus.sent[1], "it has the same id, so GitHub's side does it once"


def test_two_monitors_at_once_write_one_decision(prod: EnvironmentDescriptor, bus: Bus) -> None:
    run(prod, 0, "errors", prefix="")
    (decision,) = read_decisions(prod, "m1")[0]
    response_records.write_decision(
        prod, decision.model_copy(update={"decided": decision.decided + timedelta(seconds=1)})
    )
    assert read_decisions(prod, "m1")[0] == [decision]


def test_a_decision_that_nobody_can_read_stops_the_monitor(prod: EnvironmentDescriptor, bus: Bus) -> None:
    store.put_new(prod.logs_bucket, "monitoring/models/m1/responses/20260301T000000Z-x.json", b"{}")
    with pytest.raises(MlopsError, match="is not a decision"):
        run(prod, 0, "errors")


def test_the_newest_reports_are_judged_as_the_declaration_says(prod: EnvironmentDescriptor, bus: Bus) -> None:
    model = Project(PROJECT).model("diabetes-progression")
    lines: list[str] = []
    for day in range(2):
        written = report(day, "errors").model_copy(update={"model": model.name})
        write_report(prod, written, b"<html>")
        respond_to_newest(prod, model, "mlops-prod", START + (day + 1) * DAY, lines.append)
        assert len(bus.sent) == day, "the declaration asks for two windows of three"
    newest = report_names(prod, model.name, "models")[0]
    assert f'"report": "{newest}"' in bus.sent[0]["Detail"]


def test_reports_of_a_day_with_a_wrong_clock_do_not_hide_those_after_it(prod: EnvironmentDescriptor, bus: Bus) -> None:
    """A monitor runs hourly, so the newest names would all be of the future."""
    model = Project(PROJECT).model("diabetes-progression")
    for hour in range(24):
        moment = START + 9 * DAY + timedelta(hours=hour)
        fine = report(0).model_copy(update={"model": model.name, "time": moment, "window_end": moment})
        write_report(prod, fine, b"<html>")
    lines: list[str] = []
    for day in range(2):
        write_report(prod, report(day, "errors").model_copy(update={"model": model.name}), b"<html>")
        respond_to_newest(prod, model, "mlops-prod", START + (day + 1) * DAY, lines.append)
    assert len(bus.sent) == 1
    assert "reports of the future do not count, such as 20260310T230000Z-aaaaaaaaaaaa" in lines[0]


def test_without_reports_nothing_happens(prod: EnvironmentDescriptor, bus: Bus) -> None:
    model = Project(PROJECT).model("diabetes-progression")
    assert respond_to_newest(prod, model, "mlops-prod", START, print) is None
    assert bus.sent == []
