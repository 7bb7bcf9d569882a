"""The rows of a dataset version as a training function gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.training.package import text_features

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def check_columns(rows: pa.Table, model: Model) -> None:
    """Check that a dataset version has every column that the model needs.

    Raises:
        MlopsError: one is missing: the table is older than the contract.
    """
    needed = {model.target, *model.features, *model.protected, *(part.column for part in model.slices)}
    missing = sorted(needed - set(rows.column_names))
    if missing:
        raise MlopsError(
            f"the rows of {model.contract} lack {', '.join(missing)}, which {model.name} needs",
            fix="ingest data by the current contract, or train on a later snapshot (DATASET_SNAPSHOT)",
        )


def features_of(rows: pa.Table, model: Model, contract: Contract) -> pd.DataFrame:
    """The model's features; see `TrainingData.features`."""
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
    """The model's target; see `TrainingData.target`.

    Raises:
        MlopsError: the column's type does not fit the task.
    """
    import pandas as pd
    import pyarrow as pa

    kind, column = contract.columns[model.target].logical_type, rows.column(model.target)
    fitting = ("integer", "number") if model.task == "regression" else ("string", "integer", "boolean")
    if kind not in fitting:
        raise MlopsError(
            f"the target {model.target} of {model.name} is of the type {kind}; "
            f"{model.task} needs {' or '.join(fitting)}",
            fix="choose another target or task in model.yaml",
        )
    if model.task == "regression":
        return pd.Series(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), name=model.target)
    if kind == "string":
        return pd.Series(column.cast(pa.large_string()).to_pylist(), dtype=object, name=model.target)
    return pd.Series(column.cast(pa.int64()).to_numpy(zero_copy_only=False), name=model.target)
