"""The verdict about a canary, from counts of its requests and of those of the live pods."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipelines.declarations.canary_settings import CanaryBounds
from pipelines.serving.canary_analysis import POWER, RequestTotals, judge_canary, requests_needed
from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.prediction_shape import BinnedPredictions
from pipelines.serving.sequential_tests import Moments

BOUNDS = CanaryBounds(error_rate=0.01, p99_ms=20, error_increase=0.1, prediction_shift=1)


def moments(count: int, mean: float, deviation: float) -> Moments:
    return Moments(count, count * mean, deviation**2 * (count - 1) + count * mean**2 if count else 0.0)


def totals(
    requests: int, *, errors: int = 0, slow: int = 0, seconds: float = 0.001, prediction: float = 50.0
) -> RequestTotals:
    """Return what pods answered; predictions have a standard deviation of 10."""
    answered = requests - errors
    return RequestTotals(
        requests=requests,
        errors=errors,
        slow=slow,
        latency=moments(answered, math.log(seconds), 0.5),
        predictions=moments(answered, prediction, 10.0),
    )


GOOD = totals(5_000)


def harm(canary: RequestTotals, live: RequestTotals = GOOD, bounds: CanaryBounds = BOUNDS) -> list[str]:
    verdict = judge_canary(canary, live, bounds)
    found = [finding.metric for finding in verdict.findings if finding.is_harm]
    assert (verdict.outcome == "failed") == bool(found)
    return found


@pytest.mark.parametrize(
    ("canary", "live"),
    [
        (totals(0), totals(0)),
        (totals(0), GOOD),
        (GOOD, totals(0)),
        (totals(1), totals(1)),
        (totals(40), totals(80)),
    ],
)
def test_too_few_requests_neither_stop_a_canary_nor_let_it_pass(canary: RequestTotals, live: RequestTotals) -> None:
    verdict = judge_canary(canary, live, BOUNDS)
    assert verdict.outcome == "inconclusive"
    assert verdict.summary.startswith("no verdict yet: ")


def test_a_canary_like_the_live_pods_passes_with_enough_requests() -> None:
    verdict = judge_canary(totals(500), GOOD, BOUNDS)
    assert verdict.outcome == "passed"
    assert verdict.needed is not None and verdict.needed <= verdict.requests
    assert harm(totals(500, errors=1), totals(5_000, errors=10)) == []


def test_the_summary_says_how_many_requests_are_missing() -> None:
    verdict = judge_canary(totals(20), totals(180), BOUNDS)
    assert verdict.needed is not None
    assert verdict.summary.endswith(f"about {verdict.needed - 200:,} more are needed")


def test_more_errors_than_the_live_pods_are_harm() -> None:
    assert harm(totals(500, errors=50)) == ["errors"]
    assert harm(totals(500, errors=50), totals(5_000, errors=500)) == [], "the live pods err as often"


def test_errors_within_the_declared_bound_are_not_harm() -> None:
    few, none = totals(100_000, errors=100), totals(100_000)
    assert harm(few, none) == []
    assert judge_canary(few, none, BOUNDS).findings[0].is_significant, "one key of two"
    assert harm(few, none, BOUNDS.model_copy(update={"error_rate": 0.0005})) == ["errors"]


def test_a_canary_that_answers_nothing_correctly_is_stopped_although_it_has_no_latency() -> None:
    assert harm(totals(40, errors=40)) == ["errors"]


def test_slower_than_the_live_pods_and_than_declared_is_harm() -> None:
    assert harm(totals(500, seconds=0.05, slow=490)) == ["latency"]
    assert harm(totals(500, seconds=0.005, slow=0)) == [], "slower, but as declared"
    live = totals(5_000, seconds=0.05, slow=4_900)
    assert harm(totals(500, seconds=0.05, slow=490), live) == [], "the live pods are as slow"


@pytest.mark.parametrize("prediction", [30.0, 70.0])
def test_predictions_beyond_the_declared_shift_are_harm_in_both_directions(prediction: float) -> None:
    assert harm(totals(500, prediction=prediction)) == ["predictions"]


def test_another_mean_within_the_declared_shift_is_what_new_models_do() -> None:
    assert harm(totals(5_000, prediction=57.0)) == []
    assert harm(totals(5_000, prediction=57.0), GOOD, BOUNDS.model_copy(update={"prediction_shift": 0.5})) == [
        "predictions"
    ]


def same_request(requests: int, prediction: float, deviation: float = 0.0) -> RequestTotals:
    """Return what pods answered to callers that send much the same request."""
    return replace(totals(requests), predictions=moments(requests, prediction, deviation))


def test_a_small_shift_of_predictions_that_hardly_vary_is_judged_by_the_golden_ones() -> None:
    canary, live = same_request(500, 144.7, 1.76), same_request(5_000, 145.5, 6e-5)
    assert judge_canary(canary, live, BOUNDS).outcome == "failed", "a difference beyond any deviation of the live ones"
    verdict = judge_canary(canary, live, BOUNDS, golden_deviation=60.0)
    assert verdict.outcome == "passed"


@pytest.mark.parametrize("prediction", [20.0, 270.0])
def test_a_great_shift_of_predictions_that_never_vary_is_harm(prediction: float) -> None:
    canary, live = same_request(500, prediction), same_request(5_000, 145.5)
    verdict = judge_canary(canary, live, BOUNDS, golden_deviation=60.0)
    assert [finding.metric for finding in verdict.findings if finding.is_harm] == ["predictions"]


def test_golden_predictions_change_nothing_about_live_ones_that_vary() -> None:
    for prediction in (50.0, 57.0, 62.0, 70.0):
        canary = totals(500, prediction=prediction)
        assert judge_canary(canary, GOOD, BOUNDS, golden_deviation=90.0) == judge_canary(canary, GOOD, BOUNDS)


def test_predictions_without_a_finite_mean_are_not_tested() -> None:
    endless = replace(totals(500), predictions=Moments(500, math.inf, math.inf))
    verdict = judge_canary(endless, GOOD, BOUNDS)
    assert [finding.evidence is None for finding in verdict.findings] == [False, False, True, True]


# --- the shape of the distribution of predictions ---------------------------------------------------------------------


def spread(values: Any, golden: tuple[float, float] = (50.0, 10.0)) -> RequestTotals:
    """Return what pods answered, from each prediction and from what the golden predictions of their bundle are like."""
    ordered, edges = np.sort(np.asarray(values, dtype=float)), bin_edges(*golden)
    upto = tuple(int(number) for number in np.searchsorted(ordered, edges, side="right"))
    return replace(
        totals(len(ordered)),
        predictions=Moments(len(ordered), float(ordered.sum()), float((ordered**2).sum())),
        distribution=BinnedPredictions(edges, upto, len(ordered)),
    )


def normal(count: int, mean: float, deviation: float) -> Any:
    return stats.norm.ppf((np.arange(count) + 0.5) / count) * deviation + mean


def classes(count: int, *shares: float) -> Any:
    return np.repeat(np.arange(float(len(shares))), [round(count * share) for share in shares])


SPREAD = spread(normal(5_000, 50, 10))


@pytest.mark.parametrize(
    ("canary", "live"),
    [
        (spread(np.full(500, 50.0)), SPREAD),
        (spread(np.full(500, 50.0), golden=(50.0, 0.0)), SPREAD),
        (spread(normal(2_000, 50, 20), golden=(44.0, 31.0)), SPREAD),
        (spread(np.repeat([40.0, 60.0], 500)), SPREAD),
        (
            spread(np.repeat([0.05, 0.95], 300), golden=(0.05, 0.4)),
            spread((np.arange(5_000) + 0.5) / 5_000, golden=(0.6, 0.3)),
        ),
        (spread(classes(500, 0.4, 0.2, 0.4), golden=(0, 1)), spread(classes(5_000, 0.2, 0.6, 0.2), golden=(1, 0.5))),
    ],
)
def test_another_shape_with_the_same_mean_is_harm(canary: RequestTotals, live: RequestTotals) -> None:
    assert canary.predictions.mean == pytest.approx(live.predictions.mean, abs=1e-6)
    assert harm(canary, live) == ["distribution"]
    assert harm(live, live) == []


@pytest.mark.parametrize("requests", [300, 20_000])
def test_a_new_model_may_differ_a_little_however_many_requests_there_are(requests: int) -> None:
    for mean, deviation in ((50, 12.5), (50, 7.8), (51, 11), (58, 10)):
        canary = spread(normal(requests, mean, deviation))
        assert harm(canary, SPREAD) == []


def test_a_model_may_declare_another_distance() -> None:
    canary = spread(normal(5_000, 50, 15))
    assert harm(canary, SPREAD) == ["distribution"]
    assert harm(canary, SPREAD, BOUNDS.model_copy(update={"prediction_distance": 0.5})) == []


def test_the_finding_and_the_summary_say_how_much_the_shape_differs() -> None:
    verdict = judge_canary(spread(normal(2_000, 50, 20)), SPREAD, BOUNDS)
    found = str(verdict.findings[-1])
    assert re.fullmatch(
        r"distribution: canary differs by 0\.8\d* standard deviations; bound 0\.3\d*; e-value .+", found
    )
    assert found in verdict.summary


def test_live_pods_of_an_earlier_image_leave_the_other_checks_to_decide() -> None:
    old = replace(SPREAD, distribution=BinnedPredictions())
    flat = spread(np.full(500, 50.0))
    for pair in ((flat, old), (replace(flat, distribution=BinnedPredictions()), SPREAD)):
        verdict = judge_canary(*pair, BOUNDS)
        assert verdict.outcome == "passed"
        assert "count no distribution: their serving image is older" in verdict.summary
        assert str(verdict.findings[-1]).endswith("is older; not tested")
    assert harm(replace(flat, errors=100), old) == ["errors"]


def test_a_release_of_which_only_some_pods_count_bins_is_not_compared() -> None:
    """The pods may be busy at other times, so a part of the predictions may differ from the rest."""
    mixed = SPREAD + replace(SPREAD, distribution=BinnedPredictions())
    assert judge_canary(spread(np.full(500, 50.0)), mixed, BOUNDS).outcome == "passed"


@pytest.mark.parametrize("edge", [float(edge) for edge in bin_edges(145.0, 60.0)[10:40:4]])
def test_callers_that_repeat_one_request_do_not_stop_a_canary_whose_prediction_crosses_an_edge(edge: float) -> None:
    golden = (145.0, 60.0)
    canary, live = spread(np.full(500, edge + 0.1), golden), spread(np.full(5_000, edge - 0.1), golden)
    assert judge_canary(canary, live, BOUNDS, golden_deviation=60.0).outcome == "passed"
    some = np.repeat([edge - 0.1, 100.0, 101.0], [4_000, 500, 500])
    other = np.repeat([edge + 0.1, 100.0, 101.0], [400, 50, 50])
    assert harm(spread(other, golden), spread(some, golden)) == []


def test_predictions_outside_the_bins_are_unknown() -> None:
    far = spread(normal(500, 9_000, 10))
    found = judge_canary(far, far, BOUNDS).findings[-1]
    assert (found.evidence, found.breaks_bound) == (None, False)
    assert "lie outside the bins" in str(found)


def test_a_failed_verdict_names_the_figures() -> None:
    verdict = judge_canary(totals(500, errors=50), GOOD, BOUNDS)
    assert verdict.summary.startswith(
        "worse than the live pods after 500 requests to the canary and 5,000 to the live pods: "
        "errors: canary 10 %, live 0 %; bound 1 %; e-value "
    )


@pytest.mark.parametrize(
    ("share", "base", "increase", "other"),
    [(0.1, 0.002, 0.1, (0.1, 0.002, 0.05)), (0.5, 0.02, 0.08, (0.1, 0.02, 0.08)), (0.5, 0.02, 0.1, (0.5, 0.1, 0.1))],
)
def test_a_smaller_effect_weight_or_a_greater_base_needs_more_requests(
    share: float, base: float, increase: float, other: tuple[float, float, float]
) -> None:
    assert requests_needed(share, base, increase) < requests_needed(*other)


def test_both_sides_need_enough_requests_to_compare_means() -> None:
    assert requests_needed(0.01, 0.0001, 0.9) >= 3_000
    assert requests_needed(0.99, 0.0001, 0.9) >= 3_000


@pytest.mark.parametrize(("share", "base"), [(0.1, 0.002), (0.5, 0.05)])
def test_the_declared_increase_is_found_before_a_canary_may_pass(share: float, base: float) -> None:
    rng = np.random.default_rng(5)
    number, found, runs = requests_needed(share, base, 0.1), 0, 100
    for _ in range(runs):
        canary = round(number * share)
        bad = int(rng.binomial(canary, base + 0.1)), int(rng.binomial(number - canary, base))
        verdict = judge_canary(
            RequestTotals(requests=canary, errors=bad[0]),
            RequestTotals(requests=number - canary, errors=bad[1]),
            BOUNDS,
        )
        found += verdict.outcome == "failed"
    assert found >= POWER * runs
