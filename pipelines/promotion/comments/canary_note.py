"""Note on the coming canary checks, for the comment on a release's pull request."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.declarations.model import Serving
from pipelines.serving.canary_analysis import POWER, requests_needed

_UNKNOWN_ERROR_RATE = 0.001
_COMPARED = "Latency, and the mean and the distribution of predictions, are compared as well."


@dataclass(frozen=True)
class LiveTraffic:
    """Requests to the live bundle of an endpoint.

    Attributes:
        requests: number of requests.
        errors: number of those that ended in a server error.
        seconds: time in which they were counted.
    """

    requests: int
    errors: int
    seconds: float


def canary_note(serving: Serving, environment: str, pauses: bool, traffic: LiveTraffic | None) -> list[str]:
    """Return how many requests, and how much time, each traffic step needs for a verdict; empty without steps.

    Args:
        serving: the model's declaration.
        environment: name of the environment.
        pauses: True if the environment pauses a canary without a verdict.
        traffic: recent traffic of the endpoint; None if it is not known.
    """
    if not serving.rollout:
        return []
    counted = traffic if traffic is not None and traffic.requests else None
    base = (counted.errors + 0.5) / (counted.requests + 1) if counted else _UNKNOWN_ERROR_RATE
    steps = []
    if (shadow := serving.shadow) is not None:
        # A copy counts on both sides.
        copies = math.ceil(requests_needed(0.5, base, serving.canary.error_increase) / 2)
        time = f", {duration(copies * counted.seconds / counted.requests * 100 / shadow.percent)}" if counted else ""
        steps.append(f"before any traffic, with {shadow.percent} % copied, about {copies:,} copies{time}")
    for step in serving.rollout:
        needed = requests_needed(step.weight / 100, base, serving.canary.error_increase)
        time = f", {duration(needed * counted.seconds / counted.requests)}" if counted else ""
        steps.append(f"at {step.weight} % about {needed:,} requests{time}")
    points = f"{100 * serving.canary.error_increase:g} percentage points"
    found = f"An error rate that is {points} higher is found in {100 * POWER:g} % of cases"
    rate = (
        f"The time is at the rate of the last day, {counted.requests / counted.seconds:.3g} requests per second."
        if counted
        else "The present rate of requests is not known."
    )
    without = (
        f"Without a verdict, {environment} pauses the release."
        if pauses
        else f"Without a verdict, the release goes on: in {environment}, correct golden requests are enough."
    )
    return ["**Canary check**", "", f"{found}: {'; '.join(steps)}. {rate} {without} {_COMPARED}", ""]


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for limit, size, unit in ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < limit:
            return f"{max(1, round(seconds / size)):,} {unit}"
    return f"{round(seconds / 86_400):,} days"
