"""Copies of requests as the canary takes them: answered like requests, counted separately, and logged nowhere.

The metrics have both sides of the same requests: `inference_shadow_…` is what this pod made of them, and
`inference_original_…` what the live pods did. No other metric counts copies, and neither does the inference log, so
monitors and gates do not take them for requests of callers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from math import log

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.serving.prediction_counts import PredictionCounts
from pipelines.serving.request_metrics import BUCKETS, by_code, histogram
from pipelines.serving.shadow_protocol import ORIGINAL, SHADOW, AnswerFigures


class AnswerCounts(Collector):
    """Counts of one side, with the names of the metrics of requests and a prefix.

    Args:
        prefix: `SHADOW` or `ORIGINAL`.
        text: what is counted, in a few words.

    Attributes:
        predictions: predictions of the answers.
    """

    def __init__(self, prefix: str, text: str) -> None:
        self._prefix, self._text = prefix, text
        self.predictions = PredictionCounts()
        self._by_status = {200: 0}
        self._by_bucket = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._log_seconds = self._log_seconds_squared = 0.0

    def answered(self, answer: AnswerFigures) -> None:
        """Count one answer."""
        self._by_status[answer.status] = self._by_status.get(answer.status, 0) + 1
        self._by_bucket[bisect_left(BUCKETS, answer.seconds)] += 1
        self._seconds += answer.seconds
        if answer.status == 200:
            log_seconds = log(answer.seconds) if answer.seconds > 0 else 0.0
            self._log_seconds += log_seconds
            self._log_seconds_squared += log_seconds * log_seconds
        if answer.prediction is not None:
            self.predictions.add(answer.prediction)

    def collect(self) -> Iterator[Metric]:
        """Yield the counts as metrics."""
        name = f"inference_{self._prefix}"
        yield by_code(f"{name}requests", f"{self._text}, by HTTP status.", self._by_status)
        yield histogram(f"{name}request_seconds", f"Latency of the {self._text}.", self._by_bucket, self._seconds)
        for suffix, what, value in (
            ("log_seconds_sum", "Sum of the natural logarithms of the seconds", self._log_seconds),
            ("log_seconds_squares", "Sum of the squares of these logarithms", self._log_seconds_squared),
        ):
            yield GaugeMetricFamily(f"{name}{suffix}", f"{what} of the {self._text}.", value=value)
        yield from self.predictions.collect(name, f"the {self._text}")


class ShadowReceiver(Collector):
    """Counts of both sides of the copies that this pod took. Only the event loop may write them."""

    def __init__(self) -> None:
        self._canary = AnswerCounts(SHADOW, "answers to copies of requests, which are discarded")
        self._live = AnswerCounts(ORIGINAL, "answers of the live pods to the requests that this pod took copies of")

    def expect_predictions(self, largest: float, edges: tuple[float, ...]) -> None:
        """Set how both sides count predictions; see `PredictionCounts`."""
        self._canary.predictions.expect(largest, edges)
        self._live.predictions.expect(largest, edges)

    def compared(self, canary: AnswerFigures, live: AnswerFigures) -> None:
        """Count one copy: what this pod made of it, and what the live pod did."""
        self._canary.answered(canary)
        self._live.answered(live)

    def collect(self) -> Iterator[Metric]:
        """Yield the counts as metrics."""
        yield from self._canary.collect()
        yield from self._live.collect()
