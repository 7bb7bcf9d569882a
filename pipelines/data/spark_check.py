"""Check a table that is larger than a machine against its contract, on a Spark server.

Workers run the rules on rows as they run at ingestion: the same SQL, in DuckDB, on their part of the rows. What needs
all rows, unique values and foreign keys, is a query of the server. So the counts are those of one process.
"""

# ruff: noqa: S608 - the SQL comes from a reviewed contract; names and texts are escaped by `quote` and `literal`
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from pipelines.data.batch import Batch, LandingFileError
from pipelines.data.checks import (
    BatchRule,
    UniqueGroup,
    batch_rules,
    bounds_broken,
    conversion,
    row_rules,
    unique_groups,
    value_of,
)
from pipelines.data.contract_check import FileReport
from pipelines.data.query_engine import NO_DOWNLOADS
from pipelines.data.reading import compare_columns
from pipelines.data.spark_rows import FileRows, read_files, read_whole_table
from pipelines.data.spark_session import send_by_value
from pipelines.data.sql_quoting import quote
from pipelines.data.validate import EXAMPLES, RuleResult, check_patterns
from pipelines.declarations.classification import is_personal
from pipelines.declarations.printable import shorten

if TYPE_CHECKING:
    from pyspark.sql.connect.dataframe import DataFrame
    from pyspark.sql.connect.session import SparkSession

    from pipelines.declarations.contract import Contract

DUCKDB_TYPES: Mapping[str, str] = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp_ntz": "TIMESTAMP",
}
"""Spark's type → DuckDB's type of the same values."""

CHECKED_ROWS = 65_536
"""Rows that a worker checks at once."""

WORKER_MEMORY = "400MB"
"""DuckDB's memory limit in a worker."""

NO_SQL = "SQL is checked at ingestion only"
"""Why SQL rules are not checked here."""

RowsOf = Callable[[str, Sequence[str]], FileRows]
"""Return columns of the rows of the current table of a dataset."""

_ALL = -1
"""Number of the count of all rows; conditions count from 0."""


def check_on_spark(
    spark: SparkSession, contract: Contract, rows: FileRows, name: str, rows_of: RowsOf | None = None
) -> FileReport:
    """Check the rows of a table against every rule of a contract, except SQL.

    Args:
        spark: the session.
        contract: the contract.
        rows: all columns of the table.
        name: name of the table in the report.
        rows_of: finds the tables of other datasets, for foreign keys; None if they are not at hand.

    Raises:
        MlopsError: the contract has a pattern that is not valid, or another engine has deleted rows of the table.
    """
    check_patterns(contract)
    try:
        compare_columns(name, list(rows.columns), contract)
        return _check(spark, contract, rows, name, rows_of)
    except LandingFileError as error:
        return FileReport(name, None, (), f"expected {error.expected}, found {error.found}")


def _check(spark: SparkSession, contract: Contract, rows: FileRows, name: str, rows_of: RowsOf | None) -> FileReport:
    frame = read_whole_table(spark, rows, name, "check it in one process: --engine process")
    types = {column: DUCKDB_TYPES[kind] for column, kind in rows.columns.items()}
    batch = Batch(name, Path(), types, text=False, rows=0)
    on_rows, on_batch = row_rules(contract, batch), batch_rules(contract)
    counted = [rule for rule in on_batch if rule.broken]
    conditions = [*(rule.broken for rule in on_rows), *(rule.broken for rule in counted)]
    found = _Counts(contract, _run(frame, contract, types, conditions))
    total = found.count(_ALL)
    results = [
        RuleResult(rule.column, rule.name, rule.expected, found.count(number), keys=found.keys(number))
        for number, rule in enumerate(on_rows)
    ]
    results += [_unique_result(frame, contract, group) for group in unique_groups(contract)]
    results += _key_results(spark, frame, contract, rows_of)
    numbers = {id(rule): found.count(len(on_rows) + place) for place, rule in enumerate(counted)}
    for rule in on_batch:
        count = numbers.get(id(rule), total)
        results.append(_batch_result(rule, _repeated(frame, rule.unique) if rule.unique else count, total))
    for column, sql_rule in contract.sql_rules:
        expected = sql_rule.condition if sql_rule.type == "custom" else "a figure within the bounds of the rule"
        unchecked = RuleResult(column, sql_rule.label, expected, 0, is_checked=False, unchecked_because=NO_SQL)
        results.append(unchecked)
    return FileReport(name, total, tuple(results))


