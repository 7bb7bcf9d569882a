"""Evaluate a model on its holdout: overall, per slice and per protected group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.baseline import category
from pipelines.declarations.evaluation import Estimate, Evaluation, Groups, Holdout, Part, Sample
from pipelines.declarations.model import Model, Slice, Task
from pipelines.training.metrics import Floats, measure, replicate
from pipelines.training.rounding import rounded, rounded_or_none
from pipelines.training.split import Hashes

if TYPE_CHECKING:
    import pandas as pd

MOST_SAMPLED = 5000
"""Maximum number of holdout rows in `evaluation.json`."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for the holdout, with the true values.

    Attributes:
        truth: (n,): the target, or the index of its class.
        predicted: (n,) predictions, or (n, classes) probabilities.
        classes: names of the classes; None for regression.
    """

    truth: Floats
    predicted: Floats
    classes: tuple[str | int, ...] | None


def evaluate(model: Model, holdout: Holdout, rows: pd.DataFrame, keys: Hashes, predictions: Predictions) -> Evaluation:
    """Make the content of `evaluation.json`.

    Args:
        model: the declaration, with its task, slices and protected attributes.
        holdout: describes the rows.
        rows: the holdout, with every column of the contract.
        keys: hashes of their primary keys.
        predictions: predictions for the same rows, in the same order.
    """
    return Evaluation(
        model=model.name,
        task=model.task,
        classes=predictions.classes,
        holdout=holdout,
        metrics=_overall(model, predictions),
        slices={part.name: _part(model.task, predictions, _in_slice(rows, part)) for part in model.slices},
        groups={name: _groups(model.task, predictions, rows[name]) for name in model.protected},
        sample=_sample(keys, predictions),
    )


def _overall(model: Model, predictions: Predictions) -> dict[str, Estimate]:
    once = measure(model.task, predictions.truth, predictions.predicted)
    many = replicate(model.task, predictions.truth, predictions.predicted, model.training.seed)
    estimates = {}
    for metric, value in once.items():
        defined = many[metric][np.isfinite(many[metric])]
        low, high = np.quantile(defined, (0.025, 0.975)) if len(defined) else (np.nan, np.nan)
        estimates[metric] = Estimate(
            value=rounded_or_none(value[0]), low=rounded_or_none(low), high=rounded_or_none(high)
        )
    return estimates


def _part(task: Task, predictions: Predictions, chosen: NDArray[Any]) -> Part:
    truth = predictions.truth[chosen]
    values = measure(task, truth, predictions.predicted[chosen]) if len(truth) else {}
    return Part(rows=len(truth), metrics={metric: rounded_or_none(value[0]) for metric, value in values.items()})


def _in_slice(rows: pd.DataFrame, part: Slice) -> NDArray[np.bool_]:
    column = rows[part.column]
    if part.equals is not None:
        chosen = column == part.equals
    else:
        chosen = column.notna()
        if part.minimum is not None:
            chosen &= column >= part.minimum
        if part.below is not None:
            chosen &= column < part.below
    return np.asarray(chosen.fillna(False), dtype=bool)


def _groups(task: Task, predictions: Predictions, attribute: pd.Series) -> Groups:
    import pandas as pd
    from fairlearn.metrics import MetricFrame

    names = attribute.map(lambda value: "null" if pd.isna(value) else _name(value)).astype(str)
    at = np.arange(len(names))
    metrics = list(measure(task, predictions.truth, predictions.predicted))

    def on_rows(metric: str) -> Callable[[Any, Any], float]:
        # fairlearn passes one column, which cannot hold the probabilities of several classes. So pass row numbers.
        def value(group: Any, _: Any) -> float:
            chosen = np.asarray(group)
            return float(measure(task, predictions.truth[chosen], predictions.predicted[chosen])[metric][0])

        return value

    functions: dict[str, Callable[[Any, Any], float]] = {metric: on_rows(metric) for metric in metrics}
    frame = MetricFrame(metrics=functions, y_true=at, y_pred=at, sensitive_features=names.to_numpy())
    by_group = frame.by_group.astype(float)
    # fairlearn skips a group whose metric is undefined, and that may be the worst one.
    is_defined = np.isfinite(by_group).all()
    least = by_group.min()
    difference = frame.difference(method="between_groups", errors="coerce")
    # fairlearn's ratio is minimum / maximum; ours is the inverse.
    ratio = frame.ratio(method="between_groups", errors="coerce")
    return Groups(
        groups={
            str(name): Part(
                rows=int((names == name).sum()), metrics={m: rounded_or_none(v) for m, v in by_group.loc[name].items()}
            )
            for name in sorted(by_group.index)
        },
        difference={m: rounded_or_none(difference[m]) if is_defined[m] else None for m in metrics},
        ratio={m: rounded_or_none(1 / ratio[m]) if is_defined[m] and least[m] > 0 else None for m in metrics},
    )


def _name(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    return category(plain) if isinstance(plain, str | int | float | bool) else str(plain)


def _sample(keys: Hashes, predictions: Predictions) -> Sample:
    order = np.argsort(keys, kind="stable")[:MOST_SAMPLED]
    predicted = predictions.predicted[order]
    values: tuple[Any, ...]
    if predicted.ndim == 1:
        values = tuple(rounded(value) for value in predicted)
    else:
        values = tuple(tuple(rounded(value) for value in row) for row in predicted)
    return Sample(
        keys=tuple(f"{key:016x}" for key in keys[order].tolist()),
        truth=tuple(float(value) for value in predictions.truth[order]),
        predicted=values,
    )
