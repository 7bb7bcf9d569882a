"""Shape of the distribution of predictions: how far two releases differ, apart from a shift of all predictions.

The distance is that of Kantorovich, also known as the Wasserstein-1 or earth mover's distance: how far predictions must
move on average to turn one distribution into the other. Unlike a difference of shares, such as total variation or PSI,
it hardly grows if predictions move a little across the edge of a bin. All predictions may first be moved by the same
amount for free, because another test compares means. The functions are pure, and need only the standard library.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf
from typing import NamedTuple

from pipelines.serving.sequential_tests import Moments

MOST_OUTSIDE = 0.1
"""Share of the predictions of one side outside all edges above which nothing is known about the distance."""

_TINY = 1e-9


@dataclass(frozen=True)
class BinnedPredictions:
    """Numbers of predictions up to some edges.

    Attributes:
        edges: upper edges of the bins, in ascending order; one more bin has no edge.
        upto: number of predictions up to each edge.
        total: number of all of them.
    """

    edges: tuple[float, ...] = ()
    upto: tuple[int, ...] = ()
    total: int = 0

    def __add__(self, other: BinnedPredictions) -> BinnedPredictions:
        """Return both sets of predictions, in the bins whose edges both have."""
        if not other.total:
            return self
        if not self.total:
            return other
        one, two = self.with_edges_of(other), other.with_edges_of(self)
        upto = tuple(first + second for first, second in zip(one.upto, two.upto, strict=True))
        return BinnedPredictions(one.edges, upto, one.total + two.total)

    def __sub__(self, earlier: BinnedPredictions) -> BinnedPredictions:
        """Return the predictions that came after `earlier`."""
        if not earlier.total:
            return self
        one, two = self.with_edges_of(earlier), earlier.with_edges_of(self)
        upto = tuple(first - second for first, second in zip(one.upto, two.upto, strict=True))
        return BinnedPredictions(one.edges, upto, one.total - two.total)

    def with_edges_of(self, other: BinnedPredictions) -> BinnedPredictions:
        """Return the same predictions, with only those edges that the other ones have as well."""
        if self.edges == other.edges:
            return self
        known = frozenset(other.edges)
        kept = [(edge, number) for edge, number in zip(self.edges, self.upto, strict=True) if edge in known]
        return BinnedPredictions(tuple(edge for edge, _ in kept), tuple(number for _, number in kept), self.total)


@dataclass(frozen=True)
class ShapeDifference:
    """Difference of the shapes of two distributions.

    Attributes:
        distance: how far predictions must move on average, after all have moved by the same amount.
        least: the same, wherever in their bins the predictions are.
        resolution: mean width of the bins of the predictions: the most by which `distance` may be too great.
        first, second: values for a test of means, one for each prediction. The difference of their means is `distance`.
    """

    distance: float
    least: float
    resolution: float
    first: Moments
    second: Moments


def compare_shapes(first: BinnedPredictions, second: BinnedPredictions) -> ShapeDifference | None:
    """Compare the shapes of two distributions; None if their bins do not allow it.

    Within a bin, predictions are taken as evenly spread. Those outside all edges count as if they were at the edge.
    """
    first, second = first.with_edges_of(second), second.with_edges_of(first)
    edges = first.edges
    if len(edges) < 2 or not first.total or not second.total:
        return None
    shares = [[number / side.total for number in side.upto] for side in (first, second)]
    if any(upto != sorted(upto) or upto[0] + 1 - upto[-1] > MOST_OUTSIDE for upto in shares):
        return None
    levels = _levels(edges, *shares)
    shift = _median([(level.difference, level.weight) for level in levels])
    ours, theirs = _Curve(edges, shares[0], -shift), _Curve(edges, shares[1], 0.0)
    places = sorted({*ours.places, *theirs.places})
    # A function with slopes of at most 1, whose means differ by the distance (Kantorovich and Rubinstein).
    potential, distance = [0.0], 0.0
    for left, right in pairwise(places):
        middle = (left + right) / 2
        more = theirs.share(middle) - ours.share(middle)
        distance += (right - left) * abs(more)
        potential.append(potential[-1] + (right - left) * ((more > 0) - (more < 0)))
    variances = [side.variance(places, potential) for side in (ours, theirs)]
    return ShapeDifference(
        distance,
        _least_distance(levels),
        sum(_mean_width(edges, upto) for upto in shares) / 2,
        _moments(first.total, distance, variances[0]),
        _moments(second.total, 0.0, variances[1]),
    )


class _Curve:
    """Cumulative distribution of predictions, all moved by the same amount. It is linear within a bin.

    Args:
        edges: edges of the bins.
        upto: share of the predictions up to each edge.
        shift: what is added to each prediction.
    """

    def __init__(self, edges: Sequence[float], upto: Sequence[float], shift: float) -> None:
        self.places = [edge + shift for edge in edges]
        self._upto = upto

    def share(self, place: float) -> float:
        """Return the share of the predictions up to a place."""
        at = bisect_right(self.places, place)
        if at == 0:
            return 0.0
        if at == len(self.places):
            return 1.0
        left, right = self.places[at - 1], self.places[at]
        before, after = self._upto[at - 1], self._upto[at]
        return before + (after - before) * (place - left) / (right - left)

    def variance(self, places: Sequence[float], values: Sequence[float]) -> float:
        """Return the variance of a function of the predictions.

        Args:
            places: where the function is known, at least at all edges; it is linear in between.
            values: its values there.
        """
        known = dict(zip(places, values, strict=True))
        ends = (self._upto[0], known[self.places[0]]), (1 - self._upto[-1], known[self.places[-1]])
        mean = sum(share * value for share, value in ends)
        square = sum(share * value * value for share, value in ends)
        for (left, one), (right, other) in pairwise(zip(places, values, strict=True)):
            if self.places[0] <= left and right <= self.places[-1]:
                share = self._within(left, right)
                mean += share * (one + other) / 2
                square += share * (one * one + one * other + other * other) / 3
        return max(0.0, square - mean * mean)

    def _within(self, left: float, right: float) -> float:
        """Return the share of the predictions between two places within one bin."""
        at = bisect_right(self.places, left)
        width = self.places[at] - self.places[at - 1]
        return (self._upto[at] - self._upto[at - 1]) * (right - left) / width


class _Level(NamedTuple):
    """Difference of the quantiles of two distributions for a share of the predictions.

    Attributes:
        weight: the share.
        difference: first quantile less the second one.
        low, high: least and greatest difference, wherever in their bins the predictions are.
    """

    weight: float
    difference: float
    low: float
    high: float


def _levels(edges: Sequence[float], first: Sequence[float], second: Sequence[float]) -> list[_Level]:
    """Return the differences of the quantiles, each for the shares at which both are in one bin."""
    found = []
    for before, after in pairwise(sorted({0.0, *first, *second, 1.0})):
        (low, one, high), (least, other, most) = (
            _quantile(edges, upto, (before + after) / 2) for upto in (first, second)
        )
        found.append(_Level(after - before, one - other, low - most, high - least))
    return found


def _quantile(edges: Sequence[float], upto: Sequence[float], level: float) -> tuple[float, float, float]:
    """Return the quantile at a level, between the edges of its bin. Outside all edges it is taken as the next one."""
    at = bisect_right(upto, level)
    if at == 0:
        return -inf, edges[0], edges[0]
    if at == len(edges):
        return edges[-1], edges[-1], inf
    low, high = edges[at - 1], edges[at]
    return low, low + (high - low) * (level - upto[at - 1]) / (upto[at] - upto[at - 1]), high


def _least_distance(levels: Sequence[_Level]) -> float:
    """Return the distance after the best shift, if predictions are where in their bins it is smallest."""
    ends = [(end, level.weight) for level in levels for end in (level.low, level.high)]
    shift = _median(ends)
    return sum(level.weight * max(0.0, level.low - shift, shift - level.high) for level in levels)


def _median(found: list[tuple[float, float]]) -> float:
    """Return the median of values with weights; in the middle between two values if it may be anywhere there."""
    found = sorted(found)
    passed = list(accumulate(weight for _, weight in found))
    low, high = (bisect_left(passed, passed[-1] * share) for share in (0.5 - _TINY, 0.5 + _TINY))
    return (found[low][0] + found[high][0]) / 2


def _mean_width(edges: Sequence[float], upto: Sequence[float]) -> float:
    inner = sum((b - a) * (after - before) for (a, before), (b, after) in pairwise(zip(edges, upto, strict=True)))
    return inner + (edges[1] - edges[0]) * upto[0] + (edges[-1] - edges[-2]) * (1 - upto[-1])


def _moments(count: int, mean: float, variance: float) -> Moments:
    return Moments(count, count * mean, variance * (count - 1) + count * mean * mean)
