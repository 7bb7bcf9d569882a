"""Convert the rows of a dataset version for a training function."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from pipelines.declarations.contract import Contract
    from pipelines.declarations.model import Model

Values = np.ndarray[Any, Any]


def text_features(model: Model, contract: Contract) -> tuple[str, ...]:
    """Return the features that are text, in the model's order. The others are numbers."""
    return tuple(name for name in model.features if contract.columns[name].logical_type == "string")


def check_columns(names: Collection[str], model: Model) -> None:
    """Check that a dataset version has every column that the model needs.

    Args:
        names: columns of the version.
        model: the declaration.

    Raises:
        MlopsError: a column is missing, because the table is older than the contract.
    """
    missing = sorted(model.needed_columns - set(names))
    if missing:
        raise MlopsError(
            f"the rows of {model.contract} lack {', '.join(missing)}, which {model.name} needs",
            fix="ingest data with the current contract, or train on a later snapshot (DATASET_SNAPSHOT)",
        )


def feature_values(column: pa.ChunkedArray, *, is_text: bool) -> Values:
    """Return a feature: text as `str` with "" for null; numbers as float64 of float32's precision, NaN for null."""
    import pyarrow as pa

    if is_text:
        values = np.empty(len(column), object)
        values[:] = column.cast(pa.large_string()).fill_null("").to_pylist()
        return values
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    numbers = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    return numbers.astype(np.float32).astype(np.float64)


def target_values(column: pa.ChunkedArray, kind: str) -> Values:
    """Return a target without nulls: float64 for `number`, `str` for `text`, int64 for `integer`; see `target_kind`."""
    import pyarrow as pa

    if kind == "number":
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    if kind == "text":
        values = np.empty(len(column), object)
        values[:] = column.cast(pa.large_string()).to_pylist()
        return values
    return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))


def target_kind(model: Model, contract: Contract) -> str:
    """Return how a training function gets the target: as `number`, `text` or `integer`."""
    if model.task == "regression":
        return "number"
    return "text" if contract.columns[model.target].logical_type == "string" else "integer"


def features_of(rows: pa.Table, model: Model, contract: Contract) -> pd.DataFrame:
    """Return the model's features as `TrainingData.features` describes them."""
    import pandas as pd

    text = text_features(model, contract)
    values = {name: feature_values(rows.column(name), is_text=name in text) for name in model.features}
    return pd.DataFrame({name: pd.Series(each, dtype=each.dtype) for name, each in values.items()})


def target_of(rows: pa.Table, model: Model, contract: Contract) -> pd.Series:
    """Return the model's target as `TrainingData.target` describes it."""
    import pandas as pd

    values = target_values(rows.column(model.target), target_kind(model, contract))
    return pd.Series(values, dtype=values.dtype, name=model.target)
