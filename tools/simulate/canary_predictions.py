"""Simulated canary checks of releases that predict something else, or the same, in distributions of many shapes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.serving.canary_analysis import judge_canary
from tools.simulate.canary_checks import BOUNDS, GOLDEN_ROWS, GOOD_REQUESTS, LOOK, Draw, arm, normal
from tools.simulate.rates import Run, Simulation

ERRORS = 0.002
WEIGHTS = (0.1, 0.25, 0.5)


def constant(value: float) -> Draw:
    """Return what predicts the same again and again."""
    return lambda _, count: np.full(count, value)


def classes(*shares: float) -> Draw:
    """Return what predicts the classes 0, 1, … with some shares."""
    return lambda rng, count: rng.choice(len(shares), count, p=shares).astype(float)


def flat(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw probabilities that are spread evenly."""
    return rng.random(count)


def sure(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw probabilities near 0 and 1, with a mean of 0.5."""
    return np.clip(rng.integers(2, size=count) * 0.9 + 0.05 + rng.normal(0, 0.02, count), 0, 1)


def three_modes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw predictions around three values."""
    return rng.choice([20.0, 50.0, 80.0], count, p=[0.5, 0.3, 0.2]) + rng.normal(0, 3, count)


def long_tail(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw predictions of which a few are very large."""
    return rng.lognormal(3, 1, count)


def released(
    live: Draw, canary: Draw, weight: float, within: int, *, golden: Draw | None = None, metric: str = ""
) -> Run:
    """Return a run: True if the check stops a canary within a number of requests on both sides.

    Args:
        live, canary: draw the predictions of both.
        weight: the canary's share of the traffic.
        within: number of requests on both sides.
        golden: draws the golden predictions of both bundles; like their predictions by default.
        metric: count only runs in which this metric shows the harm; "" for any.
    """

    def run(rng: np.random.Generator) -> bool:
        shares = rng.binomial(LOOK, weight, within // LOOK)
        golden_deviation = statistics.stdev((golden or live)(rng.spawn(1)[0], GOLDEN_ROWS).tolist())
        sides = (
            arm(rng, LOOK - shares, ERRORS, 1.0, live, golden),
            arm(rng, shares, ERRORS, 1.0, canary, golden),
        )
        for before, ours in zip(*sides, strict=True):
            verdict = judge_canary(ours, before, BOUNDS, golden_deviation=golden_deviation)
            if verdict.outcome == "failed":
                return any(found.is_harm and metric in ("", found.metric) for found in verdict.findings)
        return False

    return run


_SHAPES: Mapping[str, Draw] = {
    "normal": normal(50.0),
    "three modes": three_modes,
    "long tail": long_tail,
    "classes 0 and 1": classes(0.7, 0.3),
}
_ONE_CALLER = normal(150.0, 60.0)
"""Golden predictions of a model whose callers send the same request again and again."""


def _unchanged() -> dict[str, Simulation]:
    return {
        f"canary: predictions unchanged, stopped, {name}, weight {100 * weight:g} %": Simulation(
            released(draw, draw, weight, GOOD_REQUESTS), at_most=0.05
        )
        for name, draw in _SHAPES.items()
        for weight in (WEIGHTS if name == "normal" else WEIGHTS[:1])
    } | {
        "canary: a different model within the bounds stopped, always the same + 0.1 golden sd, weight 50 %": Simulation(
            released(constant(145.5), constant(151.5), 0.5, GOOD_REQUESTS, golden=_ONE_CALLER), at_most=0.05
        ),
    }


def _slightly_different() -> dict[str, Simulation]:
    live = normal(50.0)
    changes = {
        "mean + 0.1 sd, sd x 1.1": normal(51.0, 11.0),
        "sd x 1.25": normal(50.0, 12.5),
        "sd x 1.376, at the bound": normal(50.0, 13.76),
        "mean + 0.8 sd": normal(58.0),
    }
    return {
        f"canary: a different model within the bounds stopped, {name}, weight 50 %": Simulation(
            released(live, draw, 0.5, GOOD_REQUESTS), at_most=0.05
        )
        for name, draw in changes.items()
    }


def _changed() -> dict[str, Simulation]:
    live = normal(50.0)
    collapsed = released(live, constant(50.0), 0.5, 400)
    return {
        "canary: all predictions equal to the mean, found in 200 requests per side": Simulation(
            collapsed, at_least=0.9
        ),
        "canary: all predictions equal to the mean, found in 2,000 requests in all, weight 10 %": Simulation(
            released(live, constant(50.0), 0.1, 2_000), at_least=0.9
        ),
        "canary: sd x 2 found in 500 requests per side": Simulation(
            released(live, normal(50.0, 20.0), 0.5, 1_000), at_least=0.9
        ),
        "canary: sd x 1.5 found in 2,000 requests per side": Simulation(released(live, normal(50.0, 15.0), 0.5, 4_000)),
        "canary: probabilities near 0 and 1, not spread evenly, found in 300 requests per side": Simulation(
            released(flat, sure, 0.5, 600), at_least=0.9
        ),
        "canary: 30 % of class 1 become 70 %, found in 300 requests per side": Simulation(
            released(classes(0.7, 0.3), classes(0.3, 0.7), 0.5, 600), at_least=0.9
        ),
        "canary: shares of three classes swapped, same mean, found in 500 requests per side": Simulation(
            released(classes(0.2, 0.6, 0.2), classes(0.45, 0.1, 0.45), 0.5, 1_000), at_least=0.9
        ),
    }


SIMULATIONS: Mapping[str, Simulation] = {**_unchanged(), **_slightly_different(), **_changed()}
"""Every simulation, by what happens."""
