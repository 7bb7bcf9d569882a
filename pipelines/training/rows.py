"""Convert the rows of a dataset version for a training function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def text_features(model: Model, contract: Contract) -> tuple[str, ...]:
    """Return the features that are text, in the model's order. The others are numbers."""
    return tuple(name for name in model.features if contract.columns[name].logical_type == "string")


def check_columns(rows: pa.Table, model: Model) -> None:
    """Check that a dataset version has every column that the model needs.

    Raises:
        MlopsError: a column is missing, because the table is older than the contract.
    """
    missing = sorted(model.needed_columns - set(rows.column_names))
    if missing:
        raise MlopsError(
            f"the rows of {model.contract} lack {', '.join(missing)}, which {model.name} needs",
            fix="ingest data with the current contract, or train on a later snapshot (DATASET_SNAPSHOT)",
        )


def features_of(rows: pa.Table, model: Model, contract: Contract) -> pd.DataFrame:
    """Return the model's features as `TrainingData.features` describes them."""
    import pandas as pd
    import pyarrow as pa

    text = text_features(model, contract)
    columns = {}
    for name in model.features:
        column = rows.column(name)
        if name in text:
            values = column.cast(pa.large_string()).fill_null("").to_pylist()
            columns[name] = pd.Series(values, dtype=object)
        else:
            if pa.types.is_boolean(column.type):
                column = column.cast(pa.uint8())
            numbers = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
            columns[name] = pd.Series(numbers.astype(np.float32).astype(np.float64))
    return pd.DataFrame(columns)


def target_of(rows: pa.Table, model: Model, contract: Contract) -> pd.Series:
    """Return the model's target as `TrainingData.target` describes it."""
    import pandas as pd
    import pyarrow as pa

    kind, column = contract.columns[model.target].logical_type, rows.column(model.target)
    if model.task == "regression":
        return pd.Series(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), name=model.target)
    if kind == "string":
        return pd.Series(column.cast(pa.large_string()).to_pylist(), dtype=object, name=model.target)
    return pd.Series(column.cast(pa.int64()).to_numpy(zero_copy_only=False), name=model.target)
