"""Training rows on their way to the process of the training function, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from pipelines.training.api import TrainingData

SentBlock = tuple[list["np.ndarray[Any, Any]"], "np.ndarray[Any, Any]"]
"""Values of each feature, and of the target, for some rows."""


@dataclass(frozen=True)
class SentShape:
    """Shape of the training rows: their number, names, parameters and seed.

    Attributes:
        rows: number of rows.
        features: names of the features.
        target: name of the target.
        parameters, seed: see `TrainingData`.
    """

    rows: int
    features: tuple[str, ...]
    target: str
    parameters: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class SentRows:
    """Training rows.

    Attributes:
        shape: what the blocks are together.
        blocks: returns the rows.
    """

    shape: SentShape
    blocks: Callable[[], Iterable[SentBlock]]


def receive_rows(shape: SentShape, blocks: Iterable[SentBlock]) -> TrainingData:
    """Put training rows together. Besides the result, one block is in memory.

    Args:
        shape: what the blocks are together.
        blocks: the rows; no more blocks are taken than needed.
    """
    import numpy as np
    import pandas as pd

    from pipelines.training.api import TrainingData

    columns: list[np.ndarray[Any, Any]] = []
    filled = 0
    given = iter(blocks)
    while filled < shape.rows:
        features, target = next(given)
        parts = [*features, target]
        columns = columns or [np.empty(shape.rows, part.dtype) for part in parts]
        for column, part in zip(columns, parts, strict=True):
            column[filled : filled + len(target)] = part
        filled += len(target)
    *values, labels = columns
    named = {name: pd.Series(each, dtype=each.dtype) for name, each in zip(shape.features, values, strict=True)}
    return TrainingData(
        features=pd.DataFrame(named),
        target=pd.Series(labels, dtype=labels.dtype, name=shape.target),
        parameters=shape.parameters,
        seed=shape.seed,
    )