def _run(frame: DataFrame, contract: Contract, types: Mapping[str, str], conditions: Sequence[str]) -> pa.Table:
    """Count the rows that meet conditions, on the workers.

    Returns:
        The columns `condition` and `failing`, and the primary key: a row with a count for each condition and part of
        the rows, and rows without a count with the first keys that meet the condition.
    """
    columns = [quote(name) for name in types]
    columns += [
        f"{conversion(column, types[column.name], text=False)} AS {value_of(column.name)}"
        for column in contract.columns.values()
    ]
    keys = [(name, types[name]) for name in contract.primary_key]
    kinds = dict(frame.dtypes)
    schema = ["condition int", "failing bigint", *(f"`{name}` {kinds[name]}" for name in contract.primary_key)]
    send_by_value(__name__)
    work = _checking(", ".join(columns), tuple(conditions), keys, dict(NO_DOWNLOADS))
    return frame.mapInArrow(work, ", ".join(schema)).toArrow()


def _checking(
    columns: str, conditions: tuple[str, ...], keys: list[tuple[str, str]], config: dict[str, Any]
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function that workers run on their part of the rows. It needs duckdb and pyarrow only."""

    def check(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        settings = {**config, "memory_limit": WORKER_MEMORY, "threads": 1, "enable_external_access": False}
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            key_columns = ", ".join(f'"{name}" {kind}' for name, kind in keys)
            connection.execute(f"CREATE TABLE found (condition INTEGER, failing BIGINT, {key_columns})")
            pending: list[pa.RecordBatch] = []
            held = 0
            for batch in chain(batches, (None,)):
                if batch is not None:
                    pending.append(batch)
                    held += batch.num_rows
                if pending and (batch is None or held >= CHECKED_ROWS):
                    connection.register("part", pa.Table.from_batches(pending))
                    _check_part(connection, columns, conditions, [name for name, _ in keys])
                    connection.unregister("part")
                    pending, held = [], 0
            names = ", ".join(f'"{name}"' for name, _ in keys)
            query = (
                f"SELECT condition, sum(failing)::BIGINT AS failing, {names} FROM found WHERE failing IS NOT NULL "
                f"GROUP BY ALL UNION ALL SELECT * FROM found WHERE failing IS NULL QUALIFY row_number() OVER "
                f"(PARTITION BY condition ORDER BY {names}) <= {EXAMPLES}"
            )
            yield from connection.sql(query).to_arrow_reader()

    return check


def _check_part(connection: Any, columns: str, conditions: tuple[str, ...], keys: list[str]) -> None:
    """Add the counts of a part of the rows to the table `found`, and the first keys of each condition."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE typed AS SELECT {columns} FROM part")
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in ("true", *conditions))
    numbers = connection.execute(f"SELECT {counts} FROM typed").fetchall()[0]
    nothing, named = ", NULL" * len(keys), ", ".join(f'"{name}"' for name in keys)
    for number, count in enumerate(numbers, _ALL):
        connection.execute(f"INSERT INTO found VALUES ({number}, {count}{nothing})")
        if number != _ALL and count:
            query = f"SELECT {number}, NULL, {named} FROM typed WHERE {conditions[number]} ORDER BY {named}"
            connection.execute(f"INSERT INTO found {query} LIMIT {EXAMPLES}")


class _Counts:
    """Counts and first keys that the workers found."""

    def __init__(self, contract: Contract, found: pa.Table) -> None:
        self._contract = contract
        self._connection = duckdb.connect(config=NO_DOWNLOADS)
        self._connection.register("found", found)

    def count(self, number: int) -> int:
        """Return how many rows meet a condition."""
        query = f"SELECT coalesce(sum(failing), 0) FROM found WHERE condition = {number}"
        return int(self._connection.execute(query).fetchall()[0][0])

    def keys(self, number: int) -> tuple[str, ...]:
        """Return the first keys of the rows that meet a condition."""
        return _shown_keys(self._contract, self._connection, f"found WHERE condition = {number} AND failing IS NULL")


def _shown_keys(contract: Contract, connection: Any, rows: str) -> tuple[str, ...]:
    """Return the first primary keys of rows as text; none if they are personal."""
    if any(is_personal(contract.columns[name]) for name in contract.primary_key):
        return ()
    text = " || ', ' || ".join(f"coalesce(CAST({quote(name)} AS VARCHAR), 'nothing')" for name in contract.primary_key)
    order = ", ".join(map(quote, contract.primary_key))
    found = connection.execute(f"SELECT {text} FROM (SELECT * FROM {rows}) ORDER BY {order} LIMIT {EXAMPLES}")
    return tuple(shorten(str(key)) for (key,) in found.fetchall())


