"""Sequential tests: evidence that may be looked at after every observation.

Each test returns the logarithm of an e-value. Whatever the times of the looks, an e-value exceeds 1/alpha with a
probability of at most alpha if there is no difference (Ville's inequality). The functions are pure, and need only the
standard library, because the serving image installs no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

TUNED_REQUESTS = 500
"""Observations on each side for which `mean_evidence` is most powerful."""


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of some values.

    Attributes:
        count: number of values.
        total: their sum.
        squares: sum of their squares.
    """

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of values."""
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def __sub__(self, earlier: Moments) -> Moments:
        """Return the moments of the values that came after `earlier`."""
        return Moments(self.count - earlier.count, self.total - earlier.total, self.squares - earlier.squares)

    @property
    def mean(self) -> float:
        """Mean; 0 without values."""
        return self.total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Sample variance; 0 with fewer than two values."""
        if self.count < 2:
            return 0.0
        return max(0.0, (self.squares - self.total * self.mean) / (self.count - 1))

    def with_variance(self, least: float) -> Moments:
        """Return moments with the same count and mean, and at least a variance."""
        if self.count < 2 or self.variance >= least:
            return self
        return Moments(self.count, self.total, self.total * self.mean + least * (self.count - 1))


def count_evidence(first: int, second: int, share: float) -> float:
    """Return the evidence that events of a first stream are more frequent than its share of the trials explains.

    Each event is one of the first stream with the probability `share` if both streams have the same rate. The
    alternative is a uniform mixture, Beta(1, 1), over the greater probabilities. As the mixture leaves out the smaller
    ones, the null hypothesis includes every lower rate of the first stream. Source: Lindon and Malek, "Anytime-valid
    inference for multinomial count data", NeurIPS 2022.

    Args:
        first, second: events of the two streams.
        share: the first stream's share of all trials, between 0 and 1.

    Returns:
        The natural logarithm of the e-value.
    """
    n = first + second
    mixture = math.lgamma(first + 1) + math.lgamma(second + 1) - math.lgamma(n + 2)
    above = _log_tail(first, n + 1, share)
    return mixture + above - first * math.log(share) - (second + 1) * math.log1p(-share)


def _log_tail(most: int, trials: int, chance: float) -> float:
    """Return the logarithm of the probability of at most `most` successes: a Beta distribution's upper tail."""

    def log_term(successes: int) -> float:
        ways = math.lgamma(trials + 1) - math.lgamma(successes + 1) - math.lgamma(trials - successes + 1)
        return ways + successes * math.log(chance) + (trials - successes) * math.log1p(-chance)

    # From the edge outward, terms fall if they are summed away from the mean.
    odds = chance / (1 - chance)
    is_above = most >= trials * chance
    at = most + 1 if is_above else most
    if at > trials:
        return 0.0
    total = term = 1.0
    while term > 1e-17 * total:
        term *= (trials - at) / (at + 1) * odds if is_above else at / (trials - at + 1) / odds
        at += 1 if is_above else -1
        total += term
    tail = (log_term(most + 1) if is_above else log_term(most)) + math.log(total)
    return math.log1p(-min(1.0, math.exp(tail))) if is_above else tail


def mean_evidence(first: Moments, second: Moments, margin: float, alpha: float) -> float:
    """Return the evidence that the mean of a first stream exceeds that of a second one by more than a margin.

    A normal mixture over positive differences, with the estimated variances, so it holds for large samples. Its scale
    is tuned for `TUNED_REQUESTS` on each side. Sources: Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
    nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49(2), 2021 (the one-sided normal mixture,
    and its tuning); Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic
    confidence sequences", Annals of Statistics 52(6), 2024.

    Args:
        first, second: the values.
        margin: difference of the means that is allowed; may be negative.
        alpha: error rate for which the scale is tuned.

    Returns:
        The natural logarithm of the e-value; 0 if a variance is not known.
    """
    if first.count < 2 or second.count < 2:
        return 0.0
    error = first.variance / first.count + second.variance / second.count
    tuned = (first.variance + second.variance) / TUNED_REQUESTS
    if not (error > 0 and math.isfinite(error) and math.isfinite(first.mean - second.mean)):
        return 0.0
    information, wanted = 1 / error, 1 / tuned
    spread = 2 * math.log(1 / alpha)
    rho = wanted / (spread + math.log1p(spread))
    score = (first.mean - second.mean - margin) * information
    scaled = score / math.sqrt(information + rho)
    return math.log(2) + 0.5 * math.log(rho / (information + rho)) + scaled**2 / 2 + _log_normal_cdf(scaled)


def _log_normal_cdf(z: float) -> float:
    if z > -30:
        return math.log(math.erfc(-z / math.sqrt(2)) / 2)
    return -(z**2) / 2 - math.log(-z) - math.log(2 * math.pi) / 2  # Mills' ratio


def either_evidence(one: float, other: float) -> float:
    """Return the evidence against two hypotheses, such as the two sides of a test: the mean of their e-values."""
    most = max(one, other)
    return most + math.log((math.exp(one - most) + math.exp(other - most)) / 2)


def discoveries(evidence: Mapping[str, float], alpha: float, weights: Mapping[str, float]) -> frozenset[str]:
    """Return the hypotheses to reject, so that the false discovery rate is at most alpha: the weighted e-BH procedure.

    It holds for any dependence between the e-values. Source: Wang and Ramdas, "False discovery rate control with
    e-values", Journal of the Royal Statistical Society B 84(3), 2022.

    Args:
        evidence: hypothesis → natural logarithm of its e-value.
        alpha: the bound of the false discovery rate.
        weights: hypothesis → its importance; only ratios count. More weight needs less evidence, at the cost of others.
    """
    mean = sum(weights[name] for name in evidence) / max(1, len(evidence))
    weighted = {name: found + math.log(weights[name] / mean) for name, found in evidence.items()}
    ordered = sorted(weighted, key=lambda name: -weighted[name])
    rejected = 0
    for rank, name in enumerate(ordered, 1):
        if weighted[name] >= math.log(len(ordered) / (alpha * rank)):
            rejected = rank
    return frozenset(ordered[:rejected])
