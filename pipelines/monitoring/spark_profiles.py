"""Profile columns of data files on a Spark server: each of its workers counts a part of the rows.

The profiles equal those of one process, whatever the number of workers and whichever of them had to be replaced: the
bins are chosen here, from the same sample, and the counts add up in any order; see `profile_counter`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.data.spark_rows import FileRows, read_files
from pipelines.data.spark_session import send_by_value
from pipelines.monitoring.column_profiles import plan_profile, take_sample
from pipelines.monitoring.profile_counter import ColumnProfile, PartialProfile, ProfileCounter, ProfilePlan

if TYPE_CHECKING:
    from pyspark.sql.connect.session import SparkSession

    from pipelines.declarations.contract import Column

COUNTED_ROWS = 65_536
"""Rows that a worker counts at once; engines stream fewer at a time."""

PARTS = (
    "name string, rows bigint, nulls bigint, bins binary, levels array<string>, counts array<bigint>, "
    "sums array<double>"
)
"""Schema of the counts that workers return, one row for each column and part."""


def profile_on_spark(
    spark: SparkSession, columns: Sequence[Column], reference: FileRows, current: FileRows
) -> tuple[dict[str, ColumnProfile], dict[str, ColumnProfile]]:
    """Profile columns of two sets of data files over the same bins and levels; see `profile_streams`.

    Args:
        spark: the session.
        columns: columns of the contract to profile; a file without one of them has nulls there.
        reference: the rows to compare with.
        current: the rows to judge.

    Returns:
        The profiles of the reference and of the current rows, by column.
    """
    samples = [take_sample(rows.stream())[0] for rows in (reference, current)]
    plans = {column.name: plan_profile(column, *samples) for column in columns}
    return _profile(spark, plans, reference), _profile(spark, plans, current)


def _profile(spark: SparkSession, plans: Mapping[str, ProfilePlan], rows: FileRows) -> dict[str, ColumnProfile]:
    counters = {name: ProfileCounter(plan) for name, plan in plans.items()}
    frame = read_files(spark, rows)
    if frame is not None and plans:
        send_by_value(__name__, "pipelines.monitoring.profile_counter", "pipelines.declarations.baseline")
        # Row by row: the counts of many workers together may not fit into memory.
        for part in frame.mapInArrow(_counting(dict(plans)), PARTS).toLocalIterator():
            counters[part["name"]].merge(_decoded(part))
    for batch in rows.stream_of_edited_files():
        for name, counter in counters.items():
            counter.add(_column(batch, name), batch.num_rows)
    return {name: counter.profile() for name, counter in counters.items()}


def _decoded(part: Any) -> PartialProfile:
    sums = part["sums"]
    return PartialProfile(
        rows=part["rows"],
        nulls=part["nulls"],
        bins=np.frombuffer(zlib.decompress(bytes(part["bins"])), "<i8").astype(np.int64),
        levels=dict(zip(part["levels"], part["counts"], strict=True)),
        sums=((sums[0], sums[1]), (sums[2], sums[3])),
    )


def _counting(plans: dict[str, ProfilePlan]) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that workers run on their part of the rows."""

    def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        counters = {name: ProfileCounter(plan) for name, plan in plans.items()}
        pending: list[pa.RecordBatch] = []
        held = 0
        for batch in chain(batches, (None,)):
            if batch is not None:
                pending.append(batch)
                held += batch.num_rows
            if pending and (batch is None or held >= COUNTED_ROWS):
                table = pa.Table.from_batches(pending)
                for name, counter in counters.items():
                    counter.add(_whole(table.column(name)), table.num_rows)
                pending, held = [], 0
        rows = [_encoded(name, counter.partial()) for name, counter in counters.items()]
        yield pa.RecordBatch.from_pylist(rows, schema=_SCHEMA)

    return count


_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("rows", pa.int64()),
        pa.field("nulls", pa.int64()),
        pa.field("bins", pa.binary()),
        pa.field("levels", pa.list_(pa.string())),
        pa.field("counts", pa.list_(pa.int64())),
        pa.field("sums", pa.list_(pa.float64())),
    ]
)


def _encoded(name: str, part: PartialProfile) -> dict[str, Any]:
    return {
        "name": name,
        "rows": part.rows,
        "nulls": part.nulls,
        "bins": zlib.compress(part.bins.astype("<i8").tobytes(), 1),
        "levels": list(part.levels),
        "counts": list(part.levels.values()),
        "sums": [*part.sums[0], *part.sums[1]],
    }


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, texts as an ordinary type of text."""
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    index = batch.schema.get_field_index(name)
    return batch.column(index) if index >= 0 else None