def _first_keys(contract: Contract, frame: DataFrame) -> tuple[str, ...]:
    """Return the first primary keys of a data frame as text; none if they are personal."""
    if any(is_personal(contract.columns[name]) for name in contract.primary_key):
        return ()
    found = frame.select(*contract.primary_key).orderBy(*_ascending(contract.primary_key)).limit(EXAMPLES).toArrow()
    with duckdb.connect(config=NO_DOWNLOADS) as connection:
        connection.register("first_rows", found)
        return _shown_keys(contract, connection, "first_rows")


def _ascending(names: Sequence[str]) -> list[Any]:
    from pyspark.sql.connect import functions as sql

    return [sql.col(name).asc_nulls_last() for name in names]


def _values(frame: DataFrame, names: Sequence[str]) -> list[Any]:
    """Return columns to group or join by, named by their place; -0.0 equals 0.0."""
    from pyspark.sql.connect import functions as sql

    kinds = dict(frame.dtypes)
    return [
        (sql.col(name) + sql.lit(0.0).cast(kinds[name]) if kinds[name] in ("double", "float") else sql.col(name)).alias(
            f"_{place}"
        )
        for place, name in enumerate(names)
    ]


def _with_values(frame: DataFrame, names: Sequence[str]) -> DataFrame:
    """Leave out the rows that have no value in one of some columns. NaN is a value."""
    from pyspark.sql.connect import functions as sql

    for name in names:
        frame = frame.where(sql.col(name).isNotNull())
    return frame


def _repeated(frame: DataFrame, names: Sequence[str]) -> int:
    """Return the number of rows whose values another row has, without one row for each value."""
    from pyspark.sql.connect import functions as sql

    values = _with_values(frame, names).select(*_values(frame, names))
    counts = values.groupBy(*values.columns).agg(sql.count(sql.lit(1)).alias("n")).where("n > 1")
    return int(
        counts.agg(sql.coalesce(sql.sum(sql.col("n") - 1), sql.lit(0)).alias("n")).toArrow().column(0)[0].as_py()
    )


def _unique_result(frame: DataFrame, contract: Contract, group: UniqueGroup) -> RuleResult:
    from pyspark.sql.connect import functions as sql
    from pyspark.sql.connect.window import Window

    repeated = _repeated(frame, group.columns)
    keys: tuple[str, ...] = ()
    if repeated:
        values = _values(frame, group.columns)
        order = Window.partitionBy(*values).orderBy(*_ascending(contract.primary_key))
        later = _with_values(frame, group.columns).withColumn("_place", sql.row_number().over(order))
        keys = _first_keys(contract, later.where("_place > 1"))
    return RuleResult(", ".join(group.columns), group.name, "a value that no earlier row has", repeated, keys=keys)


def _key_results(
    spark: SparkSession, frame: DataFrame, contract: Contract, rows_of: RowsOf | None
) -> Iterator[RuleResult]:
    for key in contract.foreign_keys:
        column, expected = ", ".join(key.columns), f"a value in {', '.join(key.others)} of {key.dataset}"
        if rows_of is None:
            yield RuleResult(column, key.label, expected, 0, is_checked=False)
            continue
        there = _with_values(frame, key.columns)
        other = read_files(spark, rows_of(key.dataset, key.others))
        unknown = there
        if other is not None:
            names = [f"_{place}" for place in range(len(key.columns))]
            known = other.select(*_values(other, key.others)).distinct()
            unknown = there.select("*", *_values(there, key.columns)).join(known, names, "left_anti")
        failing = unknown.count()
        yield RuleResult(column, key.label, expected, failing, keys=_first_keys(contract, unknown) if failing else ())


def _batch_result(rule: BatchRule, count: int, rows: int) -> RuleResult:
    broken = bounds_broken(rule.quality, count, rows)
    found = f"{count} of {rows} rows" if rule.quality.metric != "rowCount" else f"{count} rows"
    expected = broken or "a figure within the bounds of the rule"
    subject = rule.column or ", ".join(rule.unique)
    shown = found if broken else ""
    return RuleResult(subject, rule.quality.label, expected, int(broken is not None), shown, binds=rule.quality.binds)
