"""Delivery of events to API destinations, which moto leaves out: to the laptop's GitHub, with EventBridge's retries.

EventBridge tries again after a timeout and after the statuses 401, 407, 409, 429 and 5xx, with an exponential back-off,
until the target's retry policy ends it. Then, or at once after another refusal, the event goes to the target's
dead-letter queue. Source: Amazon EventBridge user guide, "API destinations", "How EventBridge retries delivering
events" and "Using dead-letter queues".
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from laptop.aws.access.policy import Caller, Grants, Need, parse, refusal
from laptop.aws.access.principals import ACCOUNT, Principals

GITHUB_API = "api.github.com"
"""Host for which the laptop's GitHub answers. Nothing is sent elsewhere."""

GITHUB = "github"
"""Folder of the laptop's GitHub in its home: `laptop.lifecycle.HOSTED`, which takes long to import."""

SERVICE = "events.amazonaws.com"
RETRIED = frozenset({401, 407, 409, 429})
UNREACHABLE = 503

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
"""Pauses between attempts. Those of EventBridge are longer, and not documented."""

_MOST_ATTEMPTS = 185
_LONGEST_AGE_SECONDS = 24 * 60 * 60

Send = Callable[[str, str, Mapping[str, str], Mapping[str, Any]], int]
"""Sends a request to a host: (method, URL, headers, body) → HTTP status."""


@dataclass(frozen=True)
class PendingEvent:
    """An event on its way to one target.

    Attributes:
        event: the whole event.
        body: what the target gets.
        rule: ARN of the rule.
        target: the target as in PutTargets.
        region: region of the bus.
        since: when it was put, on the clock of this process.
        attempts: number of attempts so far.
    """

    event: Mapping[str, Any]
    body: Mapping[str, Any]
    rule: str
    target: Mapping[str, Any]
    region: str
    since: float
    attempts: int = 0


class EventDelivery:
    """Delivers events in a background thread.

    Args:
        principals: roles of the account.
        turn: held while the account is read or changed.
        send: sends a request.
        first_pause: seconds until the second attempt.
        clock: returns seconds.
    """

    def __init__(
        self,
        principals: Principals,
        turn: threading.Lock,
        send: Send,
        *,
        first_pause: float = FIRST_PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._principals = principals
        self._turn = turn
        self._send = send
        self._first_pause = first_pause
        self._clock = clock
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, PendingEvent]] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def accept(
        self, event: Mapping[str, Any], body: Mapping[str, Any], rule: str, target: Mapping[str, Any], region: str
    ) -> None:
        """Take an event that a rule matched; it is delivered later."""
        self._schedule(PendingEvent(event, body, rule, target, region, self._clock()), 0.0)

    def pending(self) -> int:
        """Return the number of events that wait for an attempt."""
        with self._changed:
            return len(self._waiting)

    def _schedule(self, pending: PendingEvent, seconds: float) -> None:
        with self._changed:
            heapq.heappush(self._waiting, (self._clock() + seconds, next(self._order), pending))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting or (wait := self._waiting[0][0] - self._clock()) > 0:
                    self._changed.wait(wait if self._waiting else None)
                _, _, pending = heapq.heappop(self._waiting)
            try:
                self.attempt(pending)
            except Exception:  # one event must not hold up the others; the account's log has the reason
                traceback.print_exc()

    def attempt(self, pending: PendingEvent) -> None:
        """Try to deliver an event once; schedule the next attempt, or send it to the dead-letter queue."""
        with self._turn:
            prepared = self._prepare(pending)
        if isinstance(prepared, tuple):
            code, message = prepared
            self._give_up(pending, code, message)
            return
        try:
            status = self._send(prepared["method"], prepared["url"], prepared["headers"], pending.body)
        except Exception as error:  # the worker goes on; for the event, it is a target that does not answer
            status, reason = UNREACHABLE, str(error)
        else:
            reason = f"the target answered {status}"
        if 200 <= status < 300:
            return
        if not (status in RETRIED or status >= 500):
            self._give_up(pending, "INVALID_PARAMETER", reason)
            return
        attempts, policy = pending.attempts + 1, pending.target.get("RetryPolicy") or {}
        pause = min(self._first_pause * 2**pending.attempts, LONGEST_PAUSE_SECONDS) * random.uniform(0.8, 1.2)  # noqa: S311
        age = self._clock() + pause - pending.since
        again = PendingEvent(**{**vars(pending), "attempts": attempts})
        if attempts > int(policy.get("MaximumRetryAttempts", _MOST_ATTEMPTS)):
            self._give_up(again, "SDK_CLIENT_ERROR", reason, "MaximumRetryAttempts")
        elif age > float(policy.get("MaximumEventAgeInSeconds", _LONGEST_AGE_SECONDS)):
            self._give_up(again, "SDK_CLIENT_ERROR", reason, "MaximumEventAgeInSeconds")
        else:
            self._schedule(again, pause)

    def _prepare(self, pending: PendingEvent) -> dict[str, Any] | tuple[str, str]:
        """Return the request for a target, or the error code and message of a target that cannot be called."""
        from moto.events.models import events_backends

        backend = events_backends[ACCOUNT][pending.region]
        arn = str(pending.target["Arn"])
        destination = backend.destinations.get(arn.split("/")[1])
        if destination is None:
            return "RESOURCE_NOT_FOUND", f"the API destination {arn} does not exist"
        denied = self._denied(str(pending.target.get("RoleArn") or ""), arn, pending.rule)
        if denied:
            return "NO_PERMISSIONS", denied
        connection = next((one for one in backend.connections.values() if one.arn == destination.connection_arn), None)
        if connection is None:
            return "RESOURCE_NOT_FOUND", f"the connection {destination.connection_arn} does not exist"
        key = (connection.auth_parameters or {}).get("ApiKeyAuthParameters") or {}
        headers = dict((pending.target.get("HttpParameters") or {}).get("HeaderParameters") or {})
        if key:
            headers[str(key["ApiKeyName"])] = str(key["ApiKeyValue"])
        return {"method": destination.http_method, "url": destination.invocation_endpoint, "headers": headers}

    def _denied(self, role: str, destination: str, rule: str) -> str:
        """Return why EventBridge may not call a destination with a role; "" if it may."""
        context = {"aws:sourcearn": (rule,), "aws:sourceaccount": (ACCOUNT,)}
        service = Caller(SERVICE, frozenset(), "", SERVICE)
        held = self._principals.role(role)
        if held is None:
            return f"the role {role} does not exist"
        trust = self._principals.trust_of(role) or {"Statement": []}
        assumed = Need("sts:AssumeRole", role, context, trust, policy_rules=True)
        why = refusal(service, Grants(), assumed, context)
        if why is None:
            why = refusal(held[0], held[1], Need("events:InvokeApiDestination", destination), {})
        return why or ""

    def _give_up(self, pending: PendingEvent, code: str, message: str, exhausted: str = "") -> None:
        """Send an event to the dead-letter queue of its target, if it has one that accepts it."""
        from moto.sqs.models import sqs_backends

        queue_arn = str((pending.target.get("DeadLetterConfig") or {}).get("Arn") or "")
        if not queue_arn:
            return
        name = queue_arn.rpartition(":")[2]
        attributes = {
            "RULE_ARN": pending.rule,
            "TARGET_ARN": pending.target["Arn"],
            "ERROR_CODE": code,
            "ERROR_MESSAGE": message,
            "RETRY_ATTEMPTS": str(pending.attempts),
            **({"EXHAUSTED_RETRY_CONDITION": exhausted} if exhausted else {}),
        }
        with self._turn:
            backend = sqs_backends[ACCOUNT][pending.region]
            queue = backend.queues.get(name)
            if queue is None or self._queue_refuses(queue, queue_arn, pending.rule):
                return
            backend.send_message(
                queue_name=name,
                message_body=json.dumps(pending.event, default=str),
                message_attributes={
                    key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()
                },
            )

    def _queue_refuses(self, queue: Any, queue_arn: str, rule: str) -> bool:
        text = queue.policy
        if not text:
            return True
        policy = parse(text if isinstance(text, str) else json.dumps(text), f"the queue {queue_arn}")
        context = {"aws:sourcearn": (rule,), "aws:sourceaccount": (ACCOUNT,)}
        need = Need("sqs:SendMessage", queue_arn, context, policy)
        return refusal(Caller(SERVICE, frozenset(), "", SERVICE), Grants(), need, context) is not None


