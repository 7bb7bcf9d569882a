"""Counts of predictions as a server exposes them: their number, sum and sum of squares, and how many are in each bin.

Each server chooses the edges of its bins from the golden predictions of its bundle, because no fixed edges suit every
model. All edges are thirds of powers of two, so servers with different bundles share those of the coarser one, and a
comparison uses the edges that both have. Thirds are never round numbers: many models predict 0, 0.5 or 1 again and
again, and a rounding error must not move such a prediction into another bin.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric

_FINEST, _COARSEST = 1 / 4, 32.0
"""Range of the widths, in golden deviations. Five golden rows give the order of magnitude only."""

_FINEST_OF_EQUAL = 1 / 4096
"""Smallest width, as a share of the golden prediction, if all golden predictions are equal."""

_REACH = 4
"""Number of widths, to both sides of the center, in which bins have at most that width."""

_LARGEST = 1e300


def bin_edges(center: float, deviation: float) -> tuple[float, ...]:
    """Return the edges of the bins for predictions: narrow around the center, and wider with the distance from it.

    Args:
        center: typical prediction.
        deviation: standard deviation of predictions, at least its order of magnitude; 0 if it is not known.
    """
    center = max(-_LARGEST, min(_LARGEST, center))
    finest, coarsest = _FINEST * deviation, _COARSEST * deviation
    if not 0 < deviation < _LARGEST or finest == 0:
        coarsest = abs(center) or 1.0
        finest = coarsest * _FINEST_OF_EQUAL
    edges: set[float] = set()
    # Narrower bins than floats around the center can be told apart would all be empty.
    first = max(_exponent(finest), _exponent(abs(center)) - 40) if center else _exponent(finest)
    for exponent in range(first, max(first, _exponent(coarsest)) + 1):
        middle = math.ldexp(center, -exponent)
        third = round(3 * middle)
        for number in range(third - 3 * _REACH, third + 3 * _REACH + 1):
            if number % 3:
                edges.add(math.ldexp(number, exponent) / 3)
    return tuple(sorted(edges))


def _exponent(size: float) -> int:
    """Return the exponent of the greatest power of two that is at most a size."""
    return max(-960, math.frexp(size)[1] - 1)


class PredictionCounts:
    """Counts of the predictions of answered requests. Only the event loop may write it.

    Attributes:
        largest: predictions beyond, of either sign, are counted as this one.
        edges: upper edges of the bins; one more bin has no edge.
    """

    def __init__(self) -> None:
        self.largest = math.inf
        self.edges: tuple[float, ...] = ()
        self._bins = [0]
        self._sum = self._squares = 0.0

    def expect(self, largest: float, edges: tuple[float, ...]) -> None:
        """Set the limit and the edges of the bins, before the first prediction.

        Args:
            largest: largest prediction that is counted as it is.
            edges: upper edges of the bins, in ascending order; none to count without bins.
        """
        self.largest = largest
        self.edges = edges
        self._bins = [0] * (len(edges) + 1)

    def add(self, value: float) -> None:
        """Count one prediction."""
        if not -self.largest <= value <= self.largest:
            # A sum that holds a huge number loses the small ones that are added to it, so one request could make the
            # mean and the deviation of all later ones wrong, until the process ends.
            value = self.largest if value > 0 else -self.largest
        self._bins[bisect_left(self.edges, value)] += 1
        self._sum += value
        self._squares += value * value

    def collect(self, prefix: str, what: str) -> Iterator[Metric]:
        """Yield the counts as metrics.

        Args:
            prefix: prefix of the names.
            what: whose predictions they are, in a few words.
        """
        upto = list(accumulate(self._bins))
        # Sums of values that may be negative are gauges in the text format.
        for name, text, value in (
            ("count", "Number of predictions", float(upto[-1])),
            ("sum", "Sum of the predictions", self._sum),
            ("squares", "Sum of the squares of the predictions", self._squares),
        ):
            yield GaugeMetricFamily(f"{prefix}prediction_{name}", f"{text} of {what}.", value=value)
        if self.edges:
            bounds = [*map(repr, self.edges), "+Inf"]
            yield HistogramMetricFamily(
                f"{prefix}predictions", f"Predictions of {what}.", buckets=list(zip(bounds, upto, strict=True))
            )
