"""Counts of parts of a stream add up to those of the whole: the same digits, however it is split."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.monitoring.profile_counter import ColumnProfile, ProfileCounter, ProfilePlan, sum_differences

numbers = st.floats(-1e12, 1e12) | st.floats(-1e-12, 1e-12) | st.sampled_from([1e6, 1e6 + 1e-9, math.nan])


def counted(plan: ProfilePlan, parts: list[pa.Array]) -> ColumnProfile:
    """Count each part by itself, and add them in the given order."""
    whole = ProfileCounter(plan)
    for part in parts:
        one = ProfileCounter(plan)
        one.add(part, len(part))
        whole.merge(one.partial())
    return whole.profile()


def facts(profile: ColumnProfile) -> tuple[object, ...]:
    levels = tuple(sorted(profile.levels.items()))
    return (profile.rows, profile.nulls, profile.bins.tolist(), levels, profile.mean, profile.deviation)


@settings(max_examples=30)
@given(st.lists(numbers, min_size=1, max_size=300), st.lists(st.integers(0, 300), max_size=5), st.randoms())
def test_the_moments_do_not_depend_on_the_parts_or_on_their_order(values: list[float], cuts: list[int], dice) -> None:  # type: ignore[no-untyped-def]
    array = pa.array(values, pa.float64())
    plan = ProfilePlan("numeric", np.array([-1.0, 0.0, 1e6]))
    whole = facts(counted(plan, [array]))
    ends = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    parts = [array.slice(start, end - start) for start, end in pairwise(ends)]
    dice.shuffle(parts)
    assert facts(counted(plan, parts)) == whole


def test_a_long_part_has_the_moments_of_its_parts() -> None:
    values = pa.array(np.random.default_rng(0).normal(1e6, 1e-3, size=140_000))
    plan = ProfilePlan("numeric", np.array([1e6]))
    parts = [values.slice(start, 9_000) for start in range(0, len(values), 9_000)]
    assert facts(counted(plan, [values])) == facts(counted(plan, parts))


def test_levels_and_nulls_add_up() -> None:
    parts = [pa.array(["a", None, "b"]), pa.array(["a", "c"]), pa.array([], pa.string())]
    found = counted(ProfilePlan("levels"), parts)
    assert facts(found) == (5, 1, [], (("a", 2), ("b", 1), ("c", 1)), None, None)


@pytest.mark.parametrize(
    "values", [[math.inf, 1.0], [math.inf, -math.inf] * 100, [1e308] * 300, [1.7e308, -1.7e308] * 99]
)
def test_values_whose_sums_are_not_finite_have_no_moments(values: list[float]) -> None:
    found = counted(ProfilePlan("numeric", np.array([0.0])), [pa.array(values)])
    assert (found.rows, found.values, found.mean, found.deviation) == (len(values), len(values), None, None)


def test_a_sum_keeps_what_one_number_cannot_hold() -> None:
    values = np.sort(np.array([1e16, 1.0, -1e16, 1e-8] * 1_000))
    total, _ = sum_differences(values, 0.0)
    assert sum(total) == math.fsum(values.tolist())
    assert float(values.sum()) != math.fsum(values.tolist())


@settings(max_examples=200)
@given(
    st.lists(st.floats(-1e150, 1e150) | st.floats(-1e3, 1e3) | st.sampled_from([0.0, 5e-324, 1e-300]), min_size=1),
    st.sampled_from([0.0, -1.5, 1e6 + 1e-9, 1e100]),
    st.sampled_from([1, 7, 300, 8_192, 8_193]),
)
def test_sums_of_differences_are_those_of_fractions(values: list[float], pivot: float, rows: int) -> None:
    ascending = np.sort(np.resize(values, rows))
    differences = [Fraction(value - pivot) for value in ascending.tolist()]
    for found, exact, size in zip(
        sum_differences(ascending, pivot),
        (sum(differences), sum(each * each for each in differences)),
        (sum(map(abs, differences)), sum(each * each for each in differences)),
        strict=True,
    ):
        # Numbers below the least have no digits: 1e-290 is far above their rounding errors.
        assert abs(Fraction(found[0]) + Fraction(found[1]) - exact) <= size / 2**100 + Fraction(1e-290)
