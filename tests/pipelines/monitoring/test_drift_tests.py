"""Our tests on counts agree with scipy on the values, and keep their bounds."""

from __future__ import annotations

import subprocess
import sys
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from pipelines.declarations.contract import Column
from pipelines.monitoring.column_profiles import (
    MOST_EXACT_EDGES,
    merged_bins,
    profile_streams,
)
from pipelines.monitoring.drift_tests import (
    LEAST_EXPECTED,
    adjusted,
    chi_square,
    distance_p_value,
    jensen_shannon,
    kolmogorov_smirnov,
    population_stability_index,
    proportion_p_value,
    rank_sum,
    total_variation,
)
from pipelines.monitoring.profile_counter import ColumnProfile

VALUE = Column.model_validate_json('{"name": "value", "logicalType": "number"}')

values = st.lists(
    st.one_of(st.floats(-1e6, 1e6, allow_nan=False), st.integers(-3, 3).map(float)), min_size=2, max_size=200
)
counts = st.lists(st.integers(0, 500), min_size=2, max_size=12)


def profiles(reference: list[float], current: list[float]) -> tuple[ColumnProfile, ColumnProfile]:
    streams = ([pa.record_batch({"value": pa.array(given, pa.float64())})] for given in (reference, current))
    old, new = profile_streams([VALUE], *streams)
    return old["value"], new["value"]


@settings(max_examples=200)
@given(values, values)
def test_the_distance_on_counts_is_that_of_scipy_on_values(reference: list[float], current: list[float]) -> None:
    old, new = profiles(reference, current)
    distance, p_value = kolmogorov_smirnov(old.bins, new.bins)
    expected = stats.ks_2samp(reference, current, method="asymp")
    assert distance == pytest.approx(expected.statistic, abs=1e-9)
    assert p_value == pytest.approx(expected.pvalue, abs=1e-9)


@pytest.mark.parametrize("moved", [100, 500, 690, 700, 900, 5_000])
def test_the_distance_of_many_rows_has_the_p_value_of_scipy(moved: int) -> None:
    """Chosen around the bounds of the three ways to compute it."""
    rows = 120_000
    distance, p_value = kolmogorov_smirnov(np.array([rows, rows]), np.array([rows - moved, rows + moved]))
    assert distance == pytest.approx(moved / (2 * rows))
    assert p_value == pytest.approx(stats.kstwo.sf(distance, rows), abs=1e-9)


@settings(max_examples=100)
@given(
    st.integers(1, 500) | st.integers(100_001, 5_000_000) | st.sampled_from([140, 141, 30_000]),
    st.floats(0, 3.4),
)
def test_every_distance_has_the_p_value_of_scipy(rows: int, scaled: float) -> None:
    distance = min(scaled / rows**0.5, 1.0)
    # The survival function would sum a term for each of many rows.
    expected = stats.kstwo.sf(distance, rows) if rows <= 100_000 else 1 - stats.kstwo.cdf(distance, rows)
    assert distance_p_value(distance, rows) == pytest.approx(expected, abs=1e-12)


def test_monitors_of_many_rows_do_not_import_scipy_stats() -> None:
    """It takes longer than to profile a million values."""
    program = """
import sys, numpy as np
from pipelines.monitoring.column_drift import compare_column, judge_drift, judge_nulls
from pipelines.monitoring.profile_counter import ColumnProfile
from pipelines.declarations.data_monitoring import DataMonitorSettings
old, new = (ColumnProfile("numeric", 30_000, 10, np.array([1.0]), np.array([rows, 29_990 - rows]))
            for rows in (15_000, 15_100))
compared = [compare_column(name, old, new) for name in "ab"]
judge_drift(compared, DataMonitorSettings())
judge_nulls(compared, DataMonitorSettings())
assert compared[0].p_value is not None and 0.1 < compared[0].p_value <= 1
print("scipy.stats" in sys.modules)
"""
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


@settings(max_examples=200)
@given(values, values)
def test_the_rank_sum_on_counts_is_that_of_scipy_on_values(reference: list[float], current: list[float]) -> None:
    old, new = profiles(reference, current)
    expected = stats.mannwhitneyu(reference, current, use_continuity=False, method="asymptotic").pvalue
    assert rank_sum(old.bins, new.bins) == pytest.approx(1.0 if np.isnan(expected) else expected, abs=1e-9)


def test_equal_values_and_a_billion_rows_have_a_rank_sum() -> None:
    assert rank_sum(np.array([0, 9, 0]), np.array([0, 4, 0])) == 1.0
    assert rank_sum(np.array([1]), np.array([1])) == 1.0
    billion = np.full(10, 10**8, dtype=np.int64)
    assert rank_sum(billion, billion) == pytest.approx(1.0)
    assert rank_sum(billion, np.sort(billion + np.arange(10) * 10**5)) < 1e-9


@settings(max_examples=200)
@given(values, values)
def test_moments_and_counts_are_those_of_the_values(reference: list[float], current: list[float]) -> None:
    for profile, given_values in zip(profiles(reference, current), (reference, current), strict=True):
        assert profile.bins.sum() == profile.values == len(given_values)
        scale = max(1.0, float(np.abs(given_values).max()))
        assert profile.mean == pytest.approx(np.mean(given_values), abs=1e-9 * scale)
        assert profile.deviation == pytest.approx(np.std(given_values), abs=1e-9 * scale)


