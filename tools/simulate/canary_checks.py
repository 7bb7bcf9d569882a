"""Simulations of the canary check. They call the product's own code.

A check looks at its counters every 50 requests. Each request goes to the canary with the chance of its weight. Errors
of good canaries are as frequent as those of the live pods; latencies are log-normal with a long tail; predictions are
normal. The naive rules see the same requests.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.canary_settings import CanaryBounds
from pipelines.serving.canary_analysis import CanaryVerdict, RequestTotals, judge_canary
from pipelines.serving.prediction_counts import bin_edges
from pipelines.serving.prediction_shape import BinnedPredictions
from pipelines.serving.sequential_tests import Moments
from tools.simulate.rates import Run, Simulation

LOOK = 50
GOOD_REQUESTS = 4_000
"""Requests on both sides after which a check without a result ends: more than any of them needs to pass."""

MOST_REQUESTS = 5_000
BOUNDS = CanaryBounds(error_rate=0.001, p99_ms=20, error_increase=0.1, prediction_shift=1)

GOLDEN_ROWS = 5

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Draws a number of predictions."""

Rule = Callable[[RequestTotals, RequestTotals], bool]


def normal(mean: float, deviation: float = 10.0) -> Draw:
    """Return what draws predictions from a normal distribution."""
    return lambda rng, count: rng.normal(mean, deviation, count)


def arm(
    rng: np.random.Generator,
    requests: NDArray[np.int64],
    errors: float,
    milliseconds: float,
    predict: Draw,
    golden: Draw | None = None,
) -> list[RequestTotals]:
    """Draw what one side has answered at each look.

    Args:
        rng: source of randomness.
        requests: new requests before each look.
        errors: chance that a request ends in an error.
        milliseconds: median latency.
        predict: draws the predictions.
        golden: draws the golden predictions of its bundle; like `predict` by default.
    """
    answered = np.cumsum(requests - rng.binomial(requests, errors))
    every = np.cumsum(requests)
    count = int(answered[-1])
    logs = math.log(milliseconds / 1000) + rng.normal(0, 0.5, count) + 2 * (rng.random(count) < 0.02)
    return _totals_at_looks(every, answered, predict(rng, count), logs, golden_edges(rng, golden or predict))


def golden_edges(rng: np.random.Generator, golden: Draw) -> tuple[float, ...]:
    """Return the edges of the bins of a server, from the golden predictions of its bundle.

    Args:
        rng: source of randomness; it draws the same numbers afterwards as before.
        golden: draws the golden predictions.
    """
    found = golden(rng.spawn(1)[0], GOLDEN_ROWS).tolist()
    return bin_edges(statistics.median(found), statistics.stdev(found))


