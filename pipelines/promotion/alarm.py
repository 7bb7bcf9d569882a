"""An alarm, as it reaches GitHub: a `repository_dispatch` event."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import StringConstraints

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration, first_problem
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name

LARGEST = 1 << 20


class Alarm(Declaration):
    """What a monitor raised.

    Attributes:
        kind: `drift` of the data, or `breach` of a bound on quality or fairness.
        model, environment: what it is about.
        reason: what was found, in words.
        bundle: that was found bad, where the monitor knows it.
    """

    kind: Literal["drift", "breach"]
    model: Name
    environment: Name
    reason: Annotated[str, StringConstraints(min_length=1, max_length=400)]
    bundle: Digest | None = None


def read_alarm(content: bytes) -> Alarm:
    """The alarm in a `repository_dispatch` event, which comes from outside and is trusted in nothing.

    Raises:
        MlopsError: it is not such an event.
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
            f"the event is no alarm: {detail}",
            fix="send event_type drift or breach, with client_payload {model, environment, reason, bundle}",
        ) from None
