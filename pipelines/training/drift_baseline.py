"""Drift baseline of a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.declarations.baseline import MOST_CATEGORIES, Baseline, Categorical, Numeric, category
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.inference_logging import lists_groups
from pipelines.declarations.model import Model
from pipelines.training.evaluate import Predictions
from pipelines.training.rounding import rounded

if TYPE_CHECKING:
    import pandas as pd

BINS = 10
"""Number of bins of a histogram. Deciles are the usual choice for the population stability index."""


def describe_baseline(model: Model, contract: Contract, features: pd.DataFrame, predictions: Predictions) -> Baseline:
    """Describe the distribution of the features and of the predictions.

    A personal feature is left out unless its values are groups: requests are logged without it, and the extremes of a
    distribution are values of single people.

    Args:
        model: the declaration.
        contract: decides which features are categorical: text, booleans, and columns with listed values.
        features: every row of the dataset version, like `TrainingData.features`.
        predictions: predictions for the holdout.
    """
    described: dict[str, Numeric | Categorical] = {}
    for name in model.features:
        column = contract.columns[name]
        if is_personal(column) and not lists_groups(column):
            continue
        values = features[name].to_numpy()
        if column.logical_type == "string":
            described[name] = describe_categories(
                values, values == "" if not column.required else np.zeros(len(values), bool)
            )
        elif column.logical_type == "boolean" or column.valid_values is not None:
            described[name] = describe_categories(values, np.isnan(values))
        else:
            described[name] = describe_numbers(values)
    outputs: dict[str, Numeric | Categorical] = {}
    if predictions.classes is None:
        outputs["prediction"] = describe_numbers(predictions.predicted)
    else:
        labels = np.asarray(predictions.classes, dtype=object)[predictions.predicted.argmax(axis=1)]
        outputs["label"] = describe_categories(labels, np.zeros(len(labels), bool))
        for index, each in enumerate(predictions.classes):
            outputs[f"probabilities[{category(each)}]"] = describe_numbers(predictions.predicted[:, index])
    return Baseline(model=model.name, features=described, outputs=outputs)


def describe_numbers(values: np.ndarray[Any, Any]) -> Numeric:
    """Describe the distribution of numbers; NaN is a missing value."""
    there = values[~np.isnan(values)].astype(np.float64)
    nulls = len(values) - len(there)
    if not len(there):
        return Numeric(rows=len(values), nulls=nulls, mean=None, deviation=None, quantiles=(), edges=(), counts=(0,))
    quantiles = [rounded(value) for value in np.quantile(there, np.linspace(0, 1, 101))]
    edges = sorted({quantiles[100 * i // BINS] for i in range(1, BINS)})
    counts = np.bincount(np.searchsorted(edges, there, side="right"), minlength=len(edges) + 1)
    return Numeric(
        rows=len(values),
        nulls=nulls,
        mean=rounded(there.mean()),
        deviation=rounded(there.std()),
        quantiles=tuple(quantiles),
        edges=tuple(edges),
        counts=tuple(counts.tolist()),
    )


def describe_categories(values: np.ndarray[Any, Any], null: np.ndarray[Any, Any]) -> Categorical:
    """Describe the distribution of categories; `null` says which values are missing."""
    distinct, counts = np.unique(values[~null], return_counts=True)
    named = sorted(
        zip((category(v) for v in distinct.tolist()), counts.tolist(), strict=True), key=lambda c: (-c[1], c[0])
    )
    kept, others = named[:MOST_CATEGORIES], named[MOST_CATEGORIES:]
    return Categorical(
        rows=len(values), nulls=int(null.sum()), counts=dict(kept), others=sum(count for _, count in others)
    )
