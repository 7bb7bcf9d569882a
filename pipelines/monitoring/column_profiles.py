"""Profiles of columns: counts over bins or levels, in one pass over a stream of Arrow record batches.

Memory does not depend on the number of rows. The bins are chosen from a sample of both streams that are to be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Column
from pipelines.monitoring.profile_counter import (
    ColumnProfile,
    Edges,
    ProfileCounter,
    ProfilePlan,
    count_nan,
    numbers_of,
)

SAMPLED_ROWS = 100_000
"""Rows of each stream from which the bins are chosen."""

MOST_EXACT_EDGES = 16_384
"""Distinct values up to which each is an edge; with more, the edges are `QUANTILE_EDGES` quantiles."""

QUANTILE_EDGES = 1_023

MOST_LEVELS = 50
"""Distinct texts up to which a text column is categorical, if the contract does not list its values."""


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
    old_sample, old = take_sample(reference)
    new_sample, new = take_sample(current)
    plans = {column.name: plan_profile(column, old_sample, new_sample) for column in columns}
    return profile(plans, chain(old_sample, old)), profile(plans, chain(new_sample, new))


def take_sample(stream: Iterable[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], Iterator[pa.RecordBatch]]:
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
        return ProfilePlan("length", _edges([numbers_of(pc.utf8_length(array)) for array in arrays]))
    return ProfilePlan("numeric", _edges([numbers_of(array) for array in arrays]))


def _count_distinct(arrays: Iterable[pa.Array]) -> int:
    found: set[Any] = set()
    for array in arrays:
        found.update(pc.unique(array).to_pylist())
        if len(found) > MOST_LEVELS + 1:
            break
    return len(found - {None})


def _edges(arrays: Sequence[Edges]) -> Edges:
    values: Edges = np.sort(np.concatenate([np.empty(0), *arrays]))
    values = values[: len(values) - count_nan(values)]
    if not len(values):
        return values
    distinct: Edges = values[np.concatenate([[True], values[1:] != values[:-1]])]
    if len(distinct) <= MOST_EXACT_EDGES:
        return distinct
    return np.unique(values[np.linspace(0, len(values) - 1, QUANTILE_EDGES).astype(np.intp)])


def profile(plans: Mapping[str, ProfilePlan], stream: Iterable[pa.RecordBatch]) -> dict[str, ColumnProfile]:
    """Count the columns of a stream by their plans."""
    counters = {name: ProfileCounter(plan) for name, plan in plans.items()}
    for batch in stream:
        for name, counter in counters.items():
            counter.add(_array(batch, name), batch.num_rows)
    return {name: counter.profile() for name, counter in counters.items()}


def _array(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    index = batch.schema.get_field_index(name)
    return batch.column(index) if index >= 0 else None


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
