"""Counts of one column over a stream: bins or levels, nulls and moments.

The counts of parts of a stream add up to those of the whole, whatever the parts are and in whatever order they are
added, so that processes on several machines can share a stream. This module runs on machines that have numpy and
pyarrow and nothing of this project, so it imports nothing else of the project than `category`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.declarations.baseline import category

ProfileKind = Literal["numeric", "length", "levels"]
"""`numeric`: the values; `length`: the number of characters of texts; `levels`: the values as categories."""

MOST_COUNTED_LEVELS = 1_000
"""Levels that are counted by name; more are counted together, as `OTHER_LEVELS`."""

OTHER_LEVELS = "(others)"

_SUMMED_AT_ONCE = 65_536
"""Values whose sums are computed at once; bounds the memory, five times that of the values."""

_PIECE_BITS = 20
"""Digits of a piece of a number: its products have 40, so that the sum of 2^13 of them has at most 53."""

_PRODUCTS = 2**13
"""Products of pieces that are summed at once."""

_MOST_SQUARED = 2.0**500
"""Difference above which the sum of squares may be greater than the largest number."""

Sum = tuple[float, float]
"""The unevaluated sum of two numbers: twice the precision of one."""

Edges = NDArray[np.float64]


@dataclass(frozen=True)
class ColumnProfile:
    """Distribution of one column over the rows of a stream.

    Attributes:
        kind: what was counted.
        rows: number of rows, including nulls.
        nulls: rows without a value; NaN counts as one.
        edges: inner edges of the bins, ascending; bin `i` holds edges[i-1] <= value < edges[i]. Empty for levels.
        bins: values in each bin, one more than `edges`. Empty for levels.
        levels: level → number of rows. Empty for bins.
        mean, deviation: mean and standard deviation of the values; None for levels or without values.
    """

    kind: ProfileKind
    rows: int
    nulls: int
    edges: Edges = field(default_factory=lambda: np.empty(0))
    bins: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    levels: Mapping[str, int] = field(default_factory=dict)
    mean: float | None = None
    deviation: float | None = None

    @property
    def values(self) -> int:
        """Number of rows with a value."""
        return self.rows - self.nulls


@dataclass(frozen=True)
class ProfilePlan:
    """How to count one column.

    Attributes:
        kind: what to count.
        edges: inner edges of the bins; empty for levels.
    """

    kind: ProfileKind
    edges: Edges = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class PartialProfile:
    """Counts of one column over a part of a stream; they add up.

    Attributes:
        rows: number of rows, including nulls.
        nulls: rows without a value.
        bins: values in each bin; one bin for levels.
        levels: level → number of rows.
        sums: sum of the values' differences from the plan's pivot, and of their squares. Each is the unevaluated sum of
            two numbers, so that rounding does not depend on how the stream is split.
    """

    rows: int
    nulls: int
    bins: NDArray[np.int64]
    levels: Mapping[str, int]
    sums: tuple[tuple[float, float], tuple[float, float]]


class ProfileCounter:
    """Running counts of one column.

    Args:
        plan: how to count it.
    """

    def __init__(self, plan: ProfilePlan) -> None:
        self._plan = plan
        self._rows = self._nulls = 0
        self._bins = np.zeros(len(plan.edges) + 1, dtype=np.int64)
        self._levels: Counter[str] = Counter()
        self._sum = self._squares = (0.0, 0.0)
        # A number near the values, so that little is lost when the square of the mean is subtracted.
        self._pivot = float(plan.edges[len(plan.edges) // 2]) if len(plan.edges) else 0.0
        if not math.isfinite(self._pivot):
            self._pivot = 0.0

    def add(self, array: pa.Array | None, rows: int) -> None:
        """Count the values of more rows; None if these rows have no such column."""
        self._rows += rows
        if array is None:
            self._nulls += rows
        elif self._plan.kind == "levels":
            self._nulls += array.null_count
            counts = pc.value_counts(array)
            values, numbers = counts.field("values").to_pylist(), counts.field("counts").to_pylist()
            self._add_levels({category(v): n for v, n in zip(values, numbers, strict=True) if v is not None})
        else:
            self._add_numbers(numbers_of(pc.utf8_length(array) if self._plan.kind == "length" else array))

    def merge(self, part: PartialProfile) -> None:
        """Add the counts of another part of the stream, made by the same plan."""
        self._rows += part.rows
        self._nulls += part.nulls
        self._bins += part.bins
        self._add_levels(part.levels)
        self._sum = add_exactly(self._sum, part.sums[0])
        self._squares = add_exactly(self._squares, part.sums[1])

    def partial(self) -> PartialProfile:
        """Return the counts so far."""
        return PartialProfile(self._rows, self._nulls, self._bins, dict(self._levels), (self._sum, self._squares))

    def _add_levels(self, levels: Mapping[str, int]) -> None:
        for level, count in levels.items():
            known = level in self._levels or len(self._levels) < MOST_COUNTED_LEVELS
            self._levels[level if known else OTHER_LEVELS] += count

    def _add_numbers(self, numbers: Edges) -> None:
        # Sorting the values and looking up the edges takes a tenth of the time of looking up each value.
        ascending = np.sort(numbers)
        nulls = count_nan(ascending)
        self._nulls += nulls
        ascending = ascending[: len(ascending) - nulls]
        below = np.searchsorted(ascending, self._plan.edges, side="left")
        self._bins += np.diff(below, prepend=0, append=len(ascending))
        for start in range(0, len(ascending), _SUMMED_AT_ONCE):
            total, squares = sum_differences(ascending[start : start + _SUMMED_AT_ONCE], self._pivot)
            self._sum = add_exactly(self._sum, total)
            self._squares = add_exactly(self._squares, squares)

    def profile(self) -> ColumnProfile:
        """Return the distribution of the rows so far."""
        plan, there = self._plan, self._rows - self._nulls
        if plan.kind == "levels":
            return ColumnProfile(plan.kind, self._rows, self._nulls, levels=dict(self._levels))
        mean = deviation = None
        if there and all(map(math.isfinite, (*self._sum, *self._squares))):
            # In fractions: the result is rounded once, at the end.
            total, squares = (Fraction(high) + Fraction(low) for high, low in (self._sum, self._squares))
            mean = float(Fraction(self._pivot) + total / there)
            deviation = math.sqrt(max(Fraction(0), (squares - total * total / there) / there))
        return ColumnProfile(
            plan.kind, self._rows, self._nulls, edges=plan.edges, bins=self._bins, mean=mean, deviation=deviation
        )


def sum_differences(ascending: Edges, pivot: float) -> tuple[Sum, Sum]:
    """Sum the differences of numbers from a pivot, and the squares of the differences.

    Each difference is split into three pieces of few digits and a rest (Rump, Ogita and Oishi 2008). The pieces of all
    differences have the same unit, so their sums and those of their products are exact, in whatever order they are
    added. The rest is so small that its rounding errors do not count.

    Args:
        ascending: the numbers, sorted, without NaN; at least one.
        pivot: a finite number near them.

    Returns:
        Both sums, with about twice the precision of a number; NaN if a number is infinite or its square would be.
    """
    most = max(abs(float(ascending[0]) - pivot), abs(float(ascending[-1]) - pivot))
    if not most < _MOST_SQUARED:
        return (math.nan, math.nan), (math.nan, math.nan)
    width = min(len(ascending), _PRODUCTS)
    rows = -(-len(ascending) // width)
    table = np.empty((5, rows * width))
    table[:, len(ascending) :] = 0.0
    differences, *pieces, rest = table[:, : len(ascending)]
    np.subtract(ascending, pivot, out=differences)
    unit = math.frexp(most)[1]  # `most` is less than 2^unit
    left = differences
    for piece in pieces:
        unit -= _PIECE_BITS
        # So large that the unit of the sum's last digit is that of the piece: the sum is rounded to it.
        shift = math.ldexp(1.5, unit + 52)
        np.add(left, shift, out=piece)
        piece -= shift
        np.subtract(left, piece, out=rest)
        left = rest
        unit -= 1  # what is left is at most half a unit
    whole, first, second, third, last = table.reshape(5, rows, width)
    squares = [
        *(np.vecdot(piece, piece) for piece in (first, second, third)),
        *(2 * np.vecdot(*pair) for pair in ((first, second), (first, third), (second, third), (last, whole))),
    ]
    return _unevaluated(table[1:].sum(axis=1)), _unevaluated(np.concatenate(squares))


def _unevaluated(values: Edges) -> Sum:
    numbers = values.tolist()
    total = math.fsum(numbers)
    return total, math.fsum((*numbers, -total))


def add_exactly(left: tuple[float, float], right: tuple[float, float]) -> tuple[float, float]:
    """Add two unevaluated sums."""
    total = left[0] + right[0]
    added = total - left[0]
    error = (left[0] - (total - added)) + (right[0] - added)
    return total, error + left[1] + right[1]


def numbers_of(array: pa.Array) -> Edges:
    """Return values as 64-bit floats, with NaN for nulls."""
    numbers = array.cast(pa.float64(), safe=False)
    if numbers.null_count:
        numbers = numbers.fill_null(np.nan)
    return np.asarray(np.from_dlpack(numbers), dtype=np.float64)  # to_numpy would import pandas


def count_nan(ascending: Edges) -> int:
    """Count the NaN in a sorted array; they are at its end."""
    if not len(ascending) or not np.isnan(ascending[-1]):
        return 0
    return int(np.isnan(ascending).sum())
