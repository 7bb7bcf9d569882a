"""The accuracy of a release on trial, compared with that of the live bundle."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from pipelines.declarations.model_monitoring import ModelMonitoring
from pipelines.monitoring.trial_accuracy import (
    ALPHA,
    LAST_REQUEST_MINUTES,
    JudgedRows,
    bundle_on_trial,
    error_evidence,
    judge_trial,
)

LIVE, TRIAL, OTHER = ("sha256:" + digit * 64 for digit in "abc")
HOUR = 3_600_000
SETTINGS = ModelMonitoring(minimum_rows=100)


def rows(*hours: tuple[int, int]) -> JudgedRows:
    """Return rows and wrong ones of each hour."""
    times = [np.full(number, hour * HOUR + 1) for hour, (number, _) in enumerate(hours)]
    wrong = [np.arange(number) < errors for number, errors in hours]
    return JudgedRows(np.concatenate(times), np.concatenate(wrong))


@pytest.mark.parametrize(
    ("trial", "live", "verdict"),
    [
        ((200, 80), (1000, 200), "alarm"),
        ((200, 40), (1000, 200), "ok"),
        ((200, 20), (1000, 200), "ok"),
        ((4000, 1000), (20_000, 4000), "watch"),  # significant, but within the declared loss
        ((99, 99), (1000, 0), "unknown"),
        ((1000, 1000), (99, 0), "unknown"),
    ],
    ids=["worse", "alike", "better", "little worse", "too few on trial", "too few of the live one"],
)
def test_a_release_on_trial_is_an_alarm_if_it_is_significantly_and_much_worse(
    trial: tuple[int, int], live: tuple[int, int], verdict: str
) -> None:
    found = judge_trial(rows(trial), rows(live), SETTINGS)
    assert found.verdict == verdict
    assert f"{trial[0]:,} labelled" in found.reason


def test_an_unknown_accuracy_says_how_many_labels_are_needed() -> None:
    found = judge_trial(rows((40, 0)), rows((500, 0)), SETTINGS)
    assert found.reason == ("40 labelled rows of the release on trial and 500 of the live one; 100 of each are needed")


def test_rows_from_before_the_trial_do_not_count() -> None:
    before = rows((5000, 0), (300, 150))
    trial = JudgedRows(np.full(300, HOUR + 1), np.arange(300) < 150)
    assert judge_trial(trial, before, SETTINGS).verdict == "ok"


def test_a_harder_hour_with_another_weight_is_no_evidence() -> None:
    """Pooled, 22 % of the rows on trial are wrong, and 7 % of the others."""
    trial, live = rows((100, 5), (900, 216)), rows((900, 45), (100, 24))
    assert error_evidence(trial, live) < math.log(1 / ALPHA)
    assert judge_trial(trial, live, SETTINGS).verdict == "ok"


def test_without_wrong_predictions_there_is_no_evidence() -> None:
    assert error_evidence(rows((100, 0)), rows((100, 0))) == pytest.approx(0)
    nothing = JudgedRows(np.empty(0, dtype=np.int64), np.empty(0, dtype=bool))
    assert error_evidence(nothing, nothing) == pytest.approx(0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_evidence_is_an_e_value(share: float) -> None:
    """Over all ways in which six wrong predictions of two hours can belong to the bundles, it is 1 on average."""
    number = 100
    ours = round(share * number)
    mean = 0.0
    for first, second in product(range(4), repeat=2):
        chance = float(math.comb(3, first) * math.comb(3, second))
        chance *= share ** (first + second) * (1 - share) ** (6 - first - second)
        trial = rows((ours, first), (ours, second))
        live = rows((number - ours, 3 - first), (number - ours, 3 - second))
        mean += chance * math.exp(error_evidence(trial, live))
    assert mean == pytest.approx(1)


def test_the_release_on_trial_answered_most_of_the_requests_of_others_lately() -> None:
    now = 10 * HOUR
    recent = {LIVE: 1000, TRIAL: 100, OTHER: 20}
    newest = dict.fromkeys(recent, now - 1)
    assert bundle_on_trial(newest, recent, LIVE, now) == TRIAL
    stopped = now - LAST_REQUEST_MINUTES * 60_000 - 1
    assert bundle_on_trial({**newest, TRIAL: stopped}, recent, LIVE, now) == OTHER
    assert bundle_on_trial(newest, {LIVE: 1000, TRIAL: 0}, LIVE, now) is None
    assert bundle_on_trial({"../x": now}, {"../x": 5}, LIVE, now) is None
