"""Simulations of the checks of a model's monitor. They call the product's own code.

Drift: windows of 20 features, compared with the baseline that training writes from 20,000 rows. Late labels: a model
that is wrong in 20 % of the requests. Estimates: a calibrated classifier that is right in 84 %, with a holdout of
25,000 rows and a sample of 5,000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from pipelines.monitoring.labelled_checks import Bound, accuracy_windows, judge_accuracy, judge_estimate
from pipelines.monitoring.prediction_labels import Labelled
from pipelines.monitoring.request_log import LoggedRows
from pipelines.training.drift_baseline import describe_numbers

Run = Callable[[np.random.Generator], bool]
Numbers = NDArray[np.float64]

FEATURES_COUNT = 20
BASELINE_ROWS = 20_000
HOLDOUT_ROWS, SAMPLED_ROWS = 25_000, 5_000
MANY_ROWS = 1_000_000
ERROR_RATE = 0.2
SETTINGS = ModelMonitoring()
LABELS_BEFORE = 3_000
"""Labels before the error rises."""


def drift_verdicts(rng: np.random.Generator, rows: int, mean: float, deviation: float, features: int) -> list[str]:
    """Compare a window with a baseline; the first feature has another mean or deviation."""
    names = [f"c{number}" for number in range(features)]
    baseline = Baseline(
        model="simulated",
        features={name: describe_numbers(rng.normal(size=BASELINE_ROWS)) for name in names},
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


def false_change(rng: np.random.Generator) -> bool:
    """Return True if 10,000 labels without a change raise an alarm."""
    return find_change((rng.random(10_000) < ERROR_RATE).astype(np.float64)) is not None


def change_within(labels: int, increase: float) -> Run:
    """Return a run: True if a rise of the error rate is found within a number of labels."""

    def run(rng: np.random.Generator) -> bool:
        before = rng.random(LABELS_BEFORE) < ERROR_RATE
        after = rng.random(labels) < ERROR_RATE + increase
        change = find_change(np.concatenate([before, after]).astype(np.float64))
        return change is not None and change.found > LABELS_BEFORE

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


def classified(rng: np.random.Generator, rows: int, shift: float = 0.0) -> tuple[Numbers, Numbers]:
    """Draw probabilities of a calibrated classifier, and the truth."""
    score = 1 / (1 + np.exp(-3.2 * rng.normal(shift, 1, rows)))
    return np.stack([1 - score, score], axis=1), (rng.random(rows) < score).astype(np.float64)


@cache
def estimator(number: int) -> AccuracyEstimator:
    """Return an estimator with a holdout of its own."""
    probabilities, truth = classified(np.random.default_rng([17, number]), HOLDOUT_ROWS)
    accuracy = float((probabilities.argmax(axis=1) == truth).mean())
    return AccuracyEstimator(truth[:SAMPLED_ROWS], probabilities[:SAMPLED_ROWS], accuracy, HOLDOUT_ROWS)


def estimated(rng: np.random.Generator, rows: int, shift: float = 0.0) -> tuple[AccuracyEstimate, float]:
    """Return the estimate of a window, and its accuracy as labels show it."""
    probabilities, truth = classified(rng, rows, shift)
    return (
        estimator(int(rng.integers(0, 40))).estimate(probabilities),
        float((probabilities.argmax(axis=1) == truth).mean()),
    )


def estimate_off(rows: int, by: float, shift: float = 0.0) -> Run:
    """Return a run: True if the estimate differs from the accuracy by more than `by`."""

    def run(rng: np.random.Generator) -> bool:
        found, true = estimated(rng, rows, shift)
        return abs(found.value - true) > by

    return run


def estimate_covers(rows: int, shift: float = 0.0) -> Run:
    """Return a run: True if the interval of the estimate holds the accuracy."""

    def run(rng: np.random.Generator) -> bool:
        found, true = estimated(rng, rows, shift)
        return found.low <= true <= found.high

    return run


def blind_to_concept_drift(rng: np.random.Generator) -> bool:
    """Return True if the estimate is an alarm when every fourth truth is turned: it should be, and cannot."""
    found, _ = estimated(rng, 2_000)
    return judge_estimate(found, SETTINGS, "").verdict == "alarm"


_MEAN = 0.425
"""Share of normally distributed errors beyond their mean absolute value."""

SIMULATIONS: Mapping[str, tuple[Run, int, float | None, float | None]] = {
    "model drift: alarm without a change, 20 features, 1,000 rows": (no_drift(1_000), 1_000, 0.065, None),
    "model drift: alarm without a change, 20 features, 2,000 rows": (no_drift(2_000), 1_000, 0.065, None),
    "model drift: mean + 0.2 sd found in 1,000 rows": (drift(1_000, 0.2), 1_000, None, 0.95),
    "model drift: mean + 0.15 sd found in 2,000 rows": (drift(2_000, 0.15), 1_000, None, 0.95),
    "model drift: sd x 1.25 found in 1,000 rows": (drift(1_000, 0.0, 1.25), 1_000, None, 0.95),
    "model drift: mean + 0.02 sd is an alarm in 1,000,000 rows": (drift(MANY_ROWS, 0.02, features=1), 400, 0.01, None),
    "late labels: alarm in 10,000 labels without a change": (false_change, 2_000, 0.2, None),
    "late labels: error + 10 pp found within 500 labels": (change_within(500, 0.1), 2_000, None, 0.5),
    "late labels: accuracy alarm without a change, 1,000 labels": (accuracy_alarm(1_000, 0.8), 1_000, 0.01, None),
    "late labels: accuracy 80 -> 68 % found in 2,000 labels": (accuracy_alarm(2_000, 0.68), 1_000, None, 0.8),
    "estimate: error above 1.1 pp, 1,000 rows": (estimate_off(1_000, 0.011), 2_000, _MEAN, None),
    "estimate: error above 0.75 pp, 2,000 rows": (estimate_off(2_000, 0.0075), 2_000, _MEAN, None),
    "estimate: error above 0.5 pp, 5,000 rows": (estimate_off(5_000, 0.005), 3_000, _MEAN, None),
    "estimate: error above 1.5 pp, 5,000 rows, inputs moved by 0.5 sd": (
        estimate_off(5_000, 0.015, 0.5), 1_000, _MEAN, None,
    ),
    "estimate: error above 1.5 pp, 5,000 rows, inputs moved by 1.5 sd": (
        estimate_off(5_000, 0.015, 1.5), 1_000, _MEAN, None,
    ),
    "estimate: 95 % interval holds the accuracy, 2,000 rows": (estimate_covers(2_000), 1_000, None, 0.9),
    "estimate: 95 % interval holds the accuracy, inputs moved by 1 sd": (estimate_covers(2_000, 1.0), 1_000, None, 0.9),
    "estimate: finds that 25 % of the truths turned, without a change of inputs": (
        blind_to_concept_drift, 1_000, None, None,
    ),
}  # fmt: skip
"""What happens → the run, the number of runs, and the bounds of the rate: at most, at least."""
