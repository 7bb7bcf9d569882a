"""Profiles count every row once, whatever the type of a column and however the stream is split."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ks_2samp, mannwhitneyu

from pipelines.declarations.contract import Column
from pipelines.declarations.data_monitoring import DataMonitorSettings
from pipelines.monitoring.column_drift import compare_column
from pipelines.monitoring.column_profiles import (
    MOST_LEVELS,
    not_profiled,
    plan_profile,
    profile_streams,
)
from pipelines.monitoring.data_monitor import shown_comparison
from pipelines.monitoring.profile_counter import MOST_COUNTED_LEVELS, OTHER_LEVELS, ColumnProfile


def declared(kind: str, **keys: Any) -> Column:
    return Column.model_validate_json(json.dumps({"name": "c", "logicalType": kind, **keys}))


def profiles(column: Column, reference: pa.Array, current: pa.Array, size: int = 7) -> tuple[ColumnProfile, ...]:
    streams = [pa.Table.from_pydict({"c": given}).to_batches(max_chunksize=size) for given in (reference, current)]
    old, new = profile_streams([column], *streams)
    return old["c"], new["c"]


def test_nulls_and_nan_have_no_value() -> None:
    old, new = profiles(declared("number"), pa.array([1.0, None, float("nan"), 2.0]), pa.array([None], pa.float64()))
    assert (old.rows, old.nulls, old.values, old.mean) == (4, 2, 2, 1.5)
    assert (new.rows, new.nulls, new.mean, new.bins.sum()) == (1, 1, None, 0)


def test_a_column_that_a_stream_does_not_have_is_null_there() -> None:
    column = declared("number")
    old, new = profile_streams(
        [column], [pa.record_batch({"other": [1, 2]})], [pa.record_batch({"c": [1.0, 2.0, 3.0]})]
    )
    assert (old["c"].rows, old["c"].nulls) == (2, 2)
    assert (new["c"].rows, new["c"].nulls) == (3, 0)


def test_a_constant_column_is_two_bins_of_which_one_is_empty() -> None:
    old, new = profiles(declared("integer"), pa.array([5] * 30), pa.array([5] * 20))
    assert (old.bins.tolist(), new.bins.tolist()) == ([0, 30], [0, 20])
    assert old.deviation == 0


@pytest.mark.parametrize(
    ("column", "array", "levels"),
    [
        (declared("boolean"), pa.array([True, False, True, None]), {"0": 1, "1": 2}),
        (declared("integer", enum=[{"value": 1}, {"value": 2}]), pa.array([1, 2, 2]), {"1": 1, "2": 2}),
        (declared("string"), pa.array(["a", "b", "a", None]), {"a": 2, "b": 1}),
    ],
)
def test_columns_with_few_values_are_counted_by_level(column: Column, array: pa.Array, levels: dict[str, int]) -> None:
    old, _ = profiles(column, array, array)
    assert dict(old.levels) == levels
    assert old.values == sum(levels.values())


def test_texts_with_many_values_are_profiled_by_their_length() -> None:
    texts = pa.array(["x" * number for number in range(MOST_LEVELS + 5)])
    old, _ = profiles(declared("string"), texts, texts)
    assert old.kind == "length"
    assert old.mean == pytest.approx((MOST_LEVELS + 4) / 2)


@pytest.mark.parametrize("keys", [{"classification": "personal"}, {"tags": ["PII"]}])
def test_texts_of_a_personal_column_are_never_kept(keys: dict[str, Any]) -> None:
    texts = pa.array(["ada@example.org", "grace@example.org"] * 100)
    old, new = profiles(declared("string", **keys), texts, texts)
    assert (old.kind, dict(old.levels), dict(new.levels)) == ("length", {}, {})
    old, _ = profiles(declared("string", classification="internal"), texts, texts)
    assert old.kind == "levels"


@pytest.mark.parametrize(
    ("column", "is_shown"),
    [
        (declared("integer"), True),
        (declared("integer", classification="public"), True),
        (declared("integer", classification="restricted"), False),
        (declared("number", tags=["sensitive"]), False),
        (declared("string", classification="restricted"), True),
        (declared("boolean", classification="restricted"), True),
        (declared("integer", classification="protected", enum=[{"value": 41}, {"value": 4177}]), True),
    ],
)
def test_a_report_shows_no_values_of_rows_that_may_be_personal(column: Column, is_shown: bool) -> None:
    values: dict[str, list[Any]] = {"string": ["a", "bb"], "boolean": [True, False]}
    given = values.get(column.logical_type, [41, 4177])
    comparison = compare_column("c", *profiles(column, pa.array(given * 100), pa.array(given * 100)))
    shown = shown_comparison(comparison, column, DataMonitorSettings())
    assert shown.effect == comparison.effect and shown.p_value is not None
    assert bool(shown.bars) == is_shown
    assert is_shown or not ("41" in shown.model_dump_json() or 'mean":2' in shown.model_dump_json())


def test_the_label_of_a_level_can_be_printed() -> None:
    texts = pa.array(["a\x1b[31m", "b\u202e"] * 100)
    comparison = compare_column("c", *profiles(declared("string"), texts, texts))
    assert all(bar.label.isprintable() for bar in comparison.bars)


def test_a_shifted_mean_shows_in_the_ranks_first() -> None:
    rng = np.random.default_rng(1)
    old, new = rng.normal(size=5_000), rng.normal(0.12, 1, 1_000)
    comparison = compare_column("c", *profiles(declared("number"), pa.array(old), pa.array(new), size=10_000))
    by_ranks, by_distance = mannwhitneyu(old, new).pvalue, ks_2samp(old, new).pvalue
    assert 3 * by_ranks < by_distance
    assert comparison.p_value == pytest.approx(3 * by_ranks, rel=0.2), "three times the least of the three tests"


def test_a_flood_of_new_levels_is_counted_together() -> None:
    column = declared("integer", enum=[{"value": 1}])
    _old, new = profiles(column, pa.array([1]), pa.array(range(MOST_COUNTED_LEVELS + 500)), size=100_000)
    assert len(new.levels) <= MOST_COUNTED_LEVELS + 1
    assert new.levels[OTHER_LEVELS] == 500
    assert sum(new.levels.values()) == MOST_COUNTED_LEVELS + 500


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_split_of_a_stream_makes_no_difference(size: int) -> None:
    values = pa.array(np.random.default_rng(0).normal(size=997))
    whole, _ = profiles(declared("number"), values, values, size=10_000)
    parts, _ = profiles(declared("number"), values, values, size=size)
    assert (whole.bins == parts.bins).all()
    assert parts.mean == pytest.approx(whole.mean, abs=1e-12)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (declared("integer", primaryKey=True), "unique"),
        (declared("string", unique=True), "unique"),
        (declared("timestamp"), "time"),
        (declared("date"), "time"),
        (declared("number"), ""),
    ],
)
def test_columns_that_always_change_are_left_out_with_a_reason(column: Column, reason: str) -> None:
    assert reason in not_profiled(column)
    assert bool(not_profiled(column)) == bool(reason)


def test_an_empty_stream_has_a_plan() -> None:
    assert plan_profile(declared("number"), [], []).kind == "numeric"
    old, new = profile_streams([declared("number")], [], [])
    assert (old["c"].rows, new["c"].rows) == (0, 0)
