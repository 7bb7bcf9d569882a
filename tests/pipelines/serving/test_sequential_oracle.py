"""Sequential tests, compared with the library `ville`."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ville import _boundaries as boundaries
from ville import evalues

from pipelines.serving.sequential_tests import TUNED_REQUESTS, Moments, discoveries, mean_evidence


@pytest.mark.parametrize("requests", [50, 500, 20_000])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_evidence_of_means_reaches_its_limit_at_the_boundary_of_the_normal_mixture(
    requests: int, alpha: float
) -> None:
    deviation = 3.0
    information = requests / (2 * deviation**2)
    spread = 2 * math.log(1 / alpha)
    rho = TUNED_REQUESTS / (2 * deviation**2) / (spread + math.log1p(spread))
    mean = float(boundaries.normal_mixture(information, alpha, rho, one_sided=True)) / information
    square = deviation**2 * (requests - 1)
    first = Moments(requests, requests * mean, square + requests * mean**2)
    found = mean_evidence(first, Moments(requests, 0.0, square), 0.0, alpha)
    assert found == pytest.approx(math.log(1 / alpha), rel=1e-6)


def test_the_scale_is_close_to_the_best_one_for_the_tuned_number_of_requests() -> None:
    """The rule for the scale is an approximation: the boundary must be at most 1 % wider than the best."""
    alpha, information = 0.05, TUNED_REQUESTS / 2
    spread = 2 * math.log(1 / alpha)
    rho = information / (spread + math.log1p(spread))
    best = boundaries.best_rho(information, alpha, one_sided=True)
    ours, theirs = (float(boundaries.normal_mixture(information, alpha, each, one_sided=True)) for each in (rho, best))
    assert ours <= 1.01 * theirs


def test_discoveries_are_those_of_the_library() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        values = np.exp(rng.normal(2, 2, 6))
        names = [str(number) for number in range(len(values))]
        evidence = dict(zip(names, np.log(values).tolist(), strict=True))
        rejected = np.asarray(evalues.ebh(values, alpha=0.05))
        expected = {name for name, found in zip(names, rejected.tolist(), strict=True) if found}
        assert discoveries(evidence, 0.05, dict.fromkeys(names, 1.0)) == expected
