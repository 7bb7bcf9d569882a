"""Rows that a model is trained and evaluated on: the labelled rows of a dataset version, split by their keys.

All rows pass block by block, so memory is bounded while the set is made, whatever the size of the version.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.data.ordered_rows import OrderedRows, OrderedTable
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.evaluation import Holdout
from pipelines.training.rows import (
    Values,
    check_columns,
    feature_values,
    features_of,
    target_kind,
    target_of,
    target_values,
    text_features,
)
from pipelines.training.sent_rows import SentBlock, SentRows, SentShape
from pipelines.training.split import Hashes, check_key, hash_keys, hash_values, in_holdout, in_training

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.declarations.contract import Contract
    from pipelines.declarations.model import Model

KEY_HASH = "#key"
"""Column of `TrainingSet.rows`: hash of the primary key, from `hash_keys`."""

ROW_HASH = "#row"
"""Column of `TrainingSet.rows`: hash of the features and the target, from `hash_values`."""

SMALLEST_PART = 2
"""Minimum number of rows in the training data and in the holdout."""

HASHES_AT_ONCE = 1 << 21
"""Hashes of rows that are compared in memory at the same time."""

MOST_RANGES = 256
"""Maximum number of temporary files for hashes; beyond that many rows, more of them are in memory."""


@dataclass(frozen=True)
class HashedColumns:
    """Columns of a dataset version that are hashed. It has only plain values, so that it can be sent to workers.

    Attributes:
        key: the primary key.
        features: name of each feature → True if it is text.
        target: name of the target, and its kind; see `target_kind`.
    """

    key: tuple[str, ...]
    features: dict[str, bool]
    target: tuple[str, str]


@dataclass(frozen=True)
class HoldoutRows:
    """Rows of the holdout, in memory, in the order of the dataset version.

    Attributes:
        groups: columns that select slices and protected groups.
        features, target: like those of `TrainingData`.
        keys: hashes of the primary keys.
    """

    groups: pa.Table
    features: pd.DataFrame
    target: pd.Series
    keys: Hashes


def hashed_columns(names: Sequence[str], model: Model, contract: Contract) -> HashedColumns:
    """Return the columns of a dataset version that are hashed.

    Args:
        names: columns of the version.
        model: the declaration.
        contract: contract of the dataset.

    Raises:
        MlopsError: a column is missing, because the table is older than the contract.
    """
    check_columns(names, model)
    check_key(names, contract.primary_key)
    text = text_features(model, contract)
    return HashedColumns(
        key=contract.primary_key,
        features={name: name in text for name in model.features},
        target=(model.target, target_kind(model, contract)),
    )


def hash_rows(rows: pa.Table, columns: HashedColumns) -> tuple[Hashes, Hashes]:
    """Hash the primary key of each row, and its features and target. The latter is 0 for a row without a target.

    Raises:
        MlopsError: a column of the key is missing.
    """
    keys = hash_keys(rows, columns.key)
    name, kind = columns.target
    is_labelled = rows.column(name).is_valid()
    labelled = rows.filter(is_labelled)
    values = [feature_values(labelled.column(each), is_text=text) for each, text in columns.features.items()]
    hashes = np.zeros(rows.num_rows, np.uint64)
    hashes[is_labelled.to_numpy(zero_copy_only=False)] = hash_values(
        [*values, target_values(labelled.column(name), kind)]
    )
    return keys, hashes


def with_hashes(rows: pa.Table, columns: HashedColumns) -> pa.Table:
    """Add `KEY_HASH` and `ROW_HASH` to rows."""
    for name, hashes in zip((KEY_HASH, ROW_HASH), hash_rows(rows, columns), strict=True):
        rows = rows.append_column(name, pa.array(hashes.view(np.int64)))
    return rows


def in_memory(rows: pa.Table, model: Model, contract: Contract) -> OrderedRows:
    """Return the rows of a dataset version, in their order, with their hashes.

    Raises:
        MlopsError: a column is missing, because the table is older than the contract.
    """
    return OrderedTable(with_hashes(rows, hashed_columns(rows.column_names, model, contract)))


class TrainingSet:
    """Labelled rows of a dataset version, split into training rows and the holdout.

    Args:
        model: the declaration.
        contract: contract of the dataset.
        rows: all rows of the version, with `KEY_HASH` and `ROW_HASH`.

    Attributes:
        holdout: describes the split, for the evaluation.

    Raises:
        MlopsError: there are too few labelled rows.
    """

    def __init__(self, model: Model, contract: Contract, rows: OrderedRows) -> None:
        self._model, self._contract, self._rows = model, contract, rows
        self._text = text_features(model, contract)
        labelled = training = holdout = 0
        for block in rows.blocks([model.target, KEY_HASH]):
            labelled += block.num_rows - block.column(model.target).null_count
            holdout += int(self._chosen(block, holdout=True).sum())
            training += int(self._chosen(block, holdout=False).sum())
        if min(training, holdout) < SMALLEST_PART:
            of_sample = " or training.sample" if model.training.sample is not None else ""
            raise MlopsError(
                f"{labelled} labelled rows of {model.contract} for {model.name}: expected at least "
                f"{SMALLEST_PART} for training and {SMALLEST_PART} in the holdout, found {training} and {holdout}",
                fix=f"ingest more data, or change training.holdout{of_sample} in model.yaml",
            )
        self.holdout = Holdout(
            share=model.training.holdout,
            seed=model.training.seed,
            rows=holdout,
            training_rows=training,
            sample=model.training.sample,
            left_out_rows=labelled - training - holdout,
            unlabelled_rows=rows.count - labelled,
            keys=self._digest_of_keys(),
            leaked_rows=self._leaked_rows(),
        )

    def features(self, name: str) -> Iterator[Values]:
        """Return the values of a feature for all rows of the version, in blocks; see `feature_values`."""
        for block in self._rows.blocks([name]):
            yield feature_values(block.column(name), is_text=name in self._text)

    def training(self) -> SentRows:
        """Return the training rows, to be sent to the training function."""
        model = self._model
        shape = SentShape(
            rows=self.holdout.training_rows,
            features=model.features,
            target=model.target,
            parameters=model.training.parameters,
            seed=model.training.seed,
        )
        return SentRows(shape, self._training_blocks)

    def _training_blocks(self) -> Iterator[SentBlock]:
        kind = target_kind(self._model, self._contract)
        for block, chosen in self._parts(self._model.features, holdout=False):
            rows = block.filter(chosen)
            features = [feature_values(rows.column(name), is_text=name in self._text) for name in self._model.features]
            yield features, target_values(rows.column(self._model.target), kind)

    def read_holdout(self) -> HoldoutRows:
        """Read the rows of the holdout into memory."""
        model = self._model
        groups = dict.fromkeys([*model.protected, *(part.column for part in model.slices)])
        names = list(dict.fromkeys([*model.features, *groups]))
        parts = [block.filter(chosen) for block, chosen in self._parts(names, holdout=True)]
        rows = pa.concat_tables(parts)
        return HoldoutRows(
            groups=rows.select(list(groups)),
            features=features_of(rows, model, self._contract),
            target=target_of(rows, model, self._contract),
            keys=_hashes(rows, KEY_HASH),
        )

    def _parts(self, names: Iterable[str], *, holdout: bool) -> Iterator[tuple[pa.Table, Values]]:
        """Return columns of all rows in blocks, with the target and the hash of the key; and which rows are chosen."""
        columns = list(dict.fromkeys([*names, self._model.target, KEY_HASH]))
        for block in self._rows.blocks(columns):
            yield block, self._chosen(block, holdout=holdout)

    def _chosen(self, block: pa.Table, *, holdout: bool) -> Values:
        """Return which rows of a block are labelled and in a part."""
        settings, keys = self._model.training, _hashes(block, KEY_HASH)
        if holdout:
            is_chosen = in_holdout(keys, settings.seed, settings.holdout)
        else:
            is_chosen = in_training(keys, settings.seed, settings.holdout, settings.sample)
        is_labelled: Values = pc.is_valid(block.column(self._model.target)).to_numpy(zero_copy_only=False)
        return is_chosen & is_labelled

    def _hashes_in_ranges(self, column: str, *, holdout: bool) -> Iterator[Hashes]:
        """Return the hashes of a part of the rows, in ranges of equal width, the lowest first.

        Files hold them, so that one range is in memory at a time.
        """
        ranges = min(1 + self._rows.count // HASHES_AT_ONCE, MOST_RANGES)
        with ExitStack() as opened:
            files = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(ranges)]
            for block, chosen in self._parts([column], holdout=holdout):
                hashes = _hashes(block, column)[chosen]
                place = (hashes >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)
                for number, file in enumerate(files):
                    file.write(hashes[place == number].tobytes())
            for file in files:
                file.seek(0)
                yield np.frombuffer(file.read(), np.uint64)

    def _digest_of_keys(self) -> str:
        """Return the digest of the keys of the holdout: SHA-256 of their hashes in ascending order."""
        digest = hashlib.sha256()
        for hashes in self._hashes_in_ranges(KEY_HASH, holdout=True):
            digest.update(np.sort(hashes).astype("<u8").tobytes())
        return "sha256:" + digest.hexdigest()

    def _leaked_rows(self) -> int:
        """Return the number of rows of the holdout that have the features and the target of a training row."""
        kept = self._hashes_in_ranges(ROW_HASH, holdout=True)
        others = self._hashes_in_ranges(ROW_HASH, holdout=False)
        return sum(int(np.isin(one, other).sum()) for one, other in zip(kept, others, strict=True))


def _hashes(rows: pa.Table, column: str) -> Hashes:
    return np.asarray(rows.column(column).to_numpy(zero_copy_only=False)).view(np.uint64)
