"""Events of a rule with an API destination reach the laptop's GitHub once, later if something is down, or the queue."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from laptop import lifecycle
from laptop.aws import event_delivery
from laptop.aws.access.principals import Principals
from laptop.aws.account import Account, start
from laptop.aws.cloud import Cloud
from laptop.aws.event_delivery import EventDelivery, PendingEvent
from laptop.faults import Faults
from laptop.github.forge.actors import person
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.hub import Hub
from laptop.tests.github.sample_repository import hub_with
from pipelines.declarations.alarm_events import NO_TOKEN
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model_responses import Hysteresis, ModelResponses
from pipelines.monitoring.response_records import read_decisions
from pipelines.monitoring.send_alarm import respond_to_reports
from tests.aws import make_environment
from tests.pipelines.monitoring.test_response_policy import report

pytestmark = pytest.mark.slow

RULES = {"ArnLike": {"aws:SourceArn": "arn:aws:events:eu-west-1:123456789012:rule/mlops-dev-*"}}
SOURCE = "mlops-dev.monitor.m1"
DETAIL = {"model": "m1", "environment": "dev", "reason": 'a "quoted" reason', "response": "ask"}
WAIT_SECONDS = 20.0


@dataclass
class Delivering:
    """An account whose rule delivers alarms to a hosted repository."""

    account: Account
    hub: Hub
    client: Callable[[str], Any]
    queue: str

    def put(self, source: str = SOURCE, events: Any = None, **detail: Any) -> Any:
        entry = {"Source": source, "DetailType": "alarm", "Detail": json.dumps({**DETAIL, **detail})}
        return (events or self.client("events")).put_events(Entries=[entry])

    def arrived(self) -> list[dict[str, Any]]:
        """Return the payloads of the events that arrived."""
        return [one["payload"] for one in self.hub.server.state.read()["events"]]

    def await_arrivals(self, number: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = wait_for(self.arrived, lambda found: len(found) >= number)
        return found

    def await_dead(self) -> dict[str, str]:
        """Return the attributes of the one message of the dead-letter queue."""

        def receive() -> list[Any]:
            asked = {"QueueUrl": self.queue, "MessageAttributeNames": ["All"]}
            return list(self.client("sqs").receive_message(**asked).get("Messages", []))

        (message,) = wait_for(receive, bool)
        assert json.loads(message["Body"])["detail"] == DETAIL
        self.client("sqs").delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
        return {key: value["StringValue"] for key, value in message["MessageAttributes"].items()}

    def set_token(self, token: str) -> None:
        self.client("events").update_connection(
            Name="mlops-dev-github",
            AuthorizationType="API_KEY",
            AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "Authorization", "ApiKeyValue": f"Bearer {token}"}},
        )

    def set_retries(self, retries: int) -> None:
        (target,) = self.client("events").list_targets_by_rule(Rule="mlops-dev-alarm-m1")["Targets"]
        target["RetryPolicy"] = {"MaximumRetryAttempts": retries, "MaximumEventAgeInSeconds": 3600}
        self.client("events").put_targets(Rule="mlops-dev-alarm-m1", Targets=[target])


def wait_for(look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not enough(found := look()):
        assert time.monotonic() < deadline, f"only {found} within {WAIT_SECONDS:g} s"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    running = start(tmp_path_factory.mktemp("laptop") / "aws")
    yield running
    running.stop()


@pytest.fixture
def delivering(account: Account, tmp_path: Path) -> Iterator[Delivering]:
    """Set up what infra/components/alarm_delivery.py does, with a token."""
    client = Cloud(account.environ(), account.home).client
    hub = hub_with(tmp_path, {"README": "x"}, RepositorySettings(users=("maria",)))
    folder = account.home.parent / event_delivery.GITHUB
    folder.symlink_to(hub.server.folder)
    iam, events, sqs = client("iam"), client("events"), client("sqs")
    trust: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}}
    trust |= {"Action": "sts:AssumeRole", "Condition": RULES}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="delivery", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    allow(client, "delivery", "arn:aws:events:eu-west-1:123456789012:api-destination/mlops-dev-*")
    arn = "arn:aws:sqs:eu-west-1:123456789012:undelivered"
    send = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    send |= {"Resource": arn, "Condition": RULES}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [send]})
    queue = sqs.create_queue(QueueName="undelivered", Attributes={"Policy": policy})["QueueUrl"]
    connection = events.create_connection(
        Name="mlops-dev-github",
        AuthorizationType="API_KEY",
        AuthParameters={"ApiKeyAuthParameters": {"ApiKeyName": "Authorization", "ApiKeyValue": NO_TOKEN}},
    )["ConnectionArn"]
    destination = events.create_api_destination(
        Name="mlops-dev-github",
        ConnectionArn=connection,
        HttpMethod="POST",
        InvocationEndpoint="https://api.github.com/repos/acme/mlops/dispatches",
    )["ApiDestinationArn"]
    pattern = {"source": [SOURCE], "detail-type": ["alarm"], "detail": {"model": ["m1"], "environment": ["dev"]}}
    events.put_rule(Name="mlops-dev-alarm-m1", EventPattern=json.dumps(pattern))
    template = '{"event_type":"alarm","client_payload":<detail>}'
    target = {"Id": "github", "Arn": destination, "RoleArn": role, "DeadLetterConfig": {"Arn": arn}}
    target["InputTransformer"] = {"InputPathsMap": {"detail": "$.detail"}, "InputTemplate": template}
    events.put_targets(Rule="mlops-dev-alarm-m1", Targets=[target])
    made = Delivering(account, hub, client, queue)
    made.set_token(hub.server.issue_token(person("maria")))
    yield made
    events.remove_targets(Rule="mlops-dev-alarm-m1", Ids=["github"])
    events.delete_rule(Name="mlops-dev-alarm-m1")
    events.delete_api_destination(Name="mlops-dev-github")
    events.delete_connection(Name="mlops-dev-github")
    sqs.delete_queue(QueueUrl=queue)
    iam.delete_role_policy(RoleName="delivery", PolicyName="workload")
    iam.delete_role(RoleName="delivery")
    folder.unlink()


def allow(client: Callable[[str], Any], role: str, resource: str) -> None:
    statement = {"Effect": "Allow", "Action": "events:InvokeApiDestination", "Resource": resource}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    client("iam").put_role_policy(RoleName=role, PolicyName="workload", PolicyDocument=document)


def test_the_folder_is_that_of_the_hosted_repository() -> None:
    assert event_delivery.GITHUB == lifecycle.HOSTED


def test_an_event_starts_a_repository_dispatch_with_its_detail(delivering: Delivering) -> None:
    delivering.put()
    (payload,) = delivering.await_arrivals(1)
    assert payload["action"] == "alarm"
    assert payload["client_payload"] == DETAIL
    assert payload["sender"]["login"] == "maria"


def test_other_events_do_not_arrive(delivering: Delivering) -> None:
    delivering.put(source="mlops-prod.monitor.m1")
    delivering.put(model="m2")
    delivering.put(environment="prod")
    delivering.put()
    assert [one["client_payload"] for one in delivering.await_arrivals(1)] == [DETAIL]


def test_an_event_while_github_is_down_arrives_later_and_once(delivering: Delivering) -> None:
    Faults(delivering.account.home.parent).inject("github-down", 1.5)
    delivering.put()
    began = time.monotonic()
    assert delivering.arrived() == []
    assert len(delivering.await_arrivals(1)) == 1
    assert time.monotonic() - began > 1.0
    delivering.put(reason="another")
    assert len(delivering.await_arrivals(2)) == 2


def test_eventbridge_that_is_down_takes_no_event(delivering: Delivering) -> None:
    Faults(delivering.account.home.parent).inject("eventbridge-down", 30)
    try:
        once = boto3.client(
            "events",
            endpoint_url=delivering.account.endpoint,
            region_name="eu-west-1",
            **Cloud(delivering.account.environ(), delivering.account.home)._credentials(),
        )
        once.meta.events.register("needs-retry.events", lambda **_: None)
        with pytest.raises(ClientError, match="InternalException"):
            delivering.put(events=once)
    finally:
        Faults(delivering.account.home.parent).inject("eventbridge-down", -1)
    delivering.put()
    assert len(delivering.await_arrivals(1)) == 1


def test_an_alarm_of_a_monitor_outlives_outages_of_eventbridge_and_github_and_arrives_once(
    delivering: Delivering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monitor's own code decides, fails to send, sends with its next run, and never again."""
    for name, value in {**delivering.account.environ(), "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    dev, faults, lines = make_environment("dev"), Faults(delivering.account.home.parent), list[str]()
    policy = ModelResponses(hysteresis=Hysteresis(alarms=1, of=1))

    def run(day: int, *checks: str) -> None:
        found = report(day, *checks).model_copy(update={"environment": "dev"})
        respond_to_reports(dev, "m1", [found], policy, found.time, "mlops-dev", lines.append)

    faults.inject("eventbridge-down", 60)
    faults.inject("github-down", 60)
    with pytest.raises(MlopsError, match="was not sent"):
        run(0, "errors")
    faults.inject("eventbridge-down", -1)
    run(1)
    ((decision,), unsent) = read_decisions(dev, "m1")
    assert unsent == [], "EventBridge has it"
    assert delivering.arrived() == []
    faults.inject("github-down", -1)
    (payload,) = delivering.await_arrivals(1)
    assert payload["client_payload"]["id"] == decision.id
    run(2)
    delivering.put(reason="the last")
    assert [one["client_payload"]["reason"] for one in delivering.await_arrivals(2)] == [decision.reason, "the last"]


def test_a_token_that_is_not_set_is_tried_again_and_ends_in_the_queue(delivering: Delivering) -> None:
    delivering.set_token("wrong")
    delivering.set_retries(2)
    delivering.put()
    dead = delivering.await_dead()
    assert (dead["ERROR_CODE"], dead["EXHAUSTED_RETRY_CONDITION"]) == ("SDK_CLIENT_ERROR", "MaximumRetryAttempts")
    assert dead["ERROR_MESSAGE"] == "the target answered 401"
    assert delivering.arrived() == []


def test_a_role_without_the_right_sends_the_event_to_the_queue_at_once(delivering: Delivering) -> None:
    allow(delivering.client, "delivery", "arn:aws:events:eu-west-1:123456789012:api-destination/other-*")
    delivering.put()
    dead = delivering.await_dead()
    assert dead["ERROR_CODE"] == "NO_PERMISSIONS" and "events:InvokeApiDestination" in dead["ERROR_MESSAGE"]


def test_a_request_that_github_refuses_for_good_is_not_repeated(delivering: Delivering) -> None:
    """Eleven keys are more than GitHub takes: 422."""
    many: dict[str, Any] = {f"key{number}": 1 for number in range(8)}
    delivering.put(**many)

    def receive() -> list[Any]:
        return list(delivering.client("sqs").receive_message(QueueUrl=delivering.queue).get("Messages", []))

    assert wait_for(receive, bool)
    assert delivering.arrived() == []


def test_the_value_of_a_token_is_not_shown(delivering: Delivering) -> None:
    found = delivering.client("events").describe_connection(Name="mlops-dev-github")
    assert found["AuthParameters"] == {"ApiKeyAuthParameters": {"ApiKeyName": "Authorization"}}


# --- the policy of retries, without an account


class Sender:
    """Answers with given statuses."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.calls = 0

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> int:
        self.calls += 1
        return self.statuses.pop(0)


def attempts(sender: Sender, monkeypatch: pytest.MonkeyPatch, **policy: int) -> tuple[list[float], list[str]]:
    """Return the pauses between the attempts for an event, and the codes with which it was given up."""
    pauses: list[float] = []
    given_up: list[str] = []
    delivery = EventDelivery(Principals(), threading.Lock(), sender)
    monkeypatch.setattr(delivery, "_prepare", lambda _: {"method": "POST", "url": "u", "headers": {}})
    monkeypatch.setattr(delivery, "_give_up", lambda _, code, *more: given_up.append(code))
    target = {"Arn": "a", "RetryPolicy": policy}
    waiting = [PendingEvent({}, {}, "rule", target, "r", time.monotonic())]

    def schedule(one: PendingEvent, pause: float) -> None:
        pauses.append(pause)
        waiting.append(one)

    monkeypatch.setattr(delivery, "_schedule", schedule)
    while waiting:
        delivery.attempt(waiting.pop())
    return pauses, given_up


def test_pauses_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(*[503] * 8, 204)
    pauses, given_up = attempts(sender, monkeypatch)
    assert given_up == []
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], rel=0.21)


@pytest.mark.parametrize("status", [401, 407, 409, 429, 500, 503])
def test_these_answers_are_tried_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = Sender(status, 204)
    assert attempts(sender, monkeypatch)[1] == []
    assert sender.calls == 2


@pytest.mark.parametrize("status", [301, 400, 403, 404, 422])
def test_these_are_not(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempts(Sender(status), monkeypatch) == ([], ["INVALID_PARAMETER"])


def test_an_event_that_is_too_old_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses, given_up = attempts(Sender(*[503] * 10), monkeypatch, MaximumEventAgeInSeconds=1)
    assert given_up == ["SDK_CLIENT_ERROR"]
    assert len(pauses) == 4, "the fifth pause would be longer than a second"
