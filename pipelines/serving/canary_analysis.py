"""Canary analysis: compare the requests that a canary answered with those of the live pods.

Harm needs two conditions: the difference is significant by a sequential test, which allows any number of looks, and the
canary breaks a bound that its `model.yaml` declares. So a difference that nobody would notice does not stop a release,
nor do errors that the live pods have as well. Predictions are compared twice: by their mean, and by the shape of their
distribution, which the mean says nothing about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipelines.declarations.canary_settings import CanaryBounds
from pipelines.serving.prediction_shape import BinnedPredictions, compare_shapes
from pipelines.serving.sequential_tests import Moments, count_evidence, discoveries, either_evidence, mean_evidence

Outcome = Literal["passed", "failed", "inconclusive"]

ALPHA = 0.05
"""Bound of the share of good canaries that a check stops."""

WEIGHTS: Mapping[str, float] = {"errors": 8.0, "latency": 1.0, "predictions": 0.5, "distribution": 0.5}
"""Metric → its importance. Errors hurt callers most, and need the most requests to be found."""

LEAST_VALUES = 30
"""Least number of requests on each side for a test of means, which holds for large samples only."""

LEAST_SPREAD = 0.1
"""Share of the golden deviation below which live predictions hardly vary: callers repeat much the same request."""

POWER = 0.8
"""Chance that a canary with the declared increase of errors is stopped before it may pass."""

_QUANTILE = 1.0  # of the normal distribution: 0.84 for POWER, and some for what the approximation leaves out
_SLOW_SHARE = 0.01  # of the requests, because the declared bound is on the 99th percentile
_MOST_REQUESTS = 10**8


@dataclass(frozen=True, kw_only=True)
class RequestTotals:
    """Requests that pods answered in some time.

    Attributes:
        requests: number of requests.
        errors: requests that ended in an error.
        slow: requests that took longer than the declared bound.
        latency: natural logarithms of the seconds of the answered requests.
        predictions: one prediction of each answered request.
        distribution: the same predictions in bins; fewer if some pods, of an earlier image, count no bins.
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0
    latency: Moments = field(default_factory=Moments)
    predictions: Moments = field(default_factory=Moments)
    distribution: BinnedPredictions = field(default_factory=BinnedPredictions)

    def __add__(self, other: RequestTotals) -> RequestTotals:
        """Return the totals of both."""
        return RequestTotals(
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            slow=self.slow + other.slow,
            latency=self.latency + other.latency,
            predictions=self.predictions + other.predictions,
            distribution=self.distribution + other.distribution,
        )

    def __sub__(self, earlier: RequestTotals) -> RequestTotals:
        """Return the totals since `earlier`."""
        return RequestTotals(
            requests=self.requests - earlier.requests,
            errors=self.errors - earlier.errors,
            slow=self.slow - earlier.slow,
            latency=self.latency - earlier.latency,
            predictions=self.predictions - earlier.predictions,
            distribution=self.distribution - earlier.distribution,
        )


@dataclass(frozen=True, slots=True)
class ShapeComparison:
    """Distance between the distributions of the predictions, apart from a shift of all of them.

    Attributes:
        distance: in standard deviations of the live predictions.
        allowed: the declared bound, or the width of the bins if that is more and may explain the distance.
        evidence: natural logarithm of the e-value; None if the distance is not known.
        unknown: why it is not known; "" if it is.
    """

    distance: float = 0.0
    allowed: float = 0.0
    evidence: float | None = None
    unknown: str = ""

    def __str__(self) -> str:
        """Return one line."""
        if self.unknown:
            return self.unknown
        return f"canary differs by {self.distance:.3g} standard deviations; bound {self.allowed:.3g}"


@dataclass(frozen=True, slots=True)
class CanaryFinding:
    """One metric of a canary, compared with the live pods.

    Attributes:
        metric: `errors`, `latency`, `predictions` (their mean) or `distribution` (their shape).
        canary, live: what was compared.
        bounds: what the model declares.
        evidence: natural logarithm of the e-value; None if it cannot be tested.
        is_significant: True if the canary is worse by the sequential test, over all metrics.
        breaks_bound: True if the canary breaks the declared bound.
        shape: how the distributions were compared; None for other metrics.
    """

    metric: str
    canary: RequestTotals
    live: RequestTotals
    bounds: CanaryBounds
    evidence: float | None
    is_significant: bool
    breaks_bound: bool
    shape: ShapeComparison | None = None

    @property
    def is_harm(self) -> bool:
        """True if both conditions hold."""
        return self.is_significant and self.breaks_bound

    def __str__(self) -> str:
        """Return one line."""
        e_value = "not tested" if self.evidence is None else f"e-value {_e_value(self.evidence)}"
        if self.shape is not None:
            return f"{self.metric}: {self.shape}; {e_value}"
        ours, theirs = (_figure(self.metric, each) for each in (self.canary, self.live))
        bound = {
            "errors": _percent(self.bounds.error_rate),
            "latency": f"99 % within {self.bounds.p99_ms:g} ms",
            "predictions": f"{self.bounds.prediction_shift:g} standard deviations",
        }[self.metric]
        return f"{self.metric}: canary {ours}, live {theirs}; bound {bound}; {e_value}"


