"""Counters of the requests that a canary took copies of: its answers, and those of the live pods to the same requests.

The canary counts both sides, so both come from one reading of its metrics, and each request is in both or in neither.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from pipelines.declarations.errors import MlopsError
from pipelines.serving.canary_analysis import RequestTotals
from pipelines.serving.pod_counters import CountedProcesses, ServiceCounters, read_metrics
from pipelines.serving.probe import EndpointClient
from pipelines.serving.shadow_protocol import COPIES, ORIGINAL, SHADOW


@dataclass
class OriginalCounters:
    """Counters of the live pods' answers to the requests that a canary took copies of.

    Attributes:
        readings: metrics that were read from the canary since the last look; a look takes them.
        p99_seconds: requests above this are slow.
        problem: see `pod_counters.RequestCounters`.
    """

    readings: list[str]
    p99_seconds: float
    problem: str = ""
    _counted: CountedProcesses = field(default_factory=CountedProcesses)

    def look(self) -> None:
        """Count what was read."""
        while self.readings:
            with suppress(MlopsError):  # the counters of the canary report it
                self._counted.note(*read_metrics(self.readings.pop(0), self.p99_seconds, ORIGINAL))

    @property
    def totals(self) -> RequestTotals:
        """Answers of the live pods to the copied requests, since the first look at each pod of the canary."""
        return self._counted.totals


def copy_counters(url: str, model: str, p99_seconds: float, timeout: float) -> tuple[ServiceCounters, OriginalCounters]:
    """Return the counters of both sides of the copied requests. Look at the first one first.

    Args:
        url: URL of the Service in front of the canary.
        model: name of the model.
        p99_seconds: requests above this are slow.
        timeout: timeout of a request, in seconds.
    """
    client = EndpointClient(url, model, timeout=timeout, keep_alive=False)
    readings: list[str] = []

    def read() -> str:
        text = client.get_text("/metrics")
        readings.append(text)
        return text

    return ServiceCounters(read, p99_seconds, SHADOW), OriginalCounters(readings, p99_seconds)


def can_copy(url: str, model: str, timeout: float) -> bool:
    """Return whether the live pods can copy requests: they were started with `serving.shadow` declared.

    Args:
        url: URL of the Service in front of the live pods.
        model: name of the model.
        timeout: timeout of the request, in seconds.

    Raises:
        UnavailableError: they do not answer.
        MlopsError: they answer with an error.
    """
    return f"{COPIES}_total" in EndpointClient(url, model, timeout=timeout, keep_alive=False).get_text("/metrics")
