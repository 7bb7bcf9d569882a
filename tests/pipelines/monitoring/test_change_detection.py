"""A rise of the error rate in a stream of labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import xlogy

from pipelines.declarations.model_monitoring import ModelMonitoring
from pipelines.monitoring import change_detection
from pipelines.monitoring.change_detection import LEAST_EVIDENCE, LEAST_LABELS, StreamChange, find_change
from pipelines.monitoring.labelled_checks import is_loss


def test_a_rise_is_found_where_it_began() -> None:
    rng = np.random.default_rng(0)
    found = find_change(np.concatenate([rng.random(3000) < 0.2, rng.random(600) < 0.35]))
    assert found is not None
    assert found.began == pytest.approx(3000, abs=150)
    assert found.before == pytest.approx(0.2, abs=0.03)
    assert found.after == pytest.approx(0.35, abs=0.05)


@pytest.mark.parametrize("labels", [1_000, 100_000, 1_000_000])
@pytest.mark.parametrize("errors", [0.02, 0.2, 0.4])
def test_many_labels_without_a_change_are_no_change(labels: int, errors: float) -> None:
    """A threshold that does not know the length of the stream finds a change in every long one."""
    assert find_change(np.random.default_rng(1).random(labels) < errors) is None


def test_a_fall_a_constant_stream_and_few_labels_are_no_rise() -> None:
    rng = np.random.default_rng(2)
    assert find_change(np.concatenate([rng.random(1000) < 0.4, rng.random(1000) < 0.1])) is None
    assert find_change(np.zeros(1000, dtype=bool)) is None
    assert find_change(np.ones(1000, dtype=bool)) is None
    assert find_change(np.arange(2 * LEAST_LABELS - 1) >= LEAST_LABELS) is None
    assert find_change(np.empty(0, dtype=bool)) is None


def test_a_rise_that_is_over_is_less_than_one_that_lasts() -> None:
    rng = np.random.default_rng(3)
    calm, bad = rng.random(20_000) < 0.2, rng.random(1000) < 0.5
    lasting = find_change(np.concatenate([calm, bad]))
    over = find_change(np.concatenate([calm, bad, rng.random(20_000) < 0.2]))
    assert lasting is not None
    assert is_loss(lasting, ModelMonitoring())
    assert over is None or not is_loss(over, ModelMonitoring())


@given(st.lists(st.booleans(), min_size=60, max_size=90))
def test_the_evidence_is_the_greatest_likelihood_ratio(stream: list[bool]) -> None:
    wrong = np.array(stream)

    def likelihood(part: np.ndarray) -> float:
        bad = part.sum()
        return float(xlogy(bad, bad / len(part)) + xlogy(len(part) - bad, 1 - bad / len(part)))

    ratios = {
        at: likelihood(wrong[:at]) + likelihood(wrong[at:]) - likelihood(wrong)
        for at in range(LEAST_LABELS, len(wrong) - LEAST_LABELS + 1)
        if wrong[at:].mean() > wrong[:at].mean()
    }
    most = max(ratios.values(), default=0.0)
    found = find_change(wrong)
    if abs(most - LEAST_EVIDENCE) > 1e-9:
        assert (found is not None) == (most > LEAST_EVIDENCE)
    if found is not None:
        assert ratios[found.began] == pytest.approx(most)


def test_a_long_stream_is_searched_at_fewer_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_detection, "MOST_PLACES", 100)
    rng = np.random.default_rng(4)
    found = find_change(np.concatenate([rng.random(5000) < 0.1, rng.random(5000) < 0.3]))
    assert found is not None
    assert found.began == pytest.approx(5000, abs=200)


@pytest.mark.parametrize(("after", "is_alarm"), [(0.27, False), (0.29, True)])
def test_only_a_rise_beyond_the_declared_loss_is_one(after: float, is_alarm: bool) -> None:
    assert is_loss(StreamChange(100, 0.2, after), ModelMonitoring(maximum_loss=0.1)) is is_alarm