@dataclass(frozen=True, kw_only=True)
class CanaryVerdict:
    """Verdict on a canary.

    Attributes:
        outcome: `failed` if harm was found; `passed` if there were enough requests to find it; else `inconclusive`.
        canary_requests, live_requests: requests that were compared.
        error_rate: of the live pods, as far as it is known.
        error_increase: increase of the error rate that must be found before the canary may pass.
        findings: one for each metric.
        copied: True if both sides answered the same requests, which live pods copied.
    """

    outcome: Outcome
    canary_requests: int
    live_requests: int
    error_rate: float
    error_increase: float
    findings: tuple[CanaryFinding, ...]
    copied: bool = False

    @property
    def requests(self) -> int:
        """Requests on both sides."""
        return self.canary_requests + self.live_requests

    @property
    def needed(self) -> int | None:
        """Requests on both sides after which the canary may pass; None if one side has none."""
        if not self.canary_requests or not self.live_requests:
            return None
        return requests_needed(self.canary_requests / self.requests, self.error_rate, self.error_increase)

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        counted = f"{self.canary_requests:,} requests to the canary and {self.live_requests:,} to the live pods"
        if self.copied:
            counted = f"{self.canary_requests:,} copies of their requests"
        if self.outcome == "failed":
            return f"worse than the live pods after {counted}: " + "; ".join(
                str(each) for each in self.findings if each.is_harm
            )
        if self.outcome == "passed":
            unknown = next((each.shape.unknown for each in self.findings if each.shape is not None), "")
            return f"not worse than the live pods after {counted}" + (
                f" (distribution of predictions not compared: {unknown})" if unknown else ""
            )
        needed = self.needed
        if needed is None:
            return (
                f"no verdict yet: {counted}; both need some" if not self.copied else "no verdict yet: no copies arrived"
            )
        missing = (needed - self.requests) / (2 if self.copied else 1)
        return f"no verdict yet: {counted}; about {max(1, math.ceil(missing)):,} more are needed"


def judge_canary(
    canary: RequestTotals,
    live: RequestTotals,
    bounds: CanaryBounds,
    *,
    golden_deviation: float = 0.0,
    copied: bool = False,
) -> CanaryVerdict:
    """Compare a canary with the live pods over the same time. Can be called after every request.

    Without requests on one side the outcome is `inconclusive`: missing data neither stops a canary nor lets it pass.

    Args:
        canary, live: what their pods answered since the traffic step began.
        bounds: what the model declares.
        golden_deviation: standard deviation of the golden predictions of the live bundle; 0 if it is not known. It
            counts in place of that of live predictions that hardly vary, which says nothing about the size of a shift.
        copied: True if both sides answered the same requests. The tests hold then as well: a request that both fail, or
            answer alike, is never evidence of a difference.
    """
    findings: tuple[CanaryFinding, ...] = ()
    outcome: Outcome = "inconclusive"
    base = (live.errors + 0.5) / (live.requests + 1)
    if canary.requests > 0 and live.requests > 0:
        findings = _findings(canary, live, bounds, golden_deviation)
        total = canary.requests + live.requests
        if any(finding.is_harm for finding in findings):
            outcome = "failed"
        elif _is_enough(total, canary.requests / total, base, bounds.error_increase):
            outcome = "passed"
    return CanaryVerdict(
        outcome=outcome,
        canary_requests=canary.requests,
        live_requests=live.requests,
        error_rate=base,
        error_increase=bounds.error_increase,
        findings=findings,
        copied=copied,
    )


