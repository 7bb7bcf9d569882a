"""Alarms, which reach GitHub as `repository_dispatch` events."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import StringConstraints

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration, first_problem
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name
from pipelines.declarations.project import Project

LARGEST = 1 << 20
"""Size limit of an event, in bytes."""


class Alarm(Declaration):
    """A decision of a monitor that a model needs attention.

    Attributes:
        kind: `drift` of the data, or `breach` of a bound on quality or fairness.
        model, environment: the deployment it concerns.
        reason: what the monitor found, in words.
        bundle: digest of the bundle found bad, if the monitor knows it.
    """

    kind: Literal["drift", "breach"]
    model: Name
    environment: Name
    reason: Annotated[str, StringConstraints(min_length=1, max_length=400)]
    bundle: Digest | None = None


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
        value["bundle"] = payload.get("bundle")
        return Alarm.model_validate_json(json.dumps(value))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = first_problem(error) if isinstance(error, ValueError) else repr(error)
        raise MlopsError(
            f"the event is not an alarm: {detail}",
            fix="send event_type drift or breach, with client_payload {model, environment, reason, bundle}",
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
