"""Rows of data files as a Spark data frame.

The files are those that pyiceberg's plan of a snapshot names, so any Spark can read them, without a library for
Iceberg and without access to the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.schema import Schema
    from pyiceberg.table import FileScanTask, Table
    from pyspark.sql.connect.dataframe import DataFrame
    from pyspark.sql.connect.session import SparkSession

    from pipelines.declarations.value_range import StoredType

SPARK_TYPES: Mapping[StoredType, str] = {
    "string": "string",
    "int": "int",
    "long": "bigint",
    "double": "double",
    "float": "float",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp_ntz",
}
"""Stored type → Spark's type."""


READ_AT_ONCE = 16
"""Files whose schemas are read at the same time."""


@dataclass(frozen=True)
class FileGroup:
    """Data files that store columns in the same types.

    Attributes:
        paths: URLs or paths of Parquet files.
        stored: name → Spark's type, as far as one of these files has the columns.
    """

    paths: tuple[str, ...]
    stored: Mapping[str, str]


@dataclass(frozen=True)
class FileRows:
    """Some columns of the rows of data files.

    Attributes:
        groups: the files.
        columns: name → Spark's type. A file without one of them has nulls there.
        stream: streams the rows of all files in this process, for samples.
        stream_of_edited_files: streams the rows of further files, of which another engine has deleted some rows.
    """

    groups: Sequence[FileGroup]
    columns: Mapping[str, str]
    stream: Callable[[], Iterator[pa.RecordBatch]]
    stream_of_edited_files: Callable[[], Iterator[pa.RecordBatch]] = field(default=lambda: iter(()))


def rows_of_files(table: Table, tasks: Sequence[FileScanTask], columns: Mapping[str, StoredType]) -> FileRows:
    """Return some columns of the rows of a table's data files.

    Args:
        table: the table.
        tasks: its files.
        columns: name → type to read it as.

    Raises:
        MlopsError: a file stores a column in a type that no contract has.
    """
    import pyarrow.parquet as pq

    from pipelines.data.data_files import stream_rows

    def read_schema(path: str) -> pa.Schema:
        with table.io.new_input(path).open() as file:
            return pq.read_schema(file)

    names = tuple(columns)
    edited = [task for task in tasks if task.delete_files]
    paths = [task.file.file_path for task in tasks if not task.delete_files]
    return FileRows(
        groups=tuple(group_files(paths, read_schema, names)),
        columns={name: SPARK_TYPES[kind] for name, kind in columns.items()},
        stream=lambda: stream_rows(table, tasks, names),
        stream_of_edited_files=lambda: stream_rows(table, edited, names),
    )


def stored_types(schema: Schema) -> dict[str, StoredType]:
    """Return the types of a table's columns, by name.

    Raises:
        MlopsError: a column is of a type that no contract has.
    """
    found: dict[str, StoredType] = {}
    for one in schema.fields:
        kind: Any = str(one.field_type)
        if kind not in SPARK_TYPES:
            raise MlopsError(
                f"the column {one.name!r} of the table is of type {kind}: expected one of {', '.join(SPARK_TYPES)}",
                fix="let only ingestion change the table",
            )
        found[one.name] = kind
    return found


def group_files(paths: Sequence[str], read_schema: Callable[[str], pa.Schema], names: Iterable[str]) -> list[FileGroup]:
    """Group data files by the types in which they store columns: servers read no column in two types at once.

    A file that lacks a column is in the same group as files that have it, because the number of groups is limited: Sail
    runs all their parts at the same time, and refuses more of them than its workers can hold.

    Args:
        paths: URLs or paths of Parquet files.
        read_schema: returns the schema of a file.
        names: the columns to read.

    Raises:
        MlopsError: a file stores a column in a type that no contract has.
    """
    wanted = tuple(names)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        schemas = list(pool.map(read_schema, paths))
    groups: list[tuple[list[str], dict[str, str]]] = []
    for path, schema in zip(paths, schemas, strict=True):
        stored = {name: spark_type(schema.field(name).type) for name in wanted if name in schema.names}
        for files, known in groups:
            if all(known.get(name, kind) == kind for name, kind in stored.items()):
                files.append(path)
                known |= stored
                break
        else:
            groups.append(([path], stored))
    return [FileGroup(tuple(files), {name: known[name] for name in wanted if name in known}) for files, known in groups]


