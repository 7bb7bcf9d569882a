"""Protocol of copied requests between live pods, canaries and canary checks.

A live pod sends a copy as `POST /shadow/infer`, with the body of the request and what the live pod made of it:

    live-answer: <status> <seconds> <prediction, or - if there is none>

The response is 202 without content.
"""

from __future__ import annotations

import re
from math import inf
from typing import NamedTuple

from pipelines.serving.request_error import RequestError

SHADOW_PATH = "/shadow/infer"
"""Path of copies. The load balancer routes `/v2` only, so callers do not reach it."""

TAKEN = 202
"""Status of the response to a copy that the canary has answered and counted."""

LIVE_ANSWER = b"live-answer"
"""Header with the live pod's answer."""

SHADOW, ORIGINAL = "shadow_", "original_"
"""Prefixes of the metrics of both sides: of the canary and of the live pods."""

COPIES = "inference_shadow_copies"
"""Metric of the copies that a live pod has sent or lost. Only a pod that can copy has it."""

_NUMBER = rb"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-][0-9]{1,3})?"
_FIGURES = re.compile(rb"([1-5][0-9]{2}) (%b) (-|-?%b)" % (_NUMBER, _NUMBER))


class AnswerFigures(NamedTuple):
    """A pod's answer to a request, as numbers.

    Attributes:
        status: HTTP status.
        seconds: time from the headers of the request to its response.
        prediction: prediction of the answer, as the metrics count it; None if there is none.
    """

    status: int
    seconds: float
    prediction: float | None

    def to_header(self) -> bytes:
        """Return the value of the header."""
        prediction = "-" if self.prediction is None else repr(float(self.prediction))
        return f"{self.status} {self.seconds!r} {prediction}".encode()

    @classmethod
    def from_header(cls, value: bytes) -> AnswerFigures:
        """Read the value of the header.

        Raises:
            RequestError: 400: it is not valid.
        """
        found = _FIGURES.fullmatch(value)
        if found is None or float(found[2]) == inf:
            raise RequestError(400, f"header {LIVE_ANSWER.decode()}: expected status, seconds and prediction")
        return cls(int(found[1]), float(found[2]), None if found[3] == b"-" else float(found[3]))
