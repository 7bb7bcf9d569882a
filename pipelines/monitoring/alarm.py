"""Alarms, which reach GitHub as `repository_dispatch` events."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, model_validator

from pipelines.declarations.alarm_events import ALARM_EVENT
from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration, first_problem
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model_responses import ActiveResponse
from pipelines.declarations.names import Name
from pipelines.declarations.project import Project

LARGEST = 1 << 20
"""Size limit of an event, in bytes."""

LONGEST_REASON = 400
"""Characters of a reason."""

AlarmId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}[a-z0-9]$")]
"""Identity of an alarm: a second alarm with the same id is the same alarm."""

_RESPONSES: dict[str, ActiveResponse] = {"drift": "retrain", "breach": "roll-back"}


class Alarm(Declaration):
    """A decision of a monitor that a model needs attention.

    Attributes:
        kind: `alarm`, which names its response; or `drift` (retrain) or `breach` (roll back).
        model, environment: the deployment it concerns.
        reason: what the monitor found, in words.
        bundle: digest of the bundle found bad, if the monitor knows it.
        response: what to do; None if the kind says it.
        id: identity of the alarm; None if its sender gave none. Then each event is a new alarm.
        checks: the checks of the monitor that were an alarm.
        monitor: name of the monitor.
        report: name of the report.
    """

    kind: Literal["drift", "breach", "alarm"]
    model: Name
    environment: Name
    reason: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_REASON)]
    bundle: Digest | None = None
    response: ActiveResponse | None = None
    id: AlarmId | None = None
    checks: tuple[Name, ...] = ()
    monitor: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    report: Annotated[str, StringConstraints(pattern=r"^[\w][\w.-]{0,127}$")] | None = None

    @model_validator(mode="after")
    def _says_what_to_do(self) -> Alarm:
        if (self.kind == ALARM_EVENT) != (self.response is not None):
            raise ValueError("response if, and only if, the event type is alarm; found the opposite")
        return self

    @property
    def wanted(self) -> ActiveResponse:
        """The response that the alarm requests."""
        return self.response or _RESPONSES[self.kind]

    def payload(self) -> dict[str, Any]:
        """Return `client_payload` of the event: at most ten keys, as GitHub allows."""
        return self.model_dump(mode="json", exclude={"kind"}, exclude_none=True)


_KEYS = tuple(name for name in Alarm.model_fields if name != "kind")


def read_alarm(content: bytes) -> Alarm:
    """Read an alarm from a `repository_dispatch` event, which is untrusted input.

    Raises:
        MlopsError: the event is not an alarm.
    """
    if len(content) > LARGEST:
        raise MlopsError(f"the event has {len(content)} bytes; expected at most {LARGEST}")
    try:
        event = json.loads(content)
        payload = event["client_payload"]
        value = {"kind": event["action"], **{key: payload[key] for key in ("model", "environment", "reason")}}
        value |= {key: payload[key] for key in _KEYS if payload.get(key) is not None}
        return Alarm.model_validate_json(json.dumps(value))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = first_problem(error) if isinstance(error, ValueError) else repr(error)
        raise MlopsError(
            f"the event is not an alarm: {detail}",
            fix="send event_type drift or breach with client_payload {model, environment, reason, bundle}, or alarm "
            "with response as well",
        ) from None


def read_declared_alarm(project: Project, content: bytes) -> Alarm:
    """Read an alarm about a model and an environment that the project declares.

    Raises:
        MlopsError: the event is not an alarm, or the project declares no such model or environment.
    """
    alarm = read_alarm(content)
    project.model(alarm.model)
    project.stack(alarm.environment)
    return alarm
