"""Profiles of columns: counts over bins or levels, in one pass over a stream of Arrow record batches.

Memory does not depend on the number of rows. The bins are chosen from a sample of both streams that are to be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.declarations.baseline import category
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Column

ProfileKind = Literal["numeric", "length", "levels"]
"""`numeric`: the values; `length`: the number of characters of texts; `levels`: the values as categories."""

SAMPLED_ROWS = 100_000
"""Rows of each stream from which the bins are chosen."""

MOST_EXACT_EDGES = 16_384
"""Distinct values up to which each is an edge; with more, the edges are `QUANTILE_EDGES` quantiles."""

QUANTILE_EDGES = 1_023

MOST_LEVELS = 50
"""Distinct texts up to which a text column is categorical, if the contract does not list its values."""

MOST_COUNTED_LEVELS = 1_000
"""Levels that are counted by name; more are counted together, as `OTHER_LEVELS`."""

OTHER_LEVELS = "(others)"

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


def not_profiled(column: Column) -> str:
    """Return why the distribution of a column is not compared; "" if it is."""
    if column.primary_key or column.unique:
        return "its values are unique"
    if column.logical_type in ("date", "timestamp"):
        return "dates move with time"
    return ""


def profile_streams(
    columns: Sequence[Column], reference: Iterable[pa.RecordBatch], current: Iterable[pa.RecordBatch]
) -> tuple[dict[str, ColumnProfile], dict[str, ColumnProfile]]:
    """Profile columns of two streams over the same bins and levels.

    Args:
        columns: columns of the contract to profile; a stream without one of them has nulls there.
        reference: the stream to compare with.
        current: the stream to judge.

    Returns:
        The profiles of the reference and of the current stream, by column.
    """
    old_sample, old = _sampled(reference)
    new_sample, new = _sampled(current)
    plans = {column.name: plan_profile(column, old_sample, new_sample) for column in columns}
    return profile(plans, chain(old_sample, old)), profile(plans, chain(new_sample, new))


def _sampled(stream: Iterable[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], Iterator[pa.RecordBatch]]:
    """Split a stream into its first record batches, of `SAMPLED_ROWS` rows or more, and the others."""
    rest, first, rows = iter(stream), [], 0
    for batch in rest:
        first.append(batch)
        rows += batch.num_rows
        if rows >= SAMPLED_ROWS:
            break
    return first, rest


def plan_profile(column: Column, *samples: Sequence[pa.RecordBatch]) -> ProfilePlan:
    """Choose how to count a column: as levels, or over bins that suit samples of all streams."""
    if column.logical_type == "boolean" or column.valid_values is not None:
        return ProfilePlan("levels")
    arrays = [array for sample in samples for batch in sample if (array := _array(batch, column.name)) is not None]
    if column.logical_type == "string":
        # Texts that may be personal are never kept, only their lengths.
        if not is_personal(column) and _count_distinct(arrays) <= MOST_LEVELS:
            return ProfilePlan("levels")
        return ProfilePlan("length", _edges([_numbers(pc.utf8_length(array)) for array in arrays]))
    return ProfilePlan("numeric", _edges([_numbers(array) for array in arrays]))


def _count_distinct(arrays: Iterable[pa.Array]) -> int:
    found: set[Any] = set()
    for array in arrays:
        found.update(pc.unique(array).to_pylist())
        if len(found) > MOST_LEVELS + 1:
            break
    return len(found - {None})


def _edges(arrays: Sequence[Edges]) -> Edges:
    values: Edges = np.sort(np.concatenate([np.empty(0), *arrays]))
    values = values[: len(values) - _count_nan(values)]
    if not len(values):
        return values
    distinct: Edges = values[np.concatenate([[True], values[1:] != values[:-1]])]
    if len(distinct) <= MOST_EXACT_EDGES:
        return distinct
    return np.unique(values[np.linspace(0, len(values) - 1, QUANTILE_EDGES).astype(np.intp)])


def _count_nan(ascending: Edges) -> int:
    """Count the NaN in a sorted array; they are at its end."""
    if not len(ascending) or not np.isnan(ascending[-1]):
        return 0
    return int(np.isnan(ascending).sum())


def profile(plans: Mapping[str, ProfilePlan], stream: Iterable[pa.RecordBatch]) -> dict[str, ColumnProfile]:
    """Count the columns of a stream by their plans."""
    counters = {name: ProfileCounter(plan) for name, plan in plans.items()}
    for batch in stream:
        for name, counter in counters.items():
            counter.add(_array(batch, name), batch.num_rows)
    return {name: counter.profile() for name, counter in counters.items()}


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
        self._mean = self._squares = 0.0  # of the values so far, and of their deviations from it

    def add(self, array: pa.Array | None, rows: int) -> None:
        """Count the values of more rows; None if these rows have no such column."""
        self._rows += rows
        if array is None:
            self._nulls += rows
        elif self._plan.kind == "levels":
            self._nulls += array.null_count
            self._add_levels(array)
        else:
            self._add_numbers(_numbers(pc.utf8_length(array) if self._plan.kind == "length" else array))

    def _add_levels(self, array: pa.Array) -> None:
        for pair in pc.value_counts(array):
            value = pair["values"].as_py()
            if value is None:
                continue
            name = category(value)
            if name not in self._levels and len(self._levels) >= MOST_COUNTED_LEVELS:
                name = OTHER_LEVELS
            self._levels[name] += pair["counts"].as_py()

    def _add_numbers(self, numbers: Edges) -> None:
        # Sorting the values and looking up the edges takes a tenth of the time of looking up each value.
        ascending = np.sort(numbers)
        nulls = _count_nan(ascending)
        self._nulls += nulls
        ascending = ascending[: len(ascending) - nulls]
        below = np.searchsorted(ascending, self._plan.edges, side="left")
        self._bins += np.diff(below, prepend=0, append=len(ascending))
        if len(ascending):
            self._add_moments(ascending)

    def _add_moments(self, values: Edges) -> None:
        """Merge the moments of more values into those so far, without loss of precision (Chan et al. 1983)."""
        more, so_far = len(values), int(self._bins.sum()) - len(values)
        mean = float(values.mean())
        squares = values - mean
        squares *= squares  # not a dot product: BLAS would wait for threads, for less than a millisecond of work
        difference = mean - self._mean
        self._squares += float(squares.sum()) + difference * difference * so_far * more / (so_far + more)
        self._mean += difference * more / (so_far + more)

    def profile(self) -> ColumnProfile:
        """Return the distribution of the rows so far."""
        plan, there = self._plan, self._rows - self._nulls
        if plan.kind == "levels":
            return ColumnProfile(plan.kind, self._rows, self._nulls, levels=dict(self._levels))
        mean = deviation = None
        if there and np.isfinite(self._squares):
            mean, deviation = self._mean, float(np.sqrt(self._squares / there))
        return ColumnProfile(
            plan.kind, self._rows, self._nulls, edges=plan.edges, bins=self._bins, mean=mean, deviation=deviation
        )


def _array(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    index = batch.schema.get_field_index(name)
    return batch.column(index) if index >= 0 else None


def _numbers(array: pa.Array) -> Edges:
    """Return values as 64-bit floats, with NaN for nulls."""
    numbers = array.cast(pa.float64(), safe=False)
    if numbers.null_count:
        numbers = numbers.fill_null(np.nan)
    values: Edges = np.from_dlpack(numbers)  # to_numpy would import pandas
    return values


def merged_bins(reference: ColumnProfile, current: ColumnProfile, most: int) -> tuple[Edges, Any, Any]:
    """Merge neighbouring bins of two profiles into about `most` groups with equal shares of the reference.

    Returns:
        The inner edges of the groups, and the counts of the reference and of the current profile.
    """
    cumulated = np.cumsum(reference.bins)
    total = int(cumulated[-1])
    if total == 0:
        return np.empty(0), reference.bins.sum(keepdims=True), current.bins.sum(keepdims=True)
    # The bin after which each share of the reference is reached; a bin with many values ends several at once.
    cuts = np.unique(np.searchsorted(cumulated, total * np.arange(1, most) / most, side="left"))
    cuts = cuts[cuts < len(reference.edges)]
    starts = np.concatenate([[0], cuts + 1]).astype(np.intp)
    return reference.edges[cuts], np.add.reduceat(reference.bins, starts), np.add.reduceat(current.bins, starts)