@given(values, values, st.integers(2, 12))
def test_merged_bins_keep_every_value_and_are_about_equal(
    reference: list[float], current: list[float], most: int
) -> None:
    old, new = profiles(reference, current)
    edges, old_groups, new_groups = merged_bins(old, new, most)
    assert len(old_groups) == len(new_groups) == len(edges) + 1 <= most
    assert (old_groups.sum(), new_groups.sum()) == (len(reference), len(current))
    # Only the last bin of a group can make it larger than its share.
    heaviest = old.bins.max()
    assert old_groups.max() <= len(reference) / most + heaviest + 1


@settings(max_examples=200)
@given(counts, st.data())
def test_chi_square_is_that_of_scipy_if_no_bin_is_pooled(old: list[int], data: st.DataObject) -> None:
    new = data.draw(st.lists(st.integers(0, 500), min_size=len(old), max_size=len(old)))
    a, b = np.array(old) + 50, np.array(new) + 50
    for ordered in (True, False):
        statistic, p_value, freedom = chi_square(a, b, ordered=ordered)
        expected = stats.chi2_contingency(np.stack([a, b]), correction=False)
        if (expected.expected_freq < LEAST_EXPECTED).any():
            continue
        assert freedom == expected.dof
        assert statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        assert p_value == pytest.approx(expected.pvalue, abs=1e-9)


@given(counts, st.data(), st.booleans())
def test_pooled_cells_have_enough_expected_rows(old: list[int], data: st.DataObject, ordered: bool) -> None:
    from pipelines.monitoring.drift_tests import _pooled

    new = data.draw(st.lists(st.integers(0, 500), min_size=len(old), max_size=len(old)))
    table = np.stack([np.array(old, dtype=np.int64), np.array(new, dtype=np.int64)])
    pooled = _pooled(table, ordered=ordered)
    assert (pooled.sum(axis=1) == table.sum(axis=1)).all()
    if pooled.shape[1] > 1 and pooled.sum():
        expected = np.outer(pooled.sum(axis=1), pooled.sum(axis=0)) / pooled.sum()
        assert expected.min() >= LEAST_EXPECTED - 1e-9


def test_a_single_bin_or_an_empty_side_is_no_evidence() -> None:
    assert chi_square(np.array([9]), np.array([3]), ordered=True) == (0.0, 1.0, 0)
    assert chi_square(np.array([9, 9]), np.array([0, 0]), ordered=False) == (0.0, 1.0, 0)


@given(counts, st.data())
def test_effect_sizes_are_distances(old: list[int], data: st.DataObject) -> None:
    new = data.draw(st.lists(st.integers(0, 500), min_size=len(old), max_size=len(old)))
    a, b = np.array(old) + 1, np.array(new) + 1
    assert jensen_shannon(a, b) == pytest.approx(float(np.nan_to_num(jensenshannon(a, b, base=2))), abs=1e-15)
    assert 0 <= total_variation(a, b) <= 1
    assert total_variation(a, a) == 0
    assert population_stability_index(a, b) >= -1e-12


def test_total_variation_is_the_share_of_rows_that_moved() -> None:
    assert total_variation(np.array([50, 50]), np.array([60, 40])) == pytest.approx(0.1)
    assert total_variation(np.array([1, 0]), np.array([0, 7])) == 1


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_share_is_tested_by_fishers_exact_test(a: int, b: int) -> None:
    for side in ("greater", "two-sided"):
        expected = stats.fisher_exact([[b, 50 - b], [a, 60 - a]], alternative=side).pvalue
        assert proportion_p_value((a, 60), (b, 50), side) == pytest.approx(expected, abs=1e-9)


def test_shares_of_many_rows_are_tested_by_their_normal_approximation() -> None:
    exact = stats.fisher_exact([[300, 14_700], [200, 14_800]], alternative="greater").pvalue
    assert proportion_p_value((200, 15_000), (300, 15_000), "greater") == pytest.approx(exact, rel=0.3)
    assert proportion_p_value((0, 15_000), (0, 15_000), "two-sided") == 1


@given(st.lists(st.floats(0, 1), max_size=20))
def test_p_values_are_adjusted_like_scipy_does(p_values: list[float]) -> None:
    cases: dict[Literal["positive", "any"], str] = {"positive": "bh", "any": "by"}
    for dependence, method in cases.items():
        expected = stats.false_discovery_control(p_values, method=method) if p_values else []
        assert adjusted(p_values, dependence) == pytest.approx(list(expected), abs=1e-15)


def test_with_many_distinct_values_the_bins_are_quantiles_and_the_test_is_conservative() -> None:
    rng = np.random.default_rng(5)
    reference, current = rng.normal(size=40_000), rng.normal(0.05, 1, size=30_000)
    assert len(np.unique(reference)) > MOST_EXACT_EDGES
    old, new = profiles(reference.tolist(), current.tolist())
    assert len(old.edges) <= 1_023
    distance, p_value = kolmogorov_smirnov(old.bins, new.bins)
    expected = stats.ks_2samp(reference, current, method="asymp")
    assert expected.statistic - 0.002 <= distance <= expected.statistic
    assert p_value >= expected.pvalue
