"""Shape of the distribution of predictions: how far two releases differ, apart from a shift of all predictions.

The distance is that of Kantorovich, also known as the Wasserstein-1 or earth mover's distance: how far predictions must
move on average to turn one distribution into the other. Unlike a difference of shares, such as total variation or PSI,
it hardly grows if predictions move a little across the edge of a bin. All predictions may first be moved by the same
amount for free, because another test compares means. The functions are pure, and need only the standard library.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf

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
        resolution: mean width of the bins of the predictions: the most by which `distance` may be too great.
        first, second: values for a test of means, one for each prediction. The difference of their means is `distance`.
        least: returns the distance if predictions are where in their bins it is smallest.
    """

    distance: float
    resolution: float
    first: Moments
    second: Moments
    least: Callable[[], float]


def compare_shapes(first: BinnedPredictions, second: BinnedPredictions) -> ShapeDifference | None:
    """Compare the shapes of two distributions; None if their bins do not allow it.

    Within a bin, predictions are taken as evenly spread. Those outside all edges count as if they were at the edge.
    """
    first, second = first.with_edges_of(second), second.with_edges_of(first)
    if len(first.edges) < 2 or not first.total or not second.total:
        return None
    shares = [[number / side.total for number in side.upto] for side in (first, second)]
    for upto in shares:
        is_possible = upto == sorted(upto) and upto[0] >= 0 and upto[-1] <= 1
        if not is_possible or upto[0] + 1 - upto[-1] > MOST_OUTSIDE:
            return None
    edges, ours, theirs = _occupied(first.edges, *shares)
    ends = sorted({0.0, *ours, *theirs, 1.0})
    weights = [after - before for before, after in pairwise(ends)]
    levels = [(before + after) / 2 for before, after in pairwise(ends)]
    quantiles = zip(_interpolated(levels, ours, edges), _interpolated(levels, theirs, edges), strict=True)
    shift = _median([one - other for one, other in quantiles], weights)

    moved = [edge - shift for edge in edges]
    places = sorted({*moved, *edges})
    one, other = _interpolated(places, moved, ours), _interpolated(places, edges, theirs)
    middles = zip(_in_the_middle(places, moved, one), _in_the_middle(places, edges, other), strict=True)
    differences = [theirs_there - ours_there for ours_there, theirs_there in middles]
    widths = [right - left for left, right in pairwise(places)]
    distance = sum(width * abs(difference) for width, difference in zip(widths, differences, strict=True))
    # A function with slopes of at most 1, whose means differ by the distance (Kantorovich and Rubinstein).
    slopes = ((difference > 0) - (difference < 0) for difference in differences)
    potential = list(accumulate((slope * width for slope, width in zip(slopes, widths, strict=True)), initial=0.0))
    return ShapeDifference(
        distance,
        (_mean_width(edges, ours) + _mean_width(edges, theirs)) / 2,
        _moments(first.total, distance, _variance(one, potential)),
        _moments(second.total, 0.0, _variance(other, potential)),
        lambda: _least_distance(edges, ours, theirs, levels, weights),
    )


def _in_the_middle(places: Sequence[float], edges: Sequence[float], upto: Sequence[float]) -> list[float]:
    """Return the share of the predictions up to the middle between each place and the next one.

    Args:
        places: places, in ascending order, among them all edges.
        edges: edges of the bins.
        upto: share up to each place.
    """
    return [
        0.0 if right <= edges[0] else 1.0 if left >= edges[-1] else (before + after) / 2
        for (left, before), (right, after) in pairwise(zip(places, upto, strict=True))
    ]


def _occupied(
    edges: Sequence[float], first: Sequence[float], second: Sequence[float]
) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    """Leave out the edges before the first prediction and after the last one."""
    start = min(bisect_right(first, 0.0), bisect_right(second, 0.0)) - 1
    start = max(0, min(start, len(edges) - 2))
    end = max(bisect_left(first, 1.0) + 1, bisect_left(second, 1.0) + 1, start + 2)
    return edges[start:end], first[start:end], second[start:end]


def _interpolated(places: Sequence[float], known: Sequence[float], values: Sequence[float]) -> list[float]:
    """Return the values of a piecewise linear function at some places; outside, the first or the last value.

    Args:
        places: where to evaluate it, in ascending order.
        known: where it is known, in ascending order.
        values: its values there.
    """
    at, count, found = 0, len(known), []
    for place in places:
        while at < count and known[at] <= place:
            at += 1
        if at in (0, count):
            found.append(values[max(0, at - 1)])
        else:
            low, high = values[at - 1], values[at]
            found.append(low + (high - low) * (place - known[at - 1]) / (known[at] - known[at - 1]))
    return found


def _variance(upto: Sequence[float], values: Sequence[float]) -> float:
    """Return the variance of a function of the predictions that is linear between some places.

    Args:
        upto: share of the predictions up to each place. Those outside all places count as if they were at the edge.
        values: value of the function at each place.
    """
    mean = upto[0] * values[0] + (1 - upto[-1]) * values[-1]
    square = upto[0] * values[0] ** 2 + (1 - upto[-1]) * values[-1] ** 2
    for before, after, one, other in zip(upto, upto[1:], values, values[1:], strict=False):
        if after > before:
            mean += (after - before) * (one + other) / 2
            square += (after - before) * (one * one + one * other + other * other) / 3
    return max(0.0, square - mean * mean)


def _least_distance(
    edges: Sequence[float],
    first: Sequence[float],
    second: Sequence[float],
    levels: Sequence[float],
    weights: Sequence[float],
) -> float:
    """Return the distance after the best shift, if predictions are where in their bins it is smallest."""
    limits = [-inf, *edges, inf]
    gaps = []
    for level in levels:
        one, other = bisect_right(first, level), bisect_right(second, level)
        gaps.append((limits[one] - limits[other + 1], limits[one + 1] - limits[other]))
    shift = _median([end for gap in gaps for end in gap], [weight for weight in weights for _ in range(2)])
    return sum(weight * max(0.0, low - shift, shift - high) for (low, high), weight in zip(gaps, weights, strict=True))


def _median(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the median of values with weights; in the middle between two values if it may be anywhere there."""
    found = sorted(zip(values, weights, strict=True))
    passed = list(accumulate(weight for _, weight in found))
    low, high = (bisect_left(passed, passed[-1] * share) for share in (0.5 - _TINY, 0.5 + _TINY))
    return (found[low][0] + found[high][0]) / 2


def _mean_width(edges: Sequence[float], upto: Sequence[float]) -> float:
    inner = sum((b - a) * (after - before) for (a, before), (b, after) in pairwise(zip(edges, upto, strict=True)))
    return inner + (edges[1] - edges[0]) * upto[0] + (edges[-1] - edges[-2]) * (1 - upto[-1])


def _moments(count: int, mean: float, variance: float) -> Moments:
    return Moments(count, count * mean, variance * (count - 1) + count * mean * mean)
