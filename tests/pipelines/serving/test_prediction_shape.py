"""Distance between the shapes of two distributions: against SciPy, and what it must not depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.prediction_shape import BinnedPredictions, compare_shapes

EDGES = bin_edges(50.0, 10.0)
VALUES = st.lists(st.floats(-200, 300), min_size=1, max_size=60)


def binned(values: Any, edges: Sequence[float] = EDGES) -> BinnedPredictions:
    ordered = np.sort(np.asarray(values, dtype=float))
    upto = np.searchsorted(ordered, edges, side="right")
    return BinnedPredictions(tuple(edges), tuple(int(number) for number in upto), len(ordered))


def normal(mean: float, deviation: float, count: int = 4_000) -> Any:
    return stats.norm.ppf((np.arange(count) + 0.5) / count) * deviation + mean


def distance(first: Any, second: Any) -> float:
    found = compare_shapes(binned(first), binned(second))
    assert found is not None
    return found.distance


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (normal(50, 15), normal(50, 10)),
        (normal(50, 5), normal(50, 10)),
        (np.full(100, 51.0), normal(50, 10)),
        (np.repeat([40.0, 60.0], 500), normal(50, 10)),
        (np.repeat([40.0, 60.0], [300, 700]), np.repeat([40.0, 60.0], [700, 300])),
        (stats.uniform.ppf((np.arange(1000) + 0.5) / 1000) * 40 + 30, normal(50, 10)),
        (stats.gamma.ppf((np.arange(1000) + 0.5) / 1000, 2) * 7 + 35, normal(50, 10)),
    ],
)
def test_the_distance_is_the_one_of_scipy_after_the_best_shift(first: Any, second: Any) -> None:
    found = compare_shapes(binned(first), binned(second))
    assert found is not None
    expected = min(stats.wasserstein_distance(first + shift, second) for shift in np.linspace(-20, 20, 161))
    assert found.distance == pytest.approx(expected, abs=found.resolution)
    assert found.first.mean - found.second.mean == pytest.approx(found.distance)
    assert found.least() <= expected + 1e-6


def test_the_deviation_of_the_distance_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(3)
    runs = [compare_shapes(binned(rng.normal(50, 15, 400)), binned(rng.normal(50, 10, 1_600))) for _ in range(200)]
    found = [run for run in runs if run is not None]
    stated = np.mean([run.first.variance / 400 + run.second.variance / 1_600 for run in found]) ** 0.5
    assert np.std([run.distance for run in found]) == pytest.approx(stated, rel=0.2)


@pytest.mark.parametrize("shift", [-25.0, -3.0, 0.4, 8.0, 30.0])
def test_a_shift_of_all_predictions_is_not_a_difference_of_shape(shift: float) -> None:
    found = compare_shapes(binned(normal(50 + shift, 10)), binned(normal(50, 10)))
    assert found is not None
    assert found.distance < found.resolution


@given(st.floats(0, 100), st.floats(-1.5, 1.5))
def test_predictions_that_never_vary_have_the_same_shape_wherever_the_edges_are(value: float, move: float) -> None:
    found = compare_shapes(binned([value] * 50 + [45.0] * 20), binned([value + move] * 50 + [45.0] * 20))
    assert found is not None
    assert found.distance <= found.resolution + abs(move)
    assert found.least() <= 1e-9 + abs(move)


@given(VALUES, VALUES)
def test_the_distance_of_any_predictions_is_a_number_and_the_same_in_both_directions(
    first: list[float], second: list[float]
) -> None:
    ours, theirs = compare_shapes(binned(first), binned(second)), compare_shapes(binned(second), binned(first))
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert 0 <= ours.least() <= ours.distance + 1e-9 < 600
        assert ours.distance == pytest.approx(theirs.distance, abs=1e-6)
        assert ours.first.variance >= 0 <= ours.second.variance


@given(VALUES, VALUES)
def test_counts_add_up_and_later_ones_are_never_negative(earlier: list[float], later: list[float]) -> None:
    first, every = binned(earlier), binned(earlier + later)
    assert every - first == binned(later)
    assert first + binned(later) == every
    assert min((every - first).upto) >= 0
    assert first + BinnedPredictions() == first == BinnedPredictions() + first


def test_predictions_in_other_bins_are_compared_by_the_edges_that_both_have() -> None:
    live = binned(normal(50, 10), bin_edges(57.0, 18.0))
    for canary, low, high in ((normal(50, 10), 0.0, 1.0), (np.full(400, 50.0), 7.0, 9.0)):
        found = compare_shapes(binned(canary, bin_edges(46.0, 6.0)), live)
        assert found is not None
        assert low <= found.distance <= high


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BinnedPredictions(), binned([1.0, 2.0])),
        (BinnedPredictions((), (), 5), binned([50.0])),
        (binned([50.0], EDGES), binned([50.0], bin_edges(9e9, 1.0))),
        (binned([1e9] * 20 + [50.0] * 80), binned([50.0])),
        (BinnedPredictions(EDGES[-4:], (0, 5, 3, 9), 9), binned([50.0])),
        (BinnedPredictions(EDGES[-4:], (-1, 5, 8, 9), 9), binned([50.0])),
        (BinnedPredictions(EDGES[-4:], (0, 5, 8, 19), 9), binned([50.0])),
    ],
)
def test_bins_that_do_not_hold_the_predictions_say_nothing(first: BinnedPredictions, second: BinnedPredictions) -> None:
    assert compare_shapes(first, second) is None
    assert compare_shapes(second, first) is None
