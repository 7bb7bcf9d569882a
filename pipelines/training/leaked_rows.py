"""Rows of the holdout that equal training rows in their features and target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.model import Model
from pipelines.training.split import in_holdout, in_training
from pipelines.training.training_set import hash_rows, hashed_columns

if TYPE_CHECKING:
    import pyarrow as pa


def describe_leaked(model: Model, contract: Contract, rows: pa.Table, most: int = 5) -> list[str]:
    """Return a line for each row of the holdout that equals a training row, with the keys of both.

    Keys of a column that the contract classifies are not shown.

    Args:
        model: the declaration; its features, target, seed, holdout and sample decide which rows are equal.
        contract: the contract of the rows.
        rows: the rows that were split into training data and holdout.
        most: greatest number of lines.
    """
    import pyarrow.compute as pc

    names = contract.primary_key
    if any(is_personal(contract.columns[name]) for name in names):
        return []
    labelled = rows.filter(pc.is_valid(rows.column(model.target)))
    hashes, examples = hash_rows(labelled, hashed_columns(labelled.column_names, model, contract))
    settings = model.training
    kept = in_holdout(hashes, settings.seed, settings.holdout)
    trained = in_training(hashes, settings.seed, settings.holdout, settings.sample)
    keys = {name: labelled.column(name) for name in names}

    def key(at: int) -> str:
        return ", ".join(f"{name} {column[at].as_py()}" for name, column in keys.items())

    def twin(at: int) -> int:
        """Return the first training row that equals a row."""
        return int(np.flatnonzero(trained & (examples == examples[at]))[0])

    leaked = np.flatnonzero(kept & np.isin(examples, examples[trained]))
    lines = [f"{key(at)} equals {key(twin(at))}" for at in leaked[:most].tolist()]
    return [*lines, f"and {len(leaked) - most} more"] if len(leaked) > most else lines
