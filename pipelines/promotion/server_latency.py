"""Latency of requests as the server measured it, from its Prometheus metrics. The network is not part of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from pipelines.declarations.errors import MlopsError

METRIC = "inference_request_seconds"


@dataclass(frozen=True)
class LatencyHistogram:
    """Number of requests by latency.

    Attributes:
        counts: upper bound in seconds → number of requests up to it; bounds ascend, and the last one is infinite.
    """

    counts: tuple[tuple[float, float], ...]

    @property
    def requests(self) -> int:
        """Number of requests."""
        return int(self.counts[-1][1])

    def since(self, earlier: LatencyHistogram) -> LatencyHistogram:
        """Return the requests that came after an earlier reading.

        Raises:
            MlopsError: the server restarted in between.
        """
        before = dict(earlier.counts)
        found = tuple((bound, count - before.get(bound, 0.0)) for bound, count in self.counts)
        if any(count < 0 for _, count in found):
            raise MlopsError("the server restarted while it was verified", fix="look at its log, then try again")
        return LatencyHistogram(found)

    def quantile_ms(self, share: float) -> float:
        """Return a quantile in milliseconds, interpolated in its bucket as Prometheus does.

        Args:
            share: 0.5 for the median.
        """
        wanted, lower, below = share * self.requests, 0.0, 0.0
        for bound, count in self.counts:
            if count >= wanted and count > below:
                if math.isinf(bound):
                    return lower * 1000
                return (lower + (bound - lower) * (wanted - below) / (count - below)) * 1000
            lower, below = bound, count
        return lower * 1000


def read_latency(metrics: str) -> LatencyHistogram:
    """Read the latency histogram of a server's metrics.

    Raises:
        MlopsError: the text has no such histogram.
    """
    counts: dict[float, float] = {}
    try:
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                if sample.name == f"{METRIC}_bucket":
                    counts[float(sample.labels["le"])] = sample.value
    except (ValueError, KeyError) as error:
        raise MlopsError(f"the server's metrics are not in the Prometheus text format: {error}") from None
    if not counts or not math.isinf(max(counts)):
        raise MlopsError(f"the server's metrics have no histogram {METRIC}")
    return LatencyHistogram(tuple(sorted(counts.items())))