def spark_type(kind: pa.DataType) -> str:
    """Return Spark's name of an Arrow type.

    Raises:
        MlopsError: no column of a contract is stored in this type.
    """
    import pyarrow as pa

    named = {
        pa.int32(): "int",
        pa.int64(): "bigint",
        pa.float32(): "float",
        pa.float64(): "double",
        pa.bool_(): "boolean",
        pa.date32(): "date",
        pa.string(): "string",
        pa.large_string(): "string",
    }
    if pa.types.is_timestamp(kind):
        return "timestamp" if kind.tz else "timestamp_ntz"
    if kind not in named:
        raise MlopsError(
            f"a data file stores a column as {kind}: expected a type of a contract, {', '.join(SPARK_TYPES)}",
            fix="let only ingestion write the table",
        )
    return named[kind]


def read_files(spark: SparkSession, rows: FileRows) -> DataFrame | None:
    """Return the rows of data files as a data frame; None without files."""
    from pyspark.sql.connect import functions as sql

    frames = []
    for group in rows.groups:
        # A file without any of the columns still has rows.
        schema = ", ".join(f"`{name}` {kind}" for name, kind in group.stored.items())
        frame = (spark.read.schema(schema) if schema else spark.read).parquet(*group.paths)
        frames.append(
            frame.select(
                *(
                    (sql.col(f"`{name}`") if name in group.stored else sql.lit(None)).cast(kind).alias(name)
                    for name, kind in rows.columns.items()
                )
            )
        )
    return reduce(lambda left, right: left.unionAll(right), frames) if frames else None


def read_whole_table(spark: SparkSession, rows: FileRows, name: str, other_way: str) -> DataFrame:
    """Return all rows of a table as a data frame.

    Args:
        spark: the session.
        rows: the rows.
        name: name of the table, for errors.
        other_way: how to do the same without Spark.

    Raises:
        MlopsError: the table has no rows, or another engine has deleted rows of its files.
    """
    if next(rows.stream_of_edited_files(), None) is not None:
        raise MlopsError(
            f"{name} cannot be read on Spark: another engine has deleted rows of its files",
            fix=f"{other_way}; or let that engine compact the table",
        )
    frame = read_files(spark, rows)
    if frame is None:
        raise MlopsError(f"{name} has no rows", fix="ingest data first")
    return frame


def stream_in_order(frame: DataFrame, names: Sequence[str]) -> Iterator[pa.Table]:
    """Sort rows on the server, and stream them, as `in_key_order` sorts them: NaN last, then nulls, and -0.0 as 0.0.

    Args:
        frame: the rows.
        names: columns to sort by.
    """
    import pyarrow as pa
    from pyspark.sql.connect import functions as sql

    kinds = dict(frame.dtypes)

    def value(name: str) -> Any:
        column = sql.col(f"`{name}`")
        if kinds[name] not in ("double", "float"):
            return column
        zero, not_a_number = (sql.lit(number).cast(kinds[name]) for number in (0.0, float("nan")))
        return sql.nanvl(column, not_a_number) + zero

    ordered = frame.orderBy(*(value(name).asc_nulls_last() for name in names))
    # A data frame has `toArrow`, which keeps all rows in memory, and `toLocalIterator`, which makes an object of each
    # value. The latter is this loop, and then a conversion.
    client, plan = ordered.sparkSession.client, ordered._plan
    for part in client.to_table_as_iterator(plan.to_proto(client), plan.observations):
        if isinstance(part, pa.Table):
            yield part