def _findings(
    canary: RequestTotals, live: RequestTotals, bounds: CanaryBounds, golden_deviation: float
) -> tuple[CanaryFinding, ...]:
    share = canary.requests / (canary.requests + live.requests)
    evidence: dict[str, float | None] = {
        "errors": count_evidence(canary.errors, live.errors, share),
        "latency": _mean_evidence(canary.latency, live.latency, 0.0),
        "predictions": None,
        "distribution": None,
    }
    deviation = math.sqrt(live.predictions.variance)
    compared = canary.predictions, live.predictions
    if deviation < LEAST_SPREAD * golden_deviation:
        deviation = golden_deviation
        compared = compared[0].with_variance(deviation**2), compared[1].with_variance(deviation**2)
    allowed = bounds.prediction_shift * deviation
    sides = [_mean_evidence(*pair, allowed) for pair in (compared, compared[::-1])]
    if sides[0] is not None and sides[1] is not None:
        evidence["predictions"] = either_evidence(sides[0], sides[1])
    shape = _compare_distributions(canary, live, bounds.prediction_distance, deviation)
    evidence["distribution"] = shape.evidence
    # All metrics count, also those without data, so that the threshold does not move while data arrives.
    significant = discoveries({name: found or 0.0 for name, found in evidence.items()}, ALPHA, WEIGHTS)
    moved = abs(canary.predictions.mean - live.predictions.mean)
    breaks = {
        "errors": canary.errors / canary.requests > bounds.error_rate,
        "latency": canary.slow / canary.requests > _SLOW_SHARE,
        "predictions": moved > allowed,
        "distribution": shape.distance > shape.allowed,
    }
    return tuple(
        CanaryFinding(
            name,
            canary,
            live,
            bounds,
            found,
            name in significant,
            breaks[name],
            shape if name == "distribution" else None,
        )
        for name, found in evidence.items()
    )


def _compare_distributions(
    canary: RequestTotals, live: RequestTotals, bound: float, deviation: float
) -> ShapeComparison:
    """Compare the shapes of the distributions of the predictions.

    The null hypothesis is that the distance is at most what is allowed, not that there is none. So a new model whose
    predictions differ a little is not stopped, however many requests there are.

    Args:
        canary, live: what their pods answered.
        bound: declared bound of the distance, in standard deviations.
        deviation: standard deviation of the live predictions.
    """
    sides = {"canary": canary, "live pods": live}
    if any(side.predictions.count < LEAST_VALUES for side in sides.values()):
        return ShapeComparison(unknown="too few predictions")
    for name, side in sides.items():
        if side.distribution.total != side.predictions.count:
            return ShapeComparison(unknown=f"the {name} count no distribution: their serving image is older")
    found = compare_shapes(canary.distribution, live.distribution)
    if found is None:
        return ShapeComparison(unknown="the predictions lie outside the bins that both sides count")
    if not 0 < deviation < math.inf:
        return ShapeComparison(unknown="the live predictions do not vary")
    allowed = bound * deviation
    if found.resolution > allowed and found.least() <= allowed:
        allowed = found.resolution
    return ShapeComparison(
        distance=found.distance / deviation,
        allowed=allowed / deviation,
        evidence=_mean_evidence(found.first, found.second, allowed),
    )


def _mean_evidence(first: Moments, second: Moments, margin: float) -> float | None:
    """Return the evidence of a test of means; None with too few values, or values without a finite mean."""
    if min(first.count, second.count) < LEAST_VALUES:
        return None
    if not all(math.isfinite(value) for each in (first, second) for value in (each.total, each.squares)):
        return None
    return mean_evidence(first, second, margin, ALPHA)


def requests_needed(share: float, base: float, increase: float) -> int:
    """Return the number of requests, on both sides, after which an increase of errors is found with `POWER`.

    Args:
        share: the canary's share of the requests, between 0 and 1.
        base: error rate of the live pods.
        increase: increase of the error rate to find.
    """
    high = 2
    while not _is_enough(high, share, base, increase) and high < _MOST_REQUESTS:
        high *= 2
    low = high // 2
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if _is_enough(middle, share, base, increase) else (middle, high)
    return high


def _is_enough(requests: int, share: float, base: float, increase: float) -> bool:
    """Return whether a number of requests, on both sides, is enough to find an increase of errors with `POWER`."""
    if requests * min(share, 1 - share) < LEAST_VALUES:
        return False
    bad = min(1.0, base + increase)
    first, second = requests * share * bad, requests * (1 - share) * base
    part = first / (first + second)
    gains = math.log(part / share), math.log(max(1e-12, 1 - part) / (1 - share))
    spread = math.sqrt(first * gains[0] ** 2 + second * gains[1] ** 2)
    least = math.log(sum(WEIGHTS.values()) / (ALPHA * WEIGHTS["errors"]))
    return count_evidence(round(first), round(second), share) - _QUANTILE * spread >= least


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _figure(metric: str, totals: RequestTotals) -> str:
    """Return a metric of one side, as text."""
    if metric == "errors":
        return _percent(totals.errors / totals.requests)
    if metric == "latency":
        if not totals.latency.count:
            return "unknown"
        return f"{1000 * math.exp(totals.latency.mean):.3g} ms ({_percent(totals.slow / totals.requests)} slow)"
    return f"{totals.predictions.mean:.4g} ± {math.sqrt(totals.predictions.variance):.3g}"


def _e_value(evidence: float) -> str:
    return f"{math.exp(evidence):.3g}" if evidence < 50 else "above 10^21"
