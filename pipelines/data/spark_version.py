"""Rows of a dataset version in order, sorted by a Spark server into a file on this machine, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.data.catalog import TablePlace, describe_version, open_table, primary_key_of, snapshot_of
from pipelines.data.ordered_rows import OrderedFile, UnorderedRowsError, write_in_order
from pipelines.data.row_digest import digest_of_ordered, sort_order
from pipelines.data.spark_rows import read_whole_table, rows_of_files, stored_types, stream_in_order
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from pyspark.sql.connect.dataframe import DataFrame
    from pyspark.sql.connect.session import SparkSession

    from pipelines.declarations.bundle import DatasetVersion


@dataclass(frozen=True)
class AddedColumns:
    """Columns that the server's workers compute from each row.

    Attributes:
        types: name → type.
        add: returns a data frame with these columns as well, from one with all columns of the version.
        check: called with the names of the version's columns first, to refuse it.
    """

    types: Mapping[str, pa.DataType]
    add: Callable[[DataFrame], DataFrame]
    check: Callable[[Sequence[str]], None]


def read_version_in_order(
    spark: SparkSession, place: TablePlace, dataset: str, snapshot: str | None, added: AddedColumns, path: Path
) -> tuple[OrderedFile, DatasetVersion]:
    """Read all rows of a dataset version, as `read_version` does, into a file.

    Args:
        spark: the session.
        place: where the table is.
        dataset: name of the contract.
        snapshot: id of an Iceberg snapshot; None for the latest.
        added: further columns of the file.
        path: the file.

    Returns:
        The rows in the order of their primary key, with the columns and types of that version and the added ones; and
        the version, which equals that of `read_version`.

    Raises:
        MlopsError: the table or the snapshot does not exist, has no rows or cannot be read, or the server returned
            something else than its rows in order.
    """
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    table = open_table(place, dataset)
    found = snapshot_of(table, place.name, dataset, snapshot)
    scan = table.scan(snapshot_id=found.snapshot_id)
    schema: pa.Schema = schema_to_pyarrow(scan.projection(), include_field_ids=False)
    names: list[str] = schema.names
    added.check(names)
    tasks = list(scan.plan_files())
    frame = read_whole_table(
        spark, rows_of_files(table, tasks, stored_types(scan.projection())), dataset, "set engine: process"
    )
    key = primary_key_of(table, found)
    rows = sort_into_file(added.add(frame), dataset, schema, key, added.types, path)
    expected = sum(task.file.record_count for task in tasks)
    if rows.count != expected:
        raise _untrusted(dataset, f"expected {expected} rows, found {rows.count}")
    return rows, describe_version(place, dataset, found, digest_of_ordered(rows, names), rows.count)


def sort_into_file(
    frame: DataFrame,
    dataset: str,
    schema: pa.Schema,
    key: Sequence[str],
    added: Mapping[str, pa.DataType],
    path: Path,
) -> OrderedFile:
    """Sort rows on the server, as `in_key_order` does, and write them to a file.

    Args:
        frame: the rows.
        dataset: name of the dataset, for errors.
        schema: columns of the dataset version, and their types.
        key: its primary key.
        added: further columns of the rows, by which they are not sorted, and their types.
        path: the file.

    Raises:
        MlopsError: the server returned the rows in another order, or the file cannot be written.
    """
    whole = pa.schema([*schema, *(pa.field(name, kind) for name, kind in added.items())])
    order = sort_order(schema.names, key)
    known = [name for name in key if name in schema.names]
    # Sorting by the key alone takes the server much less memory; few rows, if any, share one.
    try:
        return write_in_order(stream_in_order(frame, known or order), whole, known, order[len(known) :], path)
    except UnorderedRowsError as error:
        raise _untrusted(dataset, str(error)) from None
    except OSError as error:
        raise MlopsError(
            f"the rows of {dataset} cannot be written to {path.parent}: {error.strerror or error}",
            fix="raise spark.scratch of the environment: the rows must fit there",
        ) from None


def _untrusted(dataset: str, problem: str) -> MlopsError:
    return MlopsError(
        f"the Spark server did not return the rows of {dataset}: {problem}",
        fix="run the job again; if it happens again, set engine: process in the contract",
    )
