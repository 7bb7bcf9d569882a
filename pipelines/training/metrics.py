"""Metrics of models, for many bootstrap weightings of the rows at once.

Definitions follow scikit-learn (https://scikit-learn.org/stable/modules/model_evaluation.html). For two classes,
precision, recall and F1 are of the positive class; for more, they are macro averages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.model import METRICS, Task

Floats = NDArray[np.float64]

REPLICATES = 1000
"""Number of bootstrap replicates; fewer for more than `MOST_DRAWS / REPLICATES` rows."""

MOST_DRAWS = 20_000_000
"""Maximum number of rows drawn in all replicates together."""

CHUNK = 2_000_000
"""Number of weights held in memory at once."""


def measure(
    task: Task,
    truth: Floats,
    predicted: Floats,
    weights: Floats | None = None,
    metrics: Collection[str] | None = None,
) -> dict[str, Floats]:
    """Compute the metrics of a task.

    Args:
        task: regression or classification.
        truth: (n,): the target, or the index of its class.
        predicted: (n,) predictions, or (n, classes) probabilities.
        weights: (b, n): weight of each row in each of b measurements; None for one measurement with weights of 1.
        metrics: what is needed; None for all. The area under the ROC curve, which takes most of the time, is omitted
            if it is not among them.

    Returns:
        Metric → (b,) values, NaN where the metric is undefined. Metrics that do not apply, such as the selection rate
        of three classes, are omitted.
    """
    if weights is None:
        weights = np.ones((1, len(truth)))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (
            _regression(truth, predicted, weights)
            if task == "regression"
            else _classification(truth.astype(np.intp), predicted, weights, metrics)
        )
    assert set(values) <= set(METRICS[task])
    return values


def bootstrap(rows: int, seed: int) -> Iterator[Floats]:
    """Yield weightings of `rows` rows, each a sample with replacement, in chunks of shape (b, rows)."""
    rng = np.random.default_rng(seed)
    left = int(np.clip(MOST_DRAWS // max(rows, 1), 200, REPLICATES))
    while left:
        some = min(left, max(1, CHUNK // max(rows, 1)))
        drawn = rng.integers(0, rows, size=(some, rows)) + (np.arange(some) * rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=some * rows).reshape(some, rows).astype(np.float64)
        left -= some


def replicate(
    task: Task, truth: Floats, predicted: Floats, seed: int, metrics: Collection[str] | None = None
) -> dict[str, Floats]:
    """Compute metrics, see `measure`, on each bootstrap sample.

    Equal seeds draw equal samples, which pairs two models.
    """
    parts = [measure(task, truth, predicted, weights, metrics) for weights in bootstrap(len(truth), seed)]
    return {metric: np.concatenate([part[metric] for part in parts]) for metric in parts[0]}


def _regression(truth: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    total = weights.sum(axis=1)
    error = predicted - truth
    squares = weights @ error**2
    # Centre first: the difference of large sums would lose precision.
    centred = truth - truth.mean() if len(truth) else truth
    spread = weights @ centred**2 - (weights @ centred) ** 2 / total
    flat = spread <= 1e-12 * total * np.max(centred**2, initial=0.0)
    return {
        "rmse": np.sqrt(squares / total),
        "mae": weights @ np.abs(error) / total,
        "r2": np.where(flat, np.nan, 1 - squares / spread),
    }


def _classification(
    truth: NDArray[np.intp], predicted: Floats, weights: Floats, metrics: Collection[str] | None
) -> dict[str, Floats]:
    rows, classes = predicted.shape
    label = predicted.argmax(axis=1)
    pairs = truth * classes + label
    counts = [np.bincount(pairs, weights=each, minlength=classes * classes) for each in weights]
    confusion = np.reshape(counts, (-1, classes, classes))
    total = weights.sum(axis=1)
    hits = np.einsum("bcc->bc", confusion)
    true, said = confusion.sum(axis=2), confusion.sum(axis=1)
    recall = np.where(true > 0, hits / true, 0.0)
    precision = np.where(said > 0, hits / said, 0.0)
    f1 = np.where(true + said > 0, 2 * hits / (true + said), 0.0)
    values = {
        "accuracy": hits.sum(axis=1) / total,
        "balanced_accuracy": recall.sum(axis=1) / (true > 0).sum(axis=1),
    }
    if classes == 2:
        values |= {"precision": precision[:, 1], "recall": recall[:, 1], "f1": f1[:, 1]}
    else:
        met = (true > 0) | (said > 0)
        for name, each in (("precision", precision), ("recall", recall), ("f1", f1)):
            values[name] = np.where(met, each, 0.0).sum(axis=1) / met.sum(axis=1)
    if metrics is None or "roc_auc" in metrics:
        areas = [_auc(truth == c, predicted[:, c], weights) for c in ((1,) if classes == 2 else range(classes))]
        values["roc_auc"] = np.mean(areas, axis=0)
    if classes == 2:
        values["selection_rate"] = said[:, 1] / total
    share = predicted[np.arange(rows), truth] / predicted.sum(axis=1)
    values["log_loss"] = weights @ -np.log(np.clip(share, np.finfo(np.float64).eps, 1.0)) / total
    return values


def _auc(positive: NDArray[np.bool_], score: Floats, weights: Floats) -> Floats:
    """Compute the area under the ROC curve: the probability that a positive row scores higher, ties counting half."""
    _, at = np.unique(score, return_inverse=True)
    order = np.argsort(at, kind="stable")
    starts = np.flatnonzero(np.diff(at[order], prepend=-1))
    if not len(starts):
        return np.full(len(weights), np.nan)
    above = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    below = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    lower = below.cumsum(axis=1) - below
    area: Floats = (above * (lower + below / 2)).sum(axis=1) / (above.sum(axis=1) * below.sum(axis=1))
    return area
