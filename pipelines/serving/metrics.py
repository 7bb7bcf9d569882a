"""What the server counts, in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram, in seconds: from a row of a linear model to a large batch of a forest."""

ABANDONED = "499"
"""The status counted when a client went away before its request was whole; nothing could be sent."""


class Metrics:
    """The server's counters. Only the event loop writes them, but for the drops of the inference log.

    Attributes:
        in_flight: inference requests that are being read or answered.
        seconds: records the latency of one inference request, in seconds.
        rows: counts answered rows.
        dropped: counts records of the inference log that were lost, by reason.
    """

    def __init__(self, model: str, bundle: str) -> None:
        self.in_flight = 0
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "inference_requests", "Inference requests, by HTTP status.", ["code"], registry=self._registry
        )
        self._by_status: dict[int | str, Callable[[], None]] = {}
        self.seconds: Callable[[float], None] = Histogram(
            "inference_request_seconds",
            "From the request's head to its answer.",
            buckets=BUCKETS,
            registry=self._registry,
        ).observe
        self.rows: Callable[[float], None] = Counter("inference_rows", "Rows predicted.", registry=self._registry).inc
        Gauge(
            "inference_requests_in_flight", "Inference requests being read or answered.", registry=self._registry
        ).set_function(lambda: self.in_flight)
        self._dropped = Counter(
            "inference_log_dropped_records",
            "Records of the inference log that were lost: the buffer was full, or writing failed for too long.",
            ["reason"],
            registry=self._registry,
        )
        self._failed = Counter(
            "inference_log_write_failures", "Writes of the inference log that failed.", registry=self._registry
        )
        self._written = Counter(
            "inference_log_written_records", "Records of the inference log that were written.", registry=self._registry
        )
        for reason in ("buffer full", "write failed"):
            self._dropped.labels(reason)
        self._ready = Gauge("inference_ready", "1 while the server takes requests.", registry=self._registry)
        info = Gauge(
            "inference_bundle_info", "The bundle that is served.", ["model", "bundle"], registry=self._registry
        )
        info.labels(model, bundle).set(1)

    def answered(self, status: int | str) -> None:
        """Count one inference request by its HTTP status."""
        count = self._by_status.get(status)
        if count is None:
            count = self._by_status[status] = self._requests.labels(str(status)).inc
        count()

    def ready(self, is_ready: bool) -> None:
        """Whether the server takes requests now."""
        self._ready.set(is_ready)

    def log_dropped(self, records: int, reason: str) -> None:
        """Count records of the inference log that were lost."""
        self._dropped.labels(reason).inc(records)

    def log_failed(self) -> None:
        """Count a write of the inference log that failed; it may yet succeed."""
        self._failed.inc()

    def log_written(self, records: int) -> None:
        """Count records that are in the logs bucket."""
        self._written.inc(records)

    def exposition(self) -> tuple[str, bytes]:
        """The content type, and the text."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)
