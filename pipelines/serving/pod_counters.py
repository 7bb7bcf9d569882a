"""Counters of the pods behind a Service: read from `/metrics`, added up since the first look.

A Service sends each connection to one of its pods. So each look asks until no further pod answers. A pod that was
missed counts from the next look on: what is compared is a sample of the requests, and errors and requests of it belong
together. A restarted server has another process name, so its counters do not seem to run backwards.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from prometheus_client.parser import text_string_to_metric_families

from pipelines.declarations.errors import MlopsError
from pipelines.serving.canary_analysis import RequestTotals
from pipelines.serving.prediction_shape import BinnedPredictions
from pipelines.serving.probe import EndpointClient
from pipelines.serving.request_metrics import BUCKETS
from pipelines.serving.sequential_tests import Moments

MOST_READS = 200
"""Maximum number of requests in one look."""

_LEAST_READS = 6
_READS_PER_POD = 3  # in a row without another pod, for each pod that was found
_MOST_FAILURES = 3

NOT_ERRORS = ("408", "499")
"""Statuses of 400 and above that say nothing about the model: the client was slow, or left."""


_PARTS = {
    f"inference_{prefix}{name}": (sign, what)
    for prefix, sign in (("", 1), ("versioned_", -1))
    for name, what in (
        ("requests_total", "code"),
        ("request_seconds_count", "count"),
        ("request_seconds_bucket", "bucket"),
    )
} | {"inference_predictions_bucket": (1, "prediction bucket")}
"""Name of a sample → whether its value is added or subtracted, and what it is."""

_ABOUT = "inference_bundle_info"
_NEEDED = ("inference_requests_total", "inference_request_seconds_count", "inference_request_seconds_bucket")


class UnreadableMetricsError(MlopsError):
    """The metrics do not come from an inference server of this version."""


def read_metrics(text: str, p99_seconds: float, prefix: str = "") -> tuple[str, RequestTotals]:
    """Return the process that exposed some metrics, and what it answered since its start; see `process_totals`.

    Args:
        text: metrics in the Prometheus text format.
        p99_seconds: requests above this are slow; rounded up to a bound of the histogram.
        prefix: which requests to count: those of callers, or one side of the copied ones
            (`shadow_protocol.SHADOW`, `ORIGINAL`).

    Raises:
        UnreadableMetricsError: a metric is missing.
    """
    try:
        families = list(text_string_to_metric_families(text))
    except (KeyError, ValueError) as error:
        raise UnreadableMetricsError(
            f"metrics of a pod: expected the text format of Prometheus, found {error}"
        ) from None
    samples = [(one.name, one.labels, one.value) for family in families for one in family.samples]
    if prefix:
        named = f"inference_{prefix}"
        about = [sample for sample in samples if sample[0] == _ABOUT]
        chosen = [
            (f"inference_{name.removeprefix(named)}", labels, value)
            for name, labels, value in samples
            if name.startswith(named)
        ]
        if not chosen:
            raise UnreadableMetricsError("metrics of a pod: expected counts of copied requests, found none")
        samples = [*about, *chosen]
    return process_totals(samples, p99_seconds)


def process_totals(
    samples: Iterable[tuple[str, Mapping[str, str], float]], p99_seconds: float
) -> tuple[str, RequestTotals]:
    """Return the process that some metrics are about, and what it answered since its start.

    Errors are all answers from status 400 on, except those for slow clients: if a canary refuses requests that the live
    pods answer, its callers see errors, too. Requests that name a version are left out: only pods of that release
    answer them, so a caller could decide by them about a canary. Earlier servers do not count them separately, nor
    predictions in bins.

    Args:
        samples: name, labels and value of each metric.
        p99_seconds: requests above this are slow; rounded up to a bound of the histogram.

    Raises:
        UnreadableMetricsError: a metric is missing.
    """
    found: dict[str, float] = {}
    process, requests, errors, answered, slow = "", 0.0, 0.0, 0.0, 0.0
    upto: dict[float, int] = {}
    limit = bisect_left(BUCKETS, p99_seconds)
    bound = BUCKETS[limit] if limit < len(BUCKETS) else inf
    try:
        for name, labels, value in samples:
            if name == _ABOUT:
                process = labels.get("process", "")
            elif (part := _PARTS.get(name)) is not None:
                sign, what = part
                code = labels.get("code", "")
                if what == "count":
                    slow += sign * value
                elif what == "bucket":
                    slow -= sign * value if float(labels["le"]) == bound else 0
                elif what == "prediction bucket":
                    upto[float(labels["le"])] = round(value)
                elif code not in NOT_ERRORS:
                    requests += sign * value
                    errors += sign * value if re.fullmatch("[45][0-9][0-9]", code) else 0
                    answered += sign * value if code == "200" else 0
            found[name] = value
        missing = next((name for name in _NEEDED if name not in found), None)
        if missing is not None:
            raise KeyError(missing)
        totals = RequestTotals(
            requests=round(requests),
            errors=round(errors),
            slow=max(0, round(slow)),
            latency=Moments(answered, found["inference_log_seconds_sum"], found["inference_log_seconds_squares"]),
            predictions=Moments(
                found["inference_prediction_count"],
                found["inference_prediction_sum"],
                found["inference_prediction_squares"],
            ),
            distribution=_binned(upto),
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise UnreadableMetricsError(
            f"metrics of a pod: expected those of the inference server, {error} is missing"
        ) from None
    if not process:
        raise UnreadableMetricsError("metrics of a pod: expected the label process, found none")
    return process, totals


def _binned(upto: dict[float, int]) -> BinnedPredictions:
    """Return the predictions in bins; none of a server that counts none, because its image is older."""
    total = upto.pop(inf, 0)
    edges = sorted(upto)
    return BinnedPredictions(tuple(edges), tuple(upto[edge] for edge in edges), total)


class RequestCounters(Protocol):
    """Counters of the pods of one release since the first look.

    Attributes:
        problem: why the last look saw nothing, or not all that it should; "" if it did.
    """

    problem: str

    def look(self) -> None:
        """Read the counters. What cannot be read keeps its last figures."""
        ...

    @property
    def totals(self) -> RequestTotals:
        """What all pods answered since the first look at each of them."""
        ...


@dataclass
class CountedProcesses:
    """Counters of server processes since the first look at each."""

    _first: dict[str, RequestTotals] = field(default_factory=dict)
    _last: dict[str, RequestTotals] = field(default_factory=dict)

    def note(self, process: str, totals: RequestTotals) -> None:
        """Note what a process has answered since its start."""
        self._first.setdefault(process, totals)
        self._last[process] = totals

    @property
    def totals(self) -> RequestTotals:
        """What all processes answered since the first look at each of them."""
        return sum((last - self._first[process] for process, last in self._last.items()), RequestTotals())


@dataclass
class ServiceCounters:
    """Counters of the pods behind one Service since the first look.

    Attributes:
        read: returns the metrics of one of the pods; raises `MlopsError`.
        p99_seconds: requests above this are slow.
        prefix: which requests to count; see `read_metrics`.
        problem: see `RequestCounters`.
    """

    read: Callable[[], str]
    p99_seconds: float
    prefix: str = ""
    problem: str = ""
    _counted: CountedProcesses = field(default_factory=CountedProcesses)

    def look(self) -> None:
        """Read all pods. A pod that cannot be read keeps its last figures."""
        seen: set[str] = set()
        repeated = failures = 0
        self.problem = ""
        for _ in range(MOST_READS):
            if failures >= _MOST_FAILURES or repeated >= max(_LEAST_READS, _READS_PER_POD * len(seen)):
                break
            try:
                process, totals = read_metrics(self.read(), self.p99_seconds, self.prefix)
            except MlopsError as error:
                failures += 1
                self.problem = error.what
                continue
            repeated = repeated + 1 if process in seen else 0
            seen.add(process)
            self._counted.note(process, totals)

    @property
    def totals(self) -> RequestTotals:
        """What all pods answered since the first look at each of them."""
        return self._counted.totals


def counters_of(url: str, model: str, p99_seconds: float, timeout: float) -> ServiceCounters:
    """Return the counters of the pods behind the Service at a URL. Each read opens a connection."""
    client = EndpointClient(url, model, timeout=timeout, keep_alive=False)
    return ServiceCounters(lambda: client.get_text("/metrics"), p99_seconds)
