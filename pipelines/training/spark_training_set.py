"""Rows of a training set by a Spark server: its workers hash and sort them; see `TrainingSet`.

The rows, their order and their hashes equal those of one process, whatever the number of workers and whichever of them
had to be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.data.spark_session import send_by_value
from pipelines.data.spark_version import AddedColumns, read_version_in_order
from pipelines.training.training_set import KEY_HASH, ROW_HASH, HashedColumns, hashed_columns, with_hashes

if TYPE_CHECKING:
    from pyspark.sql.connect.dataframe import DataFrame
    from pyspark.sql.connect.session import SparkSession

    from pipelines.data.catalog import TablePlace
    from pipelines.data.ordered_rows import OrderedRows
    from pipelines.declarations.bundle import DatasetVersion
    from pipelines.declarations.contract import Contract
    from pipelines.declarations.model import Model


def read_training_rows(
    spark: SparkSession, place: TablePlace, model: Model, contract: Contract, snapshot: str | None, path: Path
) -> tuple[OrderedRows, DatasetVersion]:
    """Read all rows of a dataset version with their hashes into a file, as `read_version` and `in_memory` do.

    Args:
        spark: the session.
        place: where the table is.
        model: the declaration.
        contract: contract of the dataset.
        snapshot: id of an Iceberg snapshot; None for the latest.
        path: the file.

    Raises:
        MlopsError: the version does not exist, has no rows, lacks a column of the model, or cannot be read.
    """
    added = hashes_on_workers(model, contract)
    return read_version_in_order(spark, place, contract.name, snapshot, added, path)


def hashes_on_workers(model: Model, contract: Contract) -> AddedColumns:
    """Return `KEY_HASH` and `ROW_HASH`, computed by the workers of a server."""

    def check(names: Sequence[str]) -> None:
        hashed_columns(names, model, contract)

    def add(frame: DataFrame) -> DataFrame:
        send_by_value(
            __name__,
            "pipelines.training.training_set",
            "pipelines.training.split",
            "pipelines.training.rows",
            "pipelines.declarations.errors",
        )
        columns = hashed_columns(frame.columns, model, contract)
        kinds = ", ".join(f"`{name}` {kind}" for name, kind in frame.dtypes)
        return frame.mapInArrow(_hashing(columns), f"{kinds}, `{KEY_HASH}` bigint, `{ROW_HASH}` bigint")

    return AddedColumns(types={KEY_HASH: pa.int64(), ROW_HASH: pa.int64()}, add=add, check=check)


def _hashing(columns: HashedColumns) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that workers run on their part of the rows. It needs numpy and pyarrow only."""

    def add(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield from with_hashes(pa.Table.from_batches([batch]), columns).combine_chunks().to_batches()

    return add
