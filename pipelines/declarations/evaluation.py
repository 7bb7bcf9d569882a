"""`evaluation.json`: how good a model is on the rows it was not trained on."""

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
"""Metric → value; None where it is not defined (R² of one row, a ratio of values that are not both positive)."""


class Estimate(Declaration):
    """A metric on the whole holdout.

    Attributes:
        value: on the holdout as it is; None where it is not defined.
        low, high: 95 % percentile bootstrap interval over rows; None where it is not defined.
    """

    value: Figure | None
    low: Figure | None
    high: Figure | None


class Part(Declaration):
    """The metrics on some rows of the holdout.

    Attributes:
        rows: how many.
        metrics: their values; empty when there are no rows.
    """

    rows: Count
    metrics: Figures


class Groups(Declaration):
    """The metrics by the values of a protected attribute.

    Attributes:
        groups: value of the attribute, as text → metrics of its rows.
        difference: metric → greatest less least of the groups' values.
        ratio: metric → greatest divided by least of the groups' values; None unless all are positive.
    """

    groups: dict[str, Part]
    difference: Figures
    ratio: Figures


class Holdout(Declaration):
    """Which rows were kept from training, and whether they really were.

    Attributes:
        share: of the rows, as `model.yaml` asks.
        seed: by which they were chosen.
        rows: how many they are.
        training_rows: how many the others are.
        unlabelled_rows: rows in neither, because they have no target yet.
        keys: digest of the holdout rows' keys.
        leaked_rows: rows of the holdout whose features and target are also those of a row in training.
    """

    share: Figure
    seed: Count
    rows: Annotated[int, Field(ge=1)]
    training_rows: Annotated[int, Field(ge=1)]
    unlabelled_rows: Count
    keys: Digest
    leaked_rows: Count


class Sample(Declaration):
    """Rows of the holdout, kept so that two bundles can be compared on the rows that both did not train on.

    Always those with the smallest keys, so that the samples of two bundles share as many rows as they can.

    Attributes:
        keys: of the rows, hashed (16 hexadecimal digits), ascending.
        truth: the target; for classification the index of the class.
        predicted: what was predicted; for classification a list of probabilities a row.
    """

    keys: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")], ...]
    truth: tuple[Figure, ...]
    predicted: tuple[Figure | tuple[Figure, ...], ...]


class Evaluation(Declaration):
    """`evaluation.json`.

    Attributes:
        model, task: of the bundle.
        classes: for classification, in the order of the probabilities; the last of two is the positive one.
        holdout: the rows that all of this was measured on.
        metrics: metric → its value and interval.
        slices: name of a slice in `model.yaml` → its metrics.
        groups: protected attribute → its groups' metrics.
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
