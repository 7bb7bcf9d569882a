"""Rows of the holdout that equal training rows in their features and target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import Contract
from pipelines.declarations.model import Model

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Rows = NDArray[np.bool_]


def hash_examples(features: pd.DataFrame, target: pd.Series) -> NDArray[np.uint64]:
    """Hash each row's features and target. Equal rows have equal hashes."""
    import pandas as pd

    examples = features.assign(**{f"{target.name} (target)": target})
    hashes: NDArray[np.uint64] = pd.util.hash_pandas_object(examples, index=False).to_numpy()
    return hashes


def find_leaked(examples: NDArray[np.uint64], kept: Rows) -> Rows:
    """Return which rows are in the holdout and equal a training row.

    Args:
        examples: a hash for each row, from `hash_examples`.
        kept: which rows are in the holdout.
    """
    return kept & np.isin(examples, examples[~kept])


def describe_leaked(model: Model, contract: Contract, rows: pa.Table, most: int = 5) -> list[str]:
    """Return a line for each row of the holdout that equals a training row, with the keys of both.

    Keys of a column that the contract classifies are not shown.

    Args:
        model: the declaration; its features, target, seed and holdout decide which rows are equal.
        contract: the contract of the rows.
        rows: the rows that were split into training data and holdout.
        most: greatest number of lines.
    """
    import pyarrow.compute as pc

    from pipelines.training.rows import features_of, target_of
    from pipelines.training.split import hash_keys, in_holdout

    names = contract.primary_key
    if any(is_personal(contract.columns[name]) for name in names):
        return []
    labelled = rows.filter(pc.is_valid(rows.column(model.target)))
    kept = in_holdout(hash_keys(labelled, names), model.training.seed, model.training.holdout)
    examples = hash_examples(features_of(labelled, model, contract), target_of(labelled, model, contract))
    first = {int(examples[at]): int(at) for at in np.flatnonzero(~kept)[::-1]}
    keys = {name: labelled.column(name) for name in names}

    def key(at: int) -> str:
        return ", ".join(f"{name} {column[at].as_py()}" for name, column in keys.items())

    leaked = np.flatnonzero(find_leaked(examples, kept))
    lines = [f"{key(int(at))} equals {key(first[int(examples[at])])}" for at in leaked[:most]]
    return [*lines, f"and {len(leaked) - most} more"] if len(leaked) > most else lines
