"""Estimate the accuracy of a classifier without labels, from how sure it is (confidence-based estimation).

The holdout tells how often the predicted class is right for each predicted probability. The estimate is the accuracy on
the whole holdout, and the difference that the calibration sees between the window and the sample of the holdout. It
sees a change of the inputs. It is blind to a change of the relation between inputs and target: then the same
probability is right less often, and only labels show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.evaluation import Evaluation

Numbers = NDArray[np.float64]

REPLICATES = 50
"""Refits of the calibration on samples of the holdout, for the interval."""

LEAST_HOLDOUT = 100
"""Rows of the holdout sample without which nothing is estimated."""

GRID = 1001
_Z = 1.96


@dataclass(frozen=True)
class AccuracyEstimate:
    """Estimated accuracy of a window.

    Attributes:
        value: share of rows whose predicted class is right, as estimated.
        low, high: 95 % interval of the accuracy that labels would show.
        holdout: accuracy on the holdout.
        rows: rows of the window.
    """

    value: float
    low: float
    high: float
    holdout: float
    rows: int


class AccuracyEstimator:
    """Learns from the holdout how often predictions are right.

    Args:
        truth: (m,): index of the class of each row of a sample of the holdout.
        predicted: (m, classes) probabilities.
        accuracy: accuracy on the whole holdout; None if the sample is the whole.
        rows: rows of the whole holdout.
        seed: random seed of the interval.
    """

    def __init__(
        self,
        truth: Numbers,
        predicted: Numbers,
        accuracy: float | None = None,
        rows: int | None = None,
        seed: int = 0,
    ) -> None:
        self._is_binary = predicted.shape[1] == 2
        score, outcome = self._scores(predicted), self._outcomes(truth, predicted)
        sampled = float((predicted.argmax(axis=1) == truth).mean())
        self._right = sampled if accuracy is None else accuracy
        self._holdout_rows = rows or len(truth)
        self._sample = self._counts(predicted)
        self._grid = np.linspace(0, 1, GRID)
        self._curve = _calibrated(score, outcome, self._grid)
        rng = np.random.default_rng(seed)
        draws = [rng.integers(0, len(score), len(score)) for _ in range(REPLICATES)]
        self._others = np.array([_calibrated(score[drawn], outcome[drawn], self._grid) for drawn in draws])

    @classmethod
    def of(cls, evaluation: Evaluation) -> AccuracyEstimator | None:
        """Learn from the evaluation of a bundle; None if its sample is too small or has one class only."""
        truth = np.array(evaluation.sample.truth)
        if len(truth) < LEAST_HOLDOUT or len(np.unique(truth)) < 2:
            return None
        whole = evaluation.metrics.get("accuracy")
        return cls(
            truth,
            np.array(evaluation.sample.predicted, dtype=np.float64),
            whole.value if whole is not None else None,
            evaluation.holdout.rows,
        )

    def _scores(self, predicted: Numbers) -> Numbers:
        # Two classes: the probability of the positive one, so that both sides are calibrated. More: that of the label.
        scores: Numbers = predicted[:, 1] if self._is_binary else predicted.max(axis=1)
        return scores

    def _outcomes(self, truth: Numbers, predicted: Numbers) -> Numbers:
        wanted = truth == 1 if self._is_binary else truth == predicted.argmax(axis=1)
        outcomes: Numbers = wanted.astype(np.float64)
        return outcomes

    def estimate(self, predicted: Numbers) -> AccuracyEstimate:
        """Estimate the accuracy of predictions.

        Args:
            predicted: (n, classes) probabilities, at least one row.
        """
        counts, rows = self._counts(predicted), len(predicted)
        value = self._right + _accuracy(counts, self._curve) - _accuracy(self._sample, self._curve)
        chances = self._curve * (1 - self._curve)
        sampling = float(sum(counts) @ chances) / rows**2
        holdout = self._right * (1 - self._right) / self._holdout_rows
        moved = [_accuracy(counts, curve) - _accuracy(self._sample, curve) for curve in self._others]
        half = _Z * np.sqrt(sampling + holdout + float(np.var(moved)))
        value = min(1.0, max(0.0, value))
        return AccuracyEstimate(value, max(0.0, value - half), min(1.0, value + half), self._right, rows)

    def _counts(self, predicted: Numbers) -> tuple[Numbers, Numbers]:
        """Count rows by score: those whose label is the scored class, and the others.

        Each curve is then applied to the grid, not to every row.
        """
        at = np.rint(np.clip(self._scores(predicted), 0, 1) * (GRID - 1)).astype(np.intp)
        turned = predicted.argmax(axis=1) != 1 if self._is_binary else np.zeros(len(at), dtype=bool)
        straight, other = (np.bincount(at[side], minlength=GRID).astype(np.float64) for side in (~turned, turned))
        return straight, other


def _accuracy(counts: tuple[Numbers, Numbers], curve: Numbers) -> float:
    straight, turned = counts
    return float((straight @ curve + turned @ (1 - curve)) / (straight.sum() + turned.sum()))


def _calibrated(score: Numbers, outcome: Numbers, grid: Numbers) -> Numbers:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, outcome)
    curve: Numbers = fitted.predict(grid)
    return curve
