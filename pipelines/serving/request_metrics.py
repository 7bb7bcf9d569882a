"""Metrics of the server, in the Prometheus text format.

The event loop adds to plain numbers, which become metrics when they are scraped. The counters of `prometheus_client`
take a lock and several calls each, about a tenth of the time of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import log

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pipelines.serving.prediction_counts import PredictionCounts
from pipelines.serving.request_concurrency import RequestConcurrency

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram, in seconds: from one row of a linear model to a large batch of a forest."""

ABANDONED = 499
"""Status counted when a client disconnects before its request is complete. No response is sent."""

OVERLOADED = 503
"""Status of a request that the server refuses before it reads it. It says nothing about the bundle."""


class RequestMetrics(Collector):
    """Counters of the server. Only the event loop may write the plain numbers.

    Args:
        model: name of the model.
        bundle: digest of the bundle.
        process: names the server process, so that a reader notices a restart.

    Attributes:
        in_flight: inference requests being read.
        concurrency: average number of the requests that the event loop answers.
        rows: predicted rows.
        is_ready: True while the server takes requests.
        predictions: predictions of the answered requests.
    """

    def __init__(self, model: str, bundle: str, process: str = "") -> None:
        self.in_flight = 0
        self.concurrency = RequestConcurrency()
        self.rows = 0
        self.is_ready = False
        self.predictions = PredictionCounts()
        self._about = {"model": model, "bundle": bundle, "process": process}
        self._by_status = {200: 0}
        self._by_bucket = [0] * (len(BUCKETS) + 1)
        self._versioned_by_status = {200: 0}
        self._versioned_by_bucket = self._by_bucket.copy()
        self._versioned_seconds = 0.0
        self._seconds = 0.0
        self._log_seconds = self._log_seconds_squared = 0.0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._dropped = Counter(
            "inference_log_dropped_records",
            "Records of the inference log that were lost: the buffer was full, or writing failed for too long.",
            ["reason"],
            registry=self._registry,
        )
        for reason in ("buffer full", "write failed"):
            self._dropped.labels(reason)
        self._failed = Counter(
            "inference_log_write_failures", "Writes of the inference log that failed.", registry=self._registry
        )
        self._written = Counter(
            "inference_log_written_records", "Records of the inference log that were written.", registry=self._registry
        )

    def answered(self, status: int, seconds: float, *, is_versioned: bool = False) -> None:
        """Count one inference request by HTTP status and latency.

        Args:
            status: HTTP status.
            seconds: time from the headers of the request to its response.
            is_versioned: True if the request names a version. Only pods of that release answer it, so a comparison of
                two releases leaves it out.
        """
        try:
            self._by_status[status] += 1
        except KeyError:
            self._by_status[status] = 1
        bucket = bisect_left(BUCKETS, seconds)
        self._by_bucket[bucket] += 1
        self._seconds += seconds
        if is_versioned:
            self._versioned_by_status[status] = self._versioned_by_status.get(status, 0) + 1
            self._versioned_by_bucket[bucket] += 1
            self._versioned_seconds += seconds
        elif status == 200:
            log_seconds = log(seconds) if seconds > 0 else 0.0
            self._log_seconds += log_seconds
            self._log_seconds_squared += log_seconds * log_seconds

    def latencies(self) -> list[int]:
        """Return the number of requests so far in each bucket of the latency histogram, one more than `BUCKETS`."""
        return self._by_bucket.copy()

    def log_dropped(self, records: int, reason: str) -> None:
        """Count lost records of the inference log."""
        self._dropped.labels(reason).inc(records)

    def log_failed(self) -> None:
        """Count a failed write of the inference log; a retry may follow."""
        self._failed.inc()

    def log_written(self, records: int) -> None:
        """Count records written to the logs bucket."""
        self._written.inc(records)

    def collect(self) -> Iterator[Metric]:
        """Yield the plain numbers as metrics."""
        yield by_code("inference_requests", "Inference requests, by HTTP status.", self._by_status)
        yield histogram("inference_request_seconds", f"{_LATENCY}.", self._by_bucket, self._seconds)
        named = "that name a version"
        text = f"Inference requests {named}, by HTTP status."
        yield by_code("inference_versioned_requests", text, self._versioned_by_status)
        yield histogram(
            "inference_versioned_request_seconds",
            f"{_LATENCY}, of requests {named}.",
            self._versioned_by_bucket,
            self._versioned_seconds,
        )
        yield CounterMetricFamily("inference_rows", "Rows predicted.", value=self.rows)
        # Sums of values that may be negative are gauges in the text format.
        logs = "natural logarithms of the seconds of requests with status 200, without those that name a version"
        for name, text, value in (
            ("log_seconds_sum", f"Sum of the {logs}.", self._log_seconds),
            ("log_seconds_squares", f"Sum of the squares of the {logs}.", self._log_seconds_squared),
        ):
            yield GaugeMetricFamily(f"inference_{name}", text, value=value)
        yield from self.predictions.collect("inference_", "answered requests, without those that name a version")
        yield GaugeMetricFamily(
            "inference_requests_in_flight",
            "Inference requests being read, and the average of the last 15 seconds of those being answered.",
            value=self.in_flight + round(self.concurrency.average(), 2),
        )
        yield GaugeMetricFamily("inference_ready", "1 while the server takes requests.", value=float(self.is_ready))
        yield InfoMetricFamily("inference_bundle", "The bundle that is served.", value=self._about)

    def add(self, collector: Collector) -> None:
        """Expose the metrics of another part of the server as well."""
        self._registry.register(collector)

    def exposition(self) -> tuple[str, bytes]:
        """Return the content type and the text of the metrics."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)


_LATENCY = "Time from the headers of a request to its response"


def by_code(name: str, text: str, by_status: Mapping[int, int]) -> Metric:
    """Return the counter of requests with each HTTP status."""
    family = CounterMetricFamily(name, text, labels=["code"])
    for status, count in sorted(by_status.items()):
        family.add_metric([str(status)], count)
    return family


def histogram(name: str, text: str, by_bucket: Sequence[int], seconds: float) -> Metric:
    """Return the histogram of latencies from the number of requests in each bucket, and the sum of their seconds."""
    bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
    return HistogramMetricFamily(
        name, text, buckets=list(zip(bounds, accumulate(by_bucket), strict=True)), sum_value=seconds
    )
