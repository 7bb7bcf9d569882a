"""Shadow traffic: live pods copy requests to a canary before it has callers.

See docs/decisions/0057-copy-requests-to-a-canary-before-it-has-callers.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pipelines.declarations.documents import Declaration

MOST_PERCENT = 50
"""Greatest share of the requests that live pods copy, in percent."""

SHADOW_PEERS = "SHADOW_PEERS"
"""Environment variable of a serving pod: its `ShadowPeers` as JSON. A pod without it neither sends nor takes copies."""

SHADOW_PERCENT = "CHECK_SHADOW_PERCENT"
"""Environment variable of a canary check: the share of the requests to copy; 0 or missing in a traffic step."""

Percent = Annotated[int, Field(ge=1, le=MOST_PERCENT)]
Url = Annotated[str, StringConstraints(pattern=r"^http://[a-z0-9.-]+(:[0-9]{1,5})?$", max_length=300)]


class ShadowStep(Declaration):
    """First step of a rollout: live pods copy requests to the new bundle, whose answers are discarded.

    Attributes:
        percent: share of the answered requests that are copied.
        pause_seconds: how long to copy them, unless the canary check stops the release before.
    """

    percent: Percent = 10
    pause_seconds: Annotated[int, Field(ge=0, le=86_400)]


class ShadowPeers(Declaration):
    """Services that a live pod needs to copy requests.

    Attributes:
        beacon: URL of the Service of the canary check, which answers during a shadow step.
        ping, pong: URLs of the two Services of the endpoint. One of them selects the canary.
    """

    beacon: Url
    ping: Url
    pong: Url


class ShadowTarget(Declaration):
    """Answer of the beacon: where to send copies.

    Attributes:
        canary: the Service in front of the canary.
        percent: share of the answered requests to copy.
    """

    canary: Literal["ping", "pong"]
    percent: Percent