def patch_rules(delivery: EventDelivery) -> None:
    """Make moto's rules pass events for API destinations on; its other targets stay as they are."""
    from moto.events.models import Connection, Rule
    from moto.events.utils import EventTemplateParser

    original = Rule.send_to_targets

    def send(self: Any, original_event: Any, transform_input: bool = True) -> None:
        original(self, original_event, transform_input)
        if self.state == "DISABLED" or not self.event_pattern.matches_event(original_event):
            return
        for target in self.targets:
            if ":api-destination/" not in target["Arn"]:
                continue
            transformer = target.get("InputTransformer", {})
            body = EventTemplateParser.parse(
                input_template=transformer.get("InputTemplate"),
                input_paths_map=transformer.get("InputPathsMap", {}),
                event=original_event,
            )
            delivery.accept(dict(original_event), body, self.arn, dict(target), self.region_name)

    Rule.send_to_targets = send  # type: ignore[method-assign]
    describe = Connection.describe

    def without_value(self: Any) -> dict[str, Any]:
        """Return a connection without the value of its key, as EventBridge does."""
        found: dict[str, Any] = describe(self)
        parameters = dict(found.get("AuthParameters") or {})
        if "ApiKeyAuthParameters" in parameters:
            parameters["ApiKeyAuthParameters"] = {"ApiKeyName": parameters["ApiKeyAuthParameters"]["ApiKeyName"]}
        return {**found, "AuthParameters": parameters}

    Connection.describe = without_value  # type: ignore[method-assign]


class HostedGitHub:
    """Sends requests for GitHub's API to the laptop's GitHub.

    Args:
        folder: folder of the laptop's GitHub.
        faults: returns the faults that the laptop has now.
    """

    def __init__(self, folder: Path, faults: Callable[[], Collection[str]]) -> None:
        self._folder = folder
        self._faults = faults

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> int:
        """Send a request and return the status. Any other host counts as unreachable."""
        from laptop.github.forge.actors import RequestDeniedError
        from laptop.github.forge.github_server import GitHubServer
        from laptop.github.forge.rest_api import request

        where = urlsplit(url)
        if where.hostname != GITHUB_API or "github-down" in self._faults():
            return UNREACHABLE
        server = GitHubServer(self._folder)
        if not server.state.exists():
            return UNREACHABLE
        try:
            actor = server.authenticate(headers.get("Authorization", "").removeprefix("Bearer "))
            request(server, actor, method, where.path.lstrip("/"), body)
        except RequestDeniedError as error:
            return error.status
        return 204
