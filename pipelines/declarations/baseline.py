"""`baseline.json`: what the data looked like when a model was trained, for live traffic to be compared with."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import Name

Count = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(allow_inf_nan=False)]

MOST_CATEGORIES = 100
"""Categories counted by name; the rest are counted together."""


class Numeric(Declaration):
    """A column of numbers.

    Attributes:
        rows: how many, nulls included.
        nulls: how many had no value.
        mean, deviation: of the values; the deviation is the population's.
        quantiles: 101 values: the minimum, every percentile, and the maximum; empty when there is no value.
        edges: inner edges of the histogram's bins, ascending; the first and last bins are open.
        counts: values in each bin, one more than `edges`; bin `i` holds edges[i-1] <= value < edges[i].
    """

    kind: Literal["numeric"] = "numeric"
    rows: Count
    nulls: Count
    mean: Figure | None
    deviation: Figure | None
    quantiles: tuple[Figure, ...]
    edges: tuple[Figure, ...]
    counts: tuple[Count, ...]


class Categorical(Declaration):
    """A column of a few distinct values.

    Attributes:
        rows: how many, nulls included.
        nulls: how many had no value.
        counts: category (as `category` writes it) → rows; the most frequent ones.
        others: rows of all other categories together.
    """

    kind: Literal["categorical"] = "categorical"
    rows: Count
    nulls: Count
    counts: dict[str, Count]
    others: Count


Column = Annotated[Numeric | Categorical, Field(discriminator="kind")]


class Baseline(Declaration):
    """`baseline.json`.

    Attributes:
        model: the model's name.
        features: feature → its distribution over all rows of the dataset version.
        outputs: output → its distribution over the holdout: `prediction`, or `label` and `probabilities[<class>]`.
    """

    format: Literal["mlops/baseline/v1"] = "mlops/baseline/v1"
    model: Name
    features: dict[str, Column]
    outputs: dict[str, Column]


def category(value: str | int | float | bool) -> str:
    """The name of a category, the same whether it comes from a table (1, true) or from a float tensor (1.0)."""
    if isinstance(value, str):
        return value
    number = float(value)
    return str(int(number)) if math.isfinite(number) and number == int(number) else repr(number)
