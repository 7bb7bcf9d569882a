"""Simulations of the checks of a model's monitor. They call the product's own code.

Drift: windows of 20 features, compared with the baseline that training writes from 20,000 rows; from 5,000 for features
that do not change. Late labels: a model that is wrong in 20 % of the requests. Estimates: a calibrated classifier that
is right in 84 %, with a holdout of 25,000 rows and a sample of 5,000. The naive rules see the same kind of data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.declarations.baseline import Baseline
from pipelines.declarations.model_monitoring import ModelMonitoring
from pipelines.monitoring.baseline_drift import FEATURES, BaselineCounter
from pipelines.monitoring.change_detection import find_change
from pipelines.monitoring.column_drift import judge_drift
from pipelines.monitoring.estimated_accuracy import AccuracyEstimate, AccuracyEstimator
from pipelines.monitoring.labelled_checks import Bound, accuracy_windows, is_loss, judge_accuracy, judge_estimate
from pipelines.monitoring.prediction_labels import Labelled
from pipelines.monitoring.request_log import LoggedRows
from pipelines.monitoring.trial_accuracy import JudgedRows, judge_trial
from pipelines.training.drift_baseline import describe_numbers
from tools.simulate.data_monitors import ANY_P
from tools.simulate.rates import Run, Simulation

Numbers = NDArray[np.float64]

FEATURES_COUNT = 20
BASELINE_ROWS, UNCHANGED_BASELINE_ROWS = 20_000, 5_000
HOLDOUT_ROWS, SAMPLED_ROWS = 25_000, 5_000
HOLDOUTS = 40
"""Number of different holdouts."""

MANY_ROWS = 1_000_000
ERROR_RATE = 0.2
SETTINGS = ModelMonitoring()
LABELS_BEFORE = 3_000
"""Labels before the error rises."""

TRIAL_WEIGHTS, TRIAL_LABELS = (0.1, 0.1, 0.5, 0.5), 1_000
NO_LOSS = ModelMonitoring(maximum_loss=0.001)
"""Hardly any loss is allowed, so that only the test protects a good release."""

CHUNK = 200
"""Labels of a chunk that naive rules compare with the holdout, as few as a window may have."""

CHUNK_HOLDOUT_ROWS = 5_000
"""Rows of that holdout, as the second sample model has."""


def drift_verdicts(rng: np.random.Generator, rows: int, mean: float, deviation: float, features: int) -> list[str]:
    """Compare a window with a baseline; the first feature has another mean or deviation."""
    names = [f"c{number}" for number in range(features)]
    changed = (mean, deviation) != (0.0, 1.0)
    sizes = {name: BASELINE_ROWS if changed and name == "c0" else UNCHANGED_BASELINE_ROWS for name in names}
    baseline = Baseline(
        model="simulated",
        features={name: describe_numbers(rng.normal(size=size)) for name, size in sizes.items()},
        outputs={},
    )
    values = {name: rng.normal(size=rows) for name in names}
    values["c0"] = mean + deviation * values["c0"]
    counter = BaselineCounter(baseline, None)
    counter.add(
        LoggedRows(
            pa.array([""] * rows) if rows < MANY_ROWS else pa.nulls(rows, pa.string()),
            np.zeros(rows, dtype=np.int64),
            np.zeros(rows, dtype=np.int32),
            pa.RecordBatch.from_pydict({name: pa.array(column) for name, column in values.items()}),
            np.empty(rows),
        )
    )
    return [finding.verdict for finding in judge_drift(counter.features(), SETTINGS, FEATURES)]


def no_drift(rows: int) -> Run:
    """Return a run: True if a window without a change raises an alarm."""
    return lambda rng: "alarm" in drift_verdicts(rng, rows, 0.0, 1.0, FEATURES_COUNT)


def drift(rows: int, mean: float, deviation: float = 1.0, features: int = FEATURES_COUNT) -> Run:
    """Return a run: True if a feature that changed raises an alarm."""
    return lambda rng: drift_verdicts(rng, rows, mean, deviation, features)[0] == "alarm"


def false_change(labels: int, errors: float) -> Run:
    """Return a run: True if labels without a change raise an alarm, even if hardly any loss is allowed."""
    return lambda rng: find_change(rng.random(labels) < errors) is not None


def change_within(labels: int, increase: float) -> Run:
    """Return a run: True if a rise of the error rate is an alarm within a number of labels."""

    def run(rng: np.random.Generator) -> bool:
        before = rng.random(LABELS_BEFORE) < ERROR_RATE
        after = rng.random(labels) < ERROR_RATE + increase
        change = find_change(np.concatenate([before, after]))
        return change is not None and is_loss(change, SETTINGS)

    return run


def chunk_errors(errors: NDArray[np.bool_]) -> Numbers:
    """Return the error rate of each chunk of labels."""
    whole = errors[: len(errors) // CHUNK * CHUNK]
    rates: Numbers = whole.reshape(-1, CHUNK).mean(axis=1)
    return rates


def five_points(rate: float) -> float:
    """Return the increase that alarms by the naive rule "5 percentage points"."""
    return 0.05


def three_deviations(rate: float) -> float:
    """Return the increase that alarms by the naive rule "3 standard deviations of a chunk"."""
    return 3 * float(np.sqrt(rate * (1 - rate) / CHUNK))


def chunk_alarm(rule: Callable[[float], float], before: int, labels: int, increase: float = 0.0) -> Run:
    """Return a run: True if a chunk of labels is worse than the holdout by more than a naive rule allows.

    Args:
        rule: error rate on the holdout → allowed increase.
        before: most labels without an increase before the others, so that chunks begin anywhere.
        labels: number of labels that are judged.
        increase: increase of their error rate.
    """

    def run(rng: np.random.Generator) -> bool:
        expected = float((rng.random(CHUNK_HOLDOUT_ROWS) < ERROR_RATE).mean())
        earlier = rng.random(int(rng.integers(0, before + 1))) < ERROR_RATE
        errors = np.concatenate([earlier, rng.random(labels) < ERROR_RATE + increase])
        return bool((chunk_errors(errors) > expected + rule(expected)).any())

    return run


def accuracy_alarm(labels: int, accuracy: float) -> Run:
    """Return a run: True if a window of labels raises an alarm; the model had 80 %, and 10 % less is allowed."""

    def run(rng: np.random.Generator) -> bool:
        right = rng.random(labels) < accuracy
        predicted = np.tile([[0.8, 0.2]], (labels, 1))
        times = np.full(labels, 1_000, dtype=np.int64)
        rows = Labelled(times, (~right).astype(np.float64), predicted, {})
        start = datetime.fromtimestamp(0, UTC)
        windows = accuracy_windows("classification", rows, [start, start + timedelta(days=1)], [labels], ["accuracy"])
        bound = Bound("accuracy", 0.8 * (1 - SETTINGS.maximum_loss), True, "simulated")
        return judge_accuracy(windows, [bound], SETTINGS)[0].verdict == "alarm"

    return run


def trial_alarm(rates: tuple[float, float], settings: ModelMonitoring, weights: Sequence[float] = TRIAL_WEIGHTS) -> Run:
    """Return a run: True if a release on trial is an alarm in one of the hourly runs of a monitor.

    In every second hour, requests are harder: predictions are wrong 1.5 times as often.

    Args:
        rates: error rates of the live bundle and of the release on trial.
        settings: the declaration of the model.
        weights: share of the requests that the release on trial answers, in each hour.
    """

    def run(rng: np.random.Generator) -> bool:
        nothing = JudgedRows(np.empty(0, np.int64), np.empty(0, bool))
        sides = nothing, nothing
        for hour, weight in enumerate(weights):
            is_trial = rng.random(TRIAL_LABELS) < weight
            harder = 1.5 if hour % 2 else 1.0
            wrong = rng.random(TRIAL_LABELS) < np.where(is_trial, rates[1], rates[0]) * harder
            times = np.full(TRIAL_LABELS, hour * 3_600_000)
            live, trial = (
                JudgedRows(np.append(side.times, times[of]), np.append(side.wrong, wrong[of]))
                for side, of in zip(sides, (~is_trial, is_trial), strict=True)
            )
            if judge_trial(trial, live, settings).verdict == "alarm":
                return True
            sides = live, trial
        return False

    return run


def classified(
    rng: np.random.Generator, rows: int, shift: float = 0.0, spread: float = 1.0, turned: float = 0.0
) -> tuple[Numbers, Numbers]:
    """Draw probabilities of a calibrated classifier, and the truth.

    Args:
        rng: source of randomness.
        rows: number of rows.
        shift, spread: mean and deviation of the input; 0 and 1 when the model was trained.
        turned: share of the rows whose truth is the opposite of what it was: concept drift.
    """
    score = 1 / (1 + np.exp(-3.2 * rng.normal(shift, spread, rows)))
    truth = (rng.random(rows) < score) ^ (rng.random(rows) < turned)
    return np.stack([1 - score, score], axis=1), truth.astype(np.float64)


@cache
def estimator(number: int) -> AccuracyEstimator:
    """Return an estimator with its own holdout."""
    probabilities, truth = classified(np.random.default_rng([17, number]), HOLDOUT_ROWS)
    accuracy = float((probabilities.argmax(axis=1) == truth).mean())
    return AccuracyEstimator(truth[:SAMPLED_ROWS], probabilities[:SAMPLED_ROWS], accuracy, HOLDOUT_ROWS)


def estimated(
    rng: np.random.Generator, rows: int, shift: float = 0.0, spread: float = 1.0, turned: float = 0.0
) -> tuple[AccuracyEstimate, float]:
    """Return the estimate of a window, and its accuracy as labels show it."""
    probabilities, truth = classified(rng, rows, shift, spread, turned)
    return (
        estimator(int(rng.integers(0, HOLDOUTS))).estimate(probabilities),
        float((probabilities.argmax(axis=1) == truth).mean()),
    )


def estimate_error(rows: int, shift: float = 0.0, spread: float = 1.0, turned: float = 0.0) -> Run:
    """Return a run: the absolute difference of the estimate and the accuracy."""

    def run(rng: np.random.Generator) -> float:
        found, true = estimated(rng, rows, shift, spread, turned)
        return abs(found.value - true)

    return run


def holdout_error(rows: int, shift: float = 0.0, spread: float = 1.0) -> Run:
    """Return a run: the error of the naive estimate that accuracy is what it was on the holdout."""

    def run(rng: np.random.Generator) -> float:
        found, true = estimated(rng, rows, shift, spread)
        return abs(found.holdout - true)

    return run


def estimate_covers(rows: int, shift: float = 0.0) -> Run:
    """Return a run: True if the interval of the estimate holds the accuracy."""

    def run(rng: np.random.Generator) -> bool:
        found, true = estimated(rng, rows, shift)
        return found.low <= true <= found.high

    return run


def finds_concept_drift(rng: np.random.Generator) -> bool:
    """Return True if the estimate is an alarm when every fourth truth is turned: it should be, and cannot."""
    found, _ = estimated(rng, 2_000, turned=0.25)
    return judge_estimate(found, SETTINGS, "").verdict == "alarm"


_CHUNK_RULES = {"5 points": five_points, "3 deviations": three_deviations}
_SHIFTS = {
    "": (0.0, 1.0),
    ", inputs + 0.5 sd": (0.5, 1.0),
    ", inputs + 1.5 sd": (1.5, 1.0),
    ", inputs - 1 sd": (-1.0, 1.0),
    ", inputs' sd x 0.5": (0.0, 0.5),
    ", inputs' sd x 1.5": (0.0, 1.5),
}
"""Change of the inputs, as the end of a name → their mean and deviation."""


def _drift(rows: int, mean: float, deviation: float = 1.0) -> Simulation:
    return Simulation(drift(rows, mean, deviation), at_least=0.95)


def _naive_chunk(rule: str, what: str) -> str:
    return f"naive rule: {CHUNK} labels are {rule} worse than the holdout, {what}"


def _naive_constant(shift: str) -> str:
    return f"naive rule: accuracy is that of the holdout, mean error, 5,000 rows{shift}"


def _error(rows: int, at_most: float, shift: str = "") -> Simulation:
    naive = (_naive_constant(shift),) if rows == 5_000 else ()
    return Simulation(estimate_error(rows, *_SHIFTS[shift]), at_most=at_most, is_mean=True, naive=naive)


_FLOOR = drift(MANY_ROWS, 0.02, features=1)
_NO_CHANGE, _FOUND = "alarm in 10,000 labels without a change", "finds + 10 pp within 500 labels"

SIMULATIONS: Mapping[str, Simulation] = {
    "model drift: alarm without a change, 20 features, 1,000 rows": Simulation(
        no_drift(1_000), at_most=0.065, naive=(ANY_P,)
    ),
    "model drift: alarm without a change, 20 features, 2,000 rows": Simulation(no_drift(2_000), at_most=0.065),
    "model drift: mean + 0.2 sd found in 1,000 rows": _drift(1_000, 0.2),
    "model drift: mean + 0.15 sd found in 2,000 rows": _drift(2_000, 0.15),
    "model drift: sd x 1.25 found in 1,000 rows": _drift(1_000, 0.0, 1.25),
    "model drift: mean + 0.02 sd is an alarm in 1,000,000 rows": Simulation(_FLOOR, at_most=0.01),
    "late labels: alarm in 10,000 labels without a change": Simulation(
        false_change(10_000, ERROR_RATE),
        2_000,
        at_most=0.2,
        naive=tuple(_naive_chunk(rule, _NO_CHANGE) for rule in _CHUNK_RULES),
    ),
    "late labels: alarm in 10,000 labels without a change, 40 % errors": Simulation(
        false_change(10_000, 0.4), 2_000, at_most=0.2
    ),
    "late labels: alarm in 100,000 labels without a change": Simulation(
        false_change(100_000, ERROR_RATE), 2_000, at_most=0.05
    ),
    "late labels: error + 10 pp found within 500 labels": Simulation(
        change_within(500, 0.1), 2_000, at_least=0.5, naive=tuple(_naive_chunk(rule, _FOUND) for rule in _CHUNK_RULES)
    ),
    "late labels: accuracy alarm without a change, 1,000 labels": Simulation(accuracy_alarm(1_000, 0.8), at_most=0.01),
    "late labels: accuracy 80 -> 68 % found in 2,000 labels": Simulation(accuracy_alarm(2_000, 0.68), at_least=0.8),
    "trial accuracy: a good release is an alarm, 20 % errors, weights 10 and 50 %": Simulation(
        trial_alarm((0.2, 0.2), NO_LOSS), at_most=0.05
    ),
    "trial accuracy: a good release is an alarm, 2 % errors, weights 10 and 50 %": Simulation(
        trial_alarm((0.02, 0.02), NO_LOSS), at_most=0.05
    ),
    "trial accuracy: 20 -> 32 % errors found in four hours of 1,000 labels": Simulation(
        trial_alarm((0.2, 0.32), SETTINGS), at_least=0.8
    ),
    "estimate: mean error, 1,000 rows": _error(1_000, 0.011),
    "estimate: mean error, 2,000 rows": _error(2_000, 0.0075),
    **{
        f"estimate: mean error, 5,000 rows{shift}": _error(5_000, 0.015 if shift else 0.005, shift) for shift in _SHIFTS
    },
    "estimate: 95 % interval holds the accuracy, 2,000 rows": Simulation(estimate_covers(2_000), at_least=0.9),
    "estimate: 95 % interval holds the accuracy, inputs + 1 sd": Simulation(estimate_covers(2_000, 1.0), at_least=0.9),
    "estimate: mean error if 25 % of the truths turned, 2,000 rows": Simulation(
        estimate_error(2_000, turned=0.25), is_mean=True
    ),
    "estimate: finds that 25 % of the truths turned, without a change of inputs": Simulation(finds_concept_drift),
    **{
        _naive_chunk(name, _NO_CHANGE): Simulation(chunk_alarm(rule, 0, 10_000), 2_000)
        for name, rule in _CHUNK_RULES.items()
    },
    **{
        _naive_chunk(name, _FOUND): Simulation(chunk_alarm(rule, CHUNK - 1, 500, 0.1), 2_000)
        for name, rule in _CHUNK_RULES.items()
    },
    **{_naive_constant(shift): Simulation(holdout_error(5_000, *of), is_mean=True) for shift, of in _SHIFTS.items()},
}
"""Every simulation, by what happens."""
