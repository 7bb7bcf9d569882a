"""Drift baseline of a bundle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from pipelines.data.ordered_rows import BLOCK_ROWS
from pipelines.declarations.baseline import MOST_CATEGORIES, Baseline, Categorical, Numeric, category
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.inference_logging import lists_groups
from pipelines.declarations.model import Model
from pipelines.training.evaluate import Predictions
from pipelines.training.rounding import rounded

Numbers = np.ndarray[Any, Any]

BINS = 10
"""Number of bins of a histogram. Deciles are the usual choice for the population stability index."""


FeatureBlocks = Callable[[str], Iterable[np.ndarray[Any, Any]]]
"""Returns the values of a feature for all rows, in blocks, like `TrainingData.features`."""


def describe_baseline(model: Model, contract: Contract, features: FeatureBlocks, predictions: Predictions) -> Baseline:
    """Describe the distribution of the features and of the predictions.

    A personal feature is left out unless its values are groups: requests are logged without it, and the extremes of a
    distribution are values of single people.

    Args:
        model: the declaration.
        contract: decides which features are categorical: text, booleans, and columns with listed values.
        features: the features of every row of the dataset version; called several times for each.
        predictions: predictions for the holdout.
    """
    described: dict[str, Numeric | Categorical] = {}
    for name in model.features:
        column = contract.columns[name]
        if is_personal(column) and not lists_groups(column):
            continue
        if column.logical_type == "string":
            described[name] = _describe_texts(features(name), is_nullable=not column.required)
        elif column.logical_type == "boolean" or column.valid_values is not None:
            described[name] = describe_categories((values, np.isnan(values)) for values in features(name))
        else:
            described[name] = describe_number_blocks(partial(features, name))
    outputs: dict[str, Numeric | Categorical] = {}
    if predictions.classes is None:
        outputs["prediction"] = describe_numbers(predictions.predicted)
    else:
        labels = np.asarray(predictions.classes, dtype=object)[predictions.predicted.argmax(axis=1)]
        outputs["label"] = describe_categories([(labels, np.zeros(len(labels), bool))])
        for index, each in enumerate(predictions.classes):
            outputs[f"probabilities[{category(each)}]"] = describe_numbers(predictions.predicted[:, index])
    return Baseline(model=model.name, features=described, outputs=outputs)


def describe_numbers(values: Numbers) -> Numeric:
    """Describe the distribution of numbers in memory; see `describe_number_blocks`."""
    blocks = [values[start : start + BLOCK_ROWS] for start in range(0, len(values), BLOCK_ROWS)]
    return describe_number_blocks(lambda: blocks)


def describe_number_blocks(blocks: Callable[[], Iterable[Numbers]]) -> Numeric:
    """Describe the distribution of numbers in bounded memory; NaN is a missing value.

    Args:
        blocks: returns the numbers, in blocks; called several times. The quantiles have the precision of float32, which
            is that of features and predictions.
    """
    rows, there, total = 0, 0, []
    for values in blocks():
        known = values[~np.isnan(values)].astype(np.float64)
        rows, there = rows + len(values), there + len(known)
        total.append(float(known.sum()))
    nulls = rows - there
    if not there:
        return Numeric(rows=rows, nulls=nulls, mean=None, deviation=None, quantiles=(), edges=(), counts=(0,))
    mean = math.fsum(total) / there
    quantiles = [rounded(value) for value in _quantiles(blocks, there)]
    edges = sorted({quantiles[100 * i // BINS] for i in range(1, BINS)})
    counts, squares = np.zeros(len(edges) + 1, np.int64), []
    for values in blocks():
        known = values[~np.isnan(values)].astype(np.float64)
        counts += np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(counts))
        squares.append(float(np.square(known - mean).sum()))
    return Numeric(
        rows=rows,
        nulls=nulls,
        mean=rounded(mean),
        deviation=rounded(math.sqrt(math.fsum(squares) / there)),
        quantiles=tuple(quantiles),
        edges=tuple(edges),
        counts=tuple(counts.tolist()),
    )


def _quantiles(blocks: Callable[[], Iterable[Numbers]], there: int) -> Iterable[float]:
    """Return the 101 percentiles, with linear interpolation between the two numbers next to each."""
    places = np.arange(101) * (there - 1)
    ranks = np.unique(np.concatenate([places // 100, (places + 99) // 100]))
    found = dict(zip(ranks.tolist(), _ranked(blocks, ranks), strict=True))
    for place in places.tolist():
        low, high, share = found[place // 100], found[-(-place // 100)], place % 100 / 100
        yield low + (high - low) * share if high > low else low


def _ranked(blocks: Callable[[], Iterable[Numbers]], ranks: Numbers) -> list[float]:
    """Return the numbers at some ranks in ascending order, from 0: find some of their bits in each pass."""
    known, left, before = np.zeros(len(ranks), np.int64), 32, np.zeros(len(ranks), np.int64)
    for width in _BITS_OF_A_PASS:
        heads, at = np.unique(known, return_inverse=True)
        place = np.full(1 << (32 - left), -1, np.int16)  # of the leading bits that are known, in `heads`
        place[heads] = np.arange(len(heads))
        counts = np.zeros(len(heads) << width, np.int64)
        for values in blocks():
            bits = _sortable(values)
            found = place[bits >> left]
            bits = (bits >> (left - width)) & ((1 << width) - 1)
            counts += np.bincount((found.astype(np.int64) << width | bits)[found >= 0], minlength=len(counts))
        ends = np.cumsum(counts.reshape(len(heads), -1), axis=1)
        wanted = zip(at.tolist(), (ranks - before).tolist(), strict=True)
        digits = np.array([np.searchsorted(ends[i], rank, side="right") for i, rank in wanted])
        before += np.where(digits > 0, ends[at, digits - 1], 0)
        known, left = known << width | digits, left - width
    return [_number(bits) for bits in known.tolist()]


_BITS_OF_A_PASS = (11, 11, 10)
"""Bits that each pass finds. More need more memory: the counts of 101 percentiles and their neighbours."""

_SIGN = 1 << 31


def _sortable(values: Numbers) -> np.ndarray[Any, Any]:
    """Return the numbers that are not NaN as integers from 0 to 2^32 - 1 that have the same order."""
    bits = (values[~np.isnan(values)].astype(np.float32) + np.float32(0.0)).view(np.uint32)  # -0.0 + 0.0 is 0.0
    return np.where(bits & _SIGN, ~bits, bits | np.uint32(_SIGN)).astype(np.int64)


def _number(bits: int) -> float:
    """Return the number of an integer that `_sortable` returned."""
    plain = bits & ~_SIGN if bits & _SIGN else ~bits & 0xFFFFFFFF
    return float(np.array([plain], np.uint32).view(np.float32)[0])


def _describe_texts(blocks: Iterable[np.ndarray[Any, Any]], *, is_nullable: bool) -> Categorical:
    def with_nulls(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return values, values == "" if is_nullable else np.zeros(len(values), bool)

    return describe_categories(map(with_nulls, blocks))


def describe_categories(blocks: Iterable[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]) -> Categorical:
    """Describe the distribution of categories. As many are in memory as there are different ones.

    Args:
        blocks: the values, and which of them are missing.
    """
    found: Counter[str] = Counter()
    rows = nulls = 0
    for values, null in blocks:
        distinct, counts = np.unique(values[~null], return_counts=True)
        found.update(dict(zip((category(each) for each in distinct.tolist()), counts.tolist(), strict=True)))
        rows, nulls = rows + len(values), nulls + int(null.sum())
    named = sorted(found.items(), key=lambda c: (-c[1], c[0]))
    kept, others = named[:MOST_CATEGORIES], named[MOST_CATEGORIES:]
    return Categorical(rows=rows, nulls=nulls, counts=dict(kept), others=sum(count for _, count in others))
