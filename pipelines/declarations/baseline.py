"""`baseline.json`: distribution of the training data and predictions, to detect drift in live traffic."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from pipelines.declarations.documents import Declaration
from pipelines.declarations.names import Name

Count = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(allow_inf_nan=False)]

MOST_CATEGORIES = 100
"""Categories counted by name; all others are counted together."""


class Numeric(Declaration):
    """Distribution of a numeric column.

    Attributes:
        rows: number of rows, including nulls.
        nulls: number of rows without a value.
        mean, deviation: mean and population standard deviation; None if there are no values.
        quantiles: 101 values: minimum, percentiles 1 to 99, maximum; empty if there are no values.
        edges: inner edges of the histogram bins, ascending; the first and last bins are unbounded.
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
    """Distribution of a column with few distinct values.

    Attributes:
        rows: number of rows, including nulls.
        nulls: number of rows without a value.
        counts: category name, see `category` → number of rows; the most frequent categories.
        others: number of rows of all other categories.
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
        model: name of the model.
        features: feature → distribution over all rows of the dataset version; without personal features, unless the
            contract lists their values.
        outputs: output → distribution over the holdout: `prediction`, or `label` and `probabilities[<class>]`.
    """

    format: Literal["mlops/baseline/v1"] = "mlops/baseline/v1"
    model: Name
    features: dict[str, Column]
    outputs: dict[str, Column]


def category(value: str | int | float | bool) -> str:
    """Name a category, identically for a table value (1, true) and a float tensor (1.0)."""
    if isinstance(value, str):
        return value
    number = float(value)
    return str(int(number)) if math.isfinite(number) and number == int(number) else repr(number)
