"""Sequential tests: against independent computations, and the bound that they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from pipelines.serving.sequential_tests import (
    Moments,
    count_evidence,
    discoveries,
    either_evidence,
    mean_evidence,
)

ONE = {"a": 1.0, "b": 1.0, "c": 1.0}


def moments(values: object) -> Moments:
    found = np.asarray(values, dtype=float)
    return Moments(len(found), float(found.sum()), float((found**2).sum()))


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [(0, 0, 0.1), (3, 1, 0.5), (1, 3, 0.5), (0, 5, 0.1), (40, 200, 0.1), (1, 300, 0.1), (60, 5, 0.9), (5, 0, 0.25)],
)
def test_the_evidence_of_counts_is_the_integral_over_the_mixture(first: int, second: int, share: float) -> None:
    def ratio(chance: float) -> float:
        return float((chance / share) ** first * ((1 - chance) / (1 - share)) ** second / (1 - share))

    expected, _ = integrate.quad(ratio, share, 1, epsabs=0, epsrel=1e-9)
    assert count_evidence(first, second, share) == pytest.approx(math.log(expected), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("first", "second", "share"), [(900, 1_000, 0.5), (200_000, 100_000, 0.5), (5, 500, 0.1)])
def test_many_counts_agree_with_the_beta_distribution(first: int, second: int, share: float) -> None:
    expected = (
        stats.beta.logsf(share, first + 1, second + 1)
        + math.lgamma(first + 1)
        + math.lgamma(second + 1)
        - math.lgamma(first + second + 2)
        - first * math.log(share)
        - (second + 1) * math.log1p(-share)
    )
    assert count_evidence(first, second, share) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_another_error_is_worth_one_on_average_if_the_rates_are_equal(first: int, share: float) -> None:
    """What makes it an e-process: under the null hypothesis nothing is gained by looking on."""
    now = math.exp(count_evidence(first, 4, share))
    later = share * math.exp(count_evidence(first + 1, 4, share)) + (1 - share) * math.exp(
        count_evidence(first, 5, share)
    )
    assert later == pytest.approx(now, rel=1e-9)


def test_a_better_canary_gains_no_evidence() -> None:
    assert count_evidence(0, 100, 0.5) < 0
    assert count_evidence(10, 90, 0.5) < 0
    assert count_evidence(90, 10, 0.5) > math.log(1e6)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.3, 2.0])
def test_the_evidence_of_means_is_the_integral_over_the_mixture(shift: float) -> None:
    rng = np.random.default_rng(1)
    first, second = moments(rng.normal(shift, 1, 300)), moments(rng.normal(0, 2, 500))
    error = first.variance / first.count + second.variance / second.count
    information = 1 / error
    spread = 2 * math.log(1 / 0.05)
    rho = 500 / (first.variance + second.variance) / (spread + math.log1p(spread))
    score = (first.mean - second.mean - 0.1) * information

    def density(slope: float) -> float:
        prior = float(stats.norm.pdf(slope, 0, rho**-0.5))
        return 2 * math.exp(slope * score - slope**2 * information / 2) * prior

    expected, _ = integrate.quad(density, 0, 10, epsabs=0, epsrel=1e-9, points=[max(0.0, shift)])
    assert mean_evidence(first, second, 0.1, 0.05) == pytest.approx(math.log(expected), rel=1e-5, abs=1e-6)


def test_means_without_a_variance_are_no_evidence() -> None:
    constant = moments([1.0] * 40)
    assert mean_evidence(constant, moments([0.0] * 40), 0.0, 0.05) == 0.0
    assert mean_evidence(moments([1.0]), constant, 0.0, 0.05) == 0.0
    assert mean_evidence(moments([math.inf, 0.0]), constant, 0.0, 0.05) == 0.0


def test_a_far_smaller_mean_does_not_break_the_arithmetic() -> None:
    rng = np.random.default_rng(2)
    first, second = moments(rng.normal(0, 1, 1_000)), moments(rng.normal(90, 1, 1_000))
    assert -50 < mean_evidence(first, second, 0.0, 0.05) < 0
    assert mean_evidence(second, first, 0.0, 0.05) > 1_000


def test_the_moments_of_values_are_those_of_numpy() -> None:
    rng = np.random.default_rng(3)
    early, late = rng.normal(5, 2, 100), rng.normal(5, 2, 50)
    both = moments(early) + moments(late)
    assert both.mean == pytest.approx(np.concatenate([early, late]).mean())
    assert both.variance == pytest.approx(np.concatenate([early, late]).var(ddof=1))
    since = both - moments(early)
    assert since.count == 50 and since.mean == pytest.approx(late.mean())


def test_either_of_two_hypotheses_has_the_mean_of_the_e_values() -> None:
    assert either_evidence(math.log(8), math.log(2)) == pytest.approx(math.log(5))
    assert either_evidence(-5_000.0, 900.0) == pytest.approx(900 - math.log(2))


def test_discoveries_are_those_of_the_e_bh_procedure() -> None:
    """Three hypotheses at 5 %: one alone needs 60, two need 30 each, three need 20 each."""
    values = {"a": 59.0, "b": 29.0, "c": 1.0}
    evidence = {name: math.log(value) for name, value in values.items()}
    assert discoveries(evidence, 0.05, ONE) == frozenset()
    assert discoveries({**evidence, "a": math.log(60.1)}, 0.05, ONE) == {"a"}
    assert discoveries({**evidence, "b": math.log(30.1)}, 0.05, ONE) == {"a", "b"}
    assert discoveries(dict.fromkeys("abc", math.log(20.1)), 0.05, ONE) == {"a", "b", "c"}
    assert discoveries({}, 0.05, ONE) == frozenset()


def test_a_heavier_hypothesis_needs_less_evidence_and_the_others_more() -> None:
    weights = {"a": 4.0, "b": 1.0, "c": 1.0}
    for name, needed in (("a", 30.0), ("b", 120.0)):
        evidence = dict.fromkeys("abc", 0.0)
        assert discoveries({**evidence, name: math.log(needed * 1.01)}, 0.05, weights) == {name}
        assert discoveries({**evidence, name: math.log(needed * 0.99)}, 0.05, weights) == frozenset()


def test_a_look_after_every_event_is_sound() -> None:
    """Peeking at a z-test errs in a third of such runs."""
    rng = np.random.default_rng(4)
    errors = 0
    for _ in range(200):
        first = np.cumsum(rng.random(150) < 0.25)
        errors += any(
            count_evidence(int(found), number - int(found), 0.25) >= math.log(20)
            for number, found in enumerate(first, 1)
        )
    assert errors <= 17  # 5 % of 200 is 10; a right test leaves this bound in 1 % of the seeds
