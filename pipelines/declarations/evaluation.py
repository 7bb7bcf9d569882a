"""`evaluation.json`: metrics of a model on its holdout."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.model import Task
from pipelines.declarations.names import ColumnName, Name

Count = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(allow_inf_nan=False)]
Figures = dict[str, Figure | None]
"""Metric → value; None if it is undefined, such as R² of one row."""


class Estimate(Declaration):
    """Metric on the whole holdout.

    Attributes:
        value: value on the holdout; None if undefined.
        low, high: 95 % percentile bootstrap interval over rows; None if undefined.
    """

    value: Figure | None
    low: Figure | None
    high: Figure | None


class Part(Declaration):
    """Metrics on a part of the holdout.

    Attributes:
        rows: number of rows.
        metrics: metric values; empty if there are no rows.
    """

    rows: Count
    metrics: Figures


class Groups(Declaration):
    """Metrics for each group of a protected attribute.

    Attributes:
        groups: value of the attribute, as text → metrics of its rows.
        difference: metric → difference of the greatest and least group value; None unless all are defined.
        ratio: metric → ratio of the greatest to the least group value; None unless all are defined and positive.
    """

    groups: dict[str, Part]
    difference: Figures
    ratio: Figures


class Holdout(Declaration):
    """The holdout split, and whether any of it leaked into training.

    Attributes:
        share: share of the rows, from `model.yaml`.
        seed: random seed of the split.
        rows: rows in the holdout.
        training_rows: rows used for training.
        sample: share of the rows outside of the holdout that were used for training, from `model.yaml`; None for all.
        left_out_rows: labelled rows in neither part, because they are not in the sample.
        unlabelled_rows: rows in neither part, because they have no target yet.
        keys: digest of the keys of the holdout rows.
        leaked_rows: holdout rows whose features and target equal those of a training row.
    """

    share: Figure
    seed: Count
    rows: Annotated[int, Field(ge=1)]
    training_rows: Annotated[int, Field(ge=1)]
    sample: Figure | None = None
    left_out_rows: Count = 0
    unlabelled_rows: Count
    keys: Digest
    leaked_rows: Count


class Sample(Declaration):
    """Sample of the holdout, to compare two bundles on rows that neither was trained on.

    It holds the rows with the smallest keys, so the samples of two bundles share as many rows as possible.

    Attributes:
        keys: hashed keys of the rows (16 hexadecimal digits), ascending.
        truth: target values; for classification, the index of the class.
        predicted: predictions; for classification, the class probabilities of each row.
    """

    keys: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")], ...]
    truth: tuple[Figure, ...]
    predicted: tuple[Figure | tuple[Figure, ...], ...]


class Evaluation(Declaration):
    """`evaluation.json`.

    Attributes:
        model, task: model and task of the bundle.
        classes: classes in the order of the probabilities, for classification; the last of two is the positive one.
        holdout: the rows that the metrics were measured on.
        metrics: metric → value and interval.
        slices: slice of `model.yaml` → metrics.
        groups: protected attribute → metrics of its groups.
        sample: at most 5,000 rows of the holdout.
    """

    format: Literal["mlops/evaluation/v1"] = "mlops/evaluation/v1"
    model: Name
    task: Task
    classes: tuple[str | int, ...] | None = None
    holdout: Holdout
    metrics: dict[str, Estimate]
    slices: dict[Name, Part]
    groups: dict[ColumnName, Groups]
    sample: Sample