def looks(
    rng: np.random.Generator,
    weight: float,
    rates: tuple[float, float],
    most: int,
    *,
    milliseconds: float = 1.0,
    prediction: float = 50.0,
) -> Iterator[tuple[RequestTotals, RequestTotals]]:
    """Return the totals of the live pods and of the canary at each look.

    Args:
        rng: source of randomness.
        weight: the canary's share of the traffic.
        rates: error rates of the live pods and of the canary.
        most: number of requests on both sides.
        milliseconds: median latency of the canary; that of the live pods is 1.
        prediction: mean prediction of the canary; that of the live pods is 50.
    """
    shares = rng.binomial(LOOK, weight, most // LOOK)
    live = arm(rng, LOOK - shares, rates[0], 1.0, normal(50.0))
    return zip(live, arm(rng, shares, rates[1], milliseconds, normal(prediction)), strict=True)


def copied_looks(
    rng: np.random.Generator, shared: float, canary_alone: float, live_alone: float, most: int
) -> Iterator[tuple[RequestTotals, RequestTotals]]:
    """Return the totals of the live pods and of a canary that got copies of the same requests, at each look.

    Args:
        rng: source of randomness.
        shared: share of the requests that both releases fail.
        canary_alone, live_alone: shares that only one of them fails.
        most: number of copies.
    """
    draws = rng.random(most)
    both = draws < shared
    fails = both | (draws > 1 - canary_alone), both | ((draws >= shared) & (draws < shared + live_alone))
    value = rng.normal(50, 10, most)  # both predict nearly the same
    every = np.arange(LOOK, most + 1, LOOK)
    edges = golden_edges(rng, normal(50.0))  # the canary counts both sides
    sides = []
    for failed in fails:
        values, logs = value + rng.normal(0, 1, most), math.log(0.001) + rng.normal(0, 0.5, most)
        answered = np.cumsum(~failed, dtype=np.int64)[every - 1]
        sides.append(_totals_at_looks(every, answered, values[~failed], logs[~failed], edges))
    canary, live = sides
    return zip(live, canary, strict=True)


def _totals_at_looks(
    every: NDArray[np.int64],
    answered: NDArray[np.int64],
    values: NDArray[np.float64],
    logs: NDArray[np.float64],
    edges: tuple[float, ...],
) -> list[RequestTotals]:
    """Return what one side has answered at each look.

    Args:
        every: requests until each look.
        answered: those of them that did not end in an error.
        values: the predictions of the answered ones.
        logs: logarithms of their latencies.
        edges: edges of the bins of the predictions.
    """
    look, bins = np.searchsorted(answered, np.arange(1, len(values) + 1)), len(edges) + 1
    in_bins = np.bincount(look * bins + np.searchsorted(edges, values), minlength=(len(answered) + 1) * bins)
    upto = in_bins.reshape(-1, bins).cumsum(axis=0).cumsum(axis=1)[: len(answered), :-1]
    slow = logs > math.log(BOUNDS.p99_ms / 1000)
    sums = [np.concatenate([[0.0], np.cumsum(one)])[answered] for one in (slow, logs, logs**2, values, values**2)]
    return [
        RequestTotals(
            requests=int(total),
            errors=int(total - right),
            slow=int(late),
            latency=Moments(right, log, log_square),
            predictions=Moments(right, value, square),
            distribution=BinnedPredictions(edges, tuple(binned), right),
        )
        for total, right, late, log, log_square, value, square, binned in zip(
            *(column.tolist() for column in (every, answered, *sums, upto)), strict=True
        )
    ]


def copied(shared: float, alone: float, within: int = GOOD_REQUESTS, live_alone: float | None = None) -> Run:
    """Return a run: True if a shadow step stops a canary within a number of copies.

    Args:
        shared: share of the requests that both releases fail.
        alone: share that only the canary fails.
        within: number of copies.
        live_alone: share that only the live release fails; as many as the canary by default.
    """
    other = alone if live_alone is None else live_alone
    return lambda rng: any(stops(*found) for found in copied_looks(rng, shared, alone, other, within))


def judge(live: RequestTotals, canary: RequestTotals) -> CanaryVerdict:
    """Judge a canary as the check does."""
    return judge_canary(canary, live, BOUNDS)


def stops(live: RequestTotals, canary: RequestTotals) -> bool:
    """Return True if the check stops the canary."""
    return judge(live, canary).outcome == "failed"


def more_than_5_percent(live: RequestTotals, canary: RequestTotals) -> bool:
    """Return True if the naive rule "more than 5 % errors" stops the canary."""
    return canary.requests > 0 and canary.errors / canary.requests > 0.05


def one_point_more(live: RequestTotals, canary: RequestTotals) -> bool:
    """Return True if the naive rule "an error rate that is a percentage point higher" stops the canary."""
    if not live.requests or not canary.requests:
        return False
    return canary.errors / canary.requests - live.errors / live.requests > 0.01


def significant_z(live: RequestTotals, canary: RequestTotals) -> bool:
    """Return True if a z-test at 5 %, made at each look, stops the canary."""
    total, errors = live.requests + canary.requests, live.errors + canary.errors
    if not live.requests or not canary.requests or not 0 < errors < total:
        return False
    share = errors / total
    deviation = math.sqrt(share * (1 - share) * (1 / live.requests + 1 / canary.requests))
    return (canary.errors / canary.requests - live.errors / live.requests) / deviation > 1.645


def good(base: float, weight: float, rule: Rule = stops) -> Run:
    """Return a run: True if a rule stops a canary that is as good as the live pods."""
    return lambda rng: any(rule(*found) for found in looks(rng, weight, (base, base), GOOD_REQUESTS))


def good_release(base: float) -> Run:
    """Return a run: True if one of two steps, at 10 and 50 %, stops a good canary."""
    return lambda rng: any(good(base, weight)(rng) for weight in (0.1, 0.5))


def bad(
    rates: tuple[float, float],
    weight: float,
    within: int,
    *,
    milliseconds: float = 1.0,
    prediction: float = 50.0,
    rule: Rule = stops,
) -> Run:
    """Return a run: True if a rule stops a worse canary within a number of requests on both sides."""
    return lambda rng: any(
        rule(*found) for found in looks(rng, weight, rates, within, milliseconds=milliseconds, prediction=prediction)
    )


def ends(rates: tuple[float, float], weight: float, outcome: Literal["passed", "failed"]) -> Run:
    """Return a run: True if the first verdict of a check is this one."""

    def run(rng: np.random.Generator) -> bool:
        for found in looks(rng, weight, rates, MOST_REQUESTS):
            verdict = judge(*found)
            if verdict.outcome != "inconclusive":
                return verdict.outcome == outcome
        return False

    return run


_RULES = {
    "errors above 5 %": more_than_5_percent,
    "1 point more errors": one_point_more,
    "z-test at each look": significant_z,
}
_NAIVE_BASES = (0.02, 0.05)


def _naive(rule: str, base: float) -> str:
    return f"naive rule: {rule}, stops a good canary with {100 * base:g} % errors"


def _naive_power(rule: str) -> str:
    return f"naive rule: {rule}, finds 2 to 4 % errors in 1,100 requests per side"


def _good_ones() -> dict[str, Simulation]:
    return {
        f"canary: a good one stopped, {100 * base:g} % errors, weight {100 * weight:g} %": Simulation(
            good(base, weight),
            at_most=0.05,
            naive=tuple(_naive(rule, base) for rule in _RULES if base in _NAIVE_BASES and weight == 0.5),
        )
        for base in (0.002, 0.02, 0.05)
        for weight in (0.1, 0.25, 0.5)
    } | {
        "canary: a good one stopped in a release of two steps, 2 % errors": Simulation(good_release(0.02), at_most=0.05)
    }


def _bad_ones() -> dict[str, Simulation]:
    """Return runs that end well in half of the cases: the median number of requests is within the limit."""
    runs = {
        "canary: 2 to 10 % errors found in 200 requests per side, weight 50 %": bad((0.02, 0.1), 0.5, 400),
        "canary: 2 to 10 % errors found in 1,400 requests in all, weight 10 %": bad((0.02, 0.1), 0.1, 1_400),
        "canary: 2 to 4 % errors found in 1,100 requests per side, weight 50 %": bad((0.02, 0.04), 0.5, 2_200),
    }
    naive = tuple(_naive_power(rule) for rule in _RULES)
    return {
        name: Simulation(run, 4_000, at_least=0.5, naive=naive if "2 to 4 %" in name else ())
        for name, run in runs.items()
    }


def _first_verdicts() -> dict[str, Simulation]:
    unchanged = (0.002, 0.002)
    return {
        f"canary: 2 to 12 % errors found before it may pass, weight {100 * weight:g} %": Simulation(
            ends((0.02, 0.12), weight, "failed"), at_least=0.8
        )
        for weight in (0.1, 0.5)
    } | {
        "canary: a good one passes, 0.2 % errors, weight 10 %": Simulation(
            ends(unchanged, 0.1, "passed"), at_least=0.9
        ),
        "canary: 30 times slower found in 200 requests per side": Simulation(
            bad(unchanged, 0.5, 400, milliseconds=30), at_least=0.9
        ),
        "canary: predictions 1.5 deviations off found in 200 requests per side": Simulation(
            bad(unchanged, 0.5, 400, prediction=65)
        ),
    }


def _copied_ones() -> dict[str, Simulation]:
    return {
        f"shadow step: a good canary stopped, {100 * base:g} % errors, half of them on both sides": Simulation(
            copied(base / 2, base / 2), at_most=0.05
        )
        for base in (0.002, 0.02, 0.05)
    } | {
        "shadow step: a good canary stopped, 5 % errors, all of them on both sides": Simulation(
            copied(0.05, 0.0), at_most=0.05
        ),
        "shadow step: 2 to 10 % errors found in 200 copies": Simulation(
            copied(0.02, 0.08, 200, live_alone=0.0), 4_000, at_least=0.5
        ),
    }


SIMULATIONS: Mapping[str, Simulation] = {
    **_good_ones(),
    **_copied_ones(),
    **_bad_ones(),
    **_first_verdicts(),
    **{_naive(name, base): Simulation(good(base, 0.5, rule)) for name, rule in _RULES.items() for base in _NAIVE_BASES},
    **{_naive_power(name): Simulation(bad((0.02, 0.04), 0.5, 2_200, rule=rule)) for name, rule in _RULES.items()},
}
"""Every simulation, by what happens."""
