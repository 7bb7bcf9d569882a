"""Check a batch against its contract, in DuckDB, within a fixed amount of memory."""

# ruff: noqa: S608 - the SQL comes from a reviewed contract; names and texts are escaped by `quote` and `literal`
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from pipelines.data.batch import PROBLEMS, ROW, Batch, LandingFileError, shorten
from pipelines.data.checks import (
    RowRule,
    UniqueGroup,
    batch_rules,
    bounds_broken,
    literal,
    quote,
    row_rules,
    typed_rows,
    unique_groups,
    value_of,
)
from pipelines.data.query_engine import NO_DOWNLOADS
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = "400MB"
"""DuckDB's memory limit; it spills to the scratch folder. With Python and Arrow a check stays under 1 GB."""

MOST_THREADS = 4
"""Each thread holds a part of the file in memory; more would not fit into `MEMORY`."""

STREAMED_ROWS = 65_536
REASONS = "_reasons"
EXISTING = "existing_keys"

REASON_TYPE = 'STRUCT("column" VARCHAR, "rule" VARCHAR, "expected" VARCHAR, "found" VARCHAR)'


@dataclass(frozen=True)
class ReasonCount:
    """Number of rows that broke a rule.

    Attributes:
        column: name of the column; "" for the whole row; names separated by commas for several columns.
        rule: name of the rule.
        rows: number of rows.
    """

    column: str
    rule: str
    rows: int


@dataclass(frozen=True)
class Summary:
    """Result of a check, in rows.

    Attributes:
        rows: rows in the file.
        good: rows that keep the contract.
        quarantined: the other rows; `good + quarantined == rows`.
        reasons: rows by broken rule; a row that breaks two rules counts twice.
    """

    rows: int
    good: int
    quarantined: int
    reasons: tuple[ReasonCount, ...]


class Validation:
    """A checked batch. Created by `validate`; usable only inside its `with` block."""

    def __init__(self, connection: Any, batch: Batch, contract: Contract, summary: Summary) -> None:
        self._connection = connection
        self._batch = batch
        self._contract = contract
        self.summary = summary

    def good_rows(self) -> pa.RecordBatchReader:
        """Stream the rows that keep the contract, with its columns in their stored types.

        Any other call on this object ends the stream.
        """
        columns = ", ".join(f"{value_of(name)} AS {quote(name)}" for name in self._contract.columns)
        without = "" if self.summary.quarantined == 0 else f" ANTI JOIN bad USING ({quote(ROW)})"
        query = f"SELECT {columns} FROM typed{without}"
        return self._connection.sql(query).to_arrow_reader(STREAMED_ROWS)

    def write_quarantine(self, path: Path) -> None:
        """Write the other rows to a Parquet file, in their original order.

        The columns are `_row`, every column as text as found, and `_reasons`, a list of structs (column, rule,
        expected, found).
        """
        columns = ", ".join(quote(name) for name in self._contract.columns)
        _run(
            self._connection,
            f"COPY (SELECT {quote(ROW)}, {columns}, {quote(REASONS)} FROM bad ORDER BY {quote(ROW)}) "
            f"TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)",
        )


@contextmanager
def validate(
    batch: Batch, contract: Contract, scratch: Path, *, existing_keys: pa.RecordBatchReader | None = None
) -> Iterator[Validation]:
    """Check a batch against its contract.

    If a value that must be unique is repeated in the batch, the first row keeps it and each later row is quarantined,
    even if the first row breaks another rule. A row whose primary key is already in the table is quarantined: tables
    are append-only, and corrections are left to people.

    Args:
        batch: the batch, from `read_batch`.
        contract: the contract that it was read for.
        scratch: existing folder for data that does not fit into memory; the caller deletes it.
        existing_keys: stream of the primary keys in the table, in their stored types.

    Yields:
        The checked batch.

    Raises:
        LandingFileError: the batch breaks a batch rule, or its rows cannot be read.
        MlopsError: the contract has a rule that cannot be checked, or the check runs out of memory.
    """
    with _connect(scratch) as connection:
        _try_patterns(connection, contract)
        try:
            query = typed_rows(batch, contract)
            _run(connection, f"CREATE TEMP VIEW typed AS {query}")
            _apply_batch_rules(connection, batch, contract)
            _find_bad_rows(connection, batch, contract)
            groups = unique_groups(contract)
            late = [_find_repeated(connection, number, group) for number, group in enumerate(groups)]
            if existing_keys is not None:
                late.append(_find_existing(connection, existing_keys, contract))
            _add_reasons(connection, contract, sum(late))
            summary = _summary(connection, batch)
        except duckdb.OutOfMemoryException as error:
            raise MlopsError(
                f"{batch.file}: the check needs more than {MEMORY} of memory: {_first_line(error)}",
                fix="split the file into smaller ones, with smaller Parquet row groups",
            ) from None
        except duckdb.Error as error:
            if not _is_about_the_file(error):
                raise
            raise LandingFileError(batch.file, "readable rows", _first_line(error)) from None
        yield Validation(connection, batch, contract, summary)


def _is_about_the_file(error: duckdb.Error) -> bool:
    """Return True if the content of the file caused the error. DuckDB raises plain `Error` for most damaged files."""
    classes = (
        duckdb.InvalidInputException,
        duckdb.IOException,
        duckdb.SerializationException,
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
    )
    return type(error) is duckdb.Error or isinstance(error, classes)


def _first_line(error: duckdb.Error) -> str:
    return shorten(str(error).splitlines()[0], 200)


@contextmanager
def _connect(scratch: Path) -> Iterator[Any]:
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "threads": min(MOST_THREADS, os.cpu_count() or 1),
            "temp_directory": str(scratch / "spill"),
            "preserve_insertion_order": False,
            **NO_DOWNLOADS,
        }
    )
    try:
        _run(connection, "SET enable_progress_bar = false")
        _run(connection, "SET TimeZone = 'UTC'")
        # Parquet statistics are untrusted and ignore NaN. With them, DuckDB would skip row groups that hold bad rows.
        _run(connection, "SET disabled_optimizers = 'filter_pushdown,statistics_propagation'")
        yield connection
    finally:
        connection.close()


def _try_patterns(connection: Any, contract: Contract) -> None:
    for column in contract.columns.values():
        if column.options.pattern is None:
            continue
        try:
            _run(connection, f"SELECT regexp_full_match('', {literal(column.options.pattern)})")
        except duckdb.Error as error:
            raise MlopsError(
                f"the contract's pattern of column {column.name!r} is not a valid regular expression (RE2): "
                f"{column.options.pattern!r}: {str(error).splitlines()[0]}",
                fix="correct it in the contract",
            ) from None


def _apply_batch_rules(connection: Any, batch: Batch, contract: Contract) -> None:
    broken = []
    for rule in batch_rules(contract):
        if rule.unique:
            columns = ", ".join(value_of(name) for name in rule.unique)
            there = " AND ".join(f"{value_of(name)} IS NOT NULL" for name in rule.unique)
            repeated = f"SELECT count(*) - 1 AS n FROM typed WHERE {there} GROUP BY {columns}"
            count = _one(connection, f"SELECT coalesce(sum(n), 0) FROM ({repeated})")
        elif rule.broken:
            count = _one(connection, f"SELECT count(*) FROM typed WHERE {rule.broken}")
        else:
            count = batch.rows
        expected = bounds_broken(rule.quality, count, batch.rows)
        if expected is not None:
            subject = rule.column or ", ".join(rule.unique) or "the batch"
            share = f" of {batch.rows}" if rule.quality.metric != "rowCount" else ""
            broken.append((f"{rule.quality.metric} of {subject}: {expected}", f"{count}{share}"))
    if broken:
        raise LandingFileError(batch.file, *("; ".join(texts) for texts in zip(*broken, strict=True)))


def _run(connection: Any, query: str) -> list[Any]:
    """Run a query and fetch all rows; until then, the connection is busy."""
    rows: list[Any] = connection.execute(query).fetchall()
    return rows


def _one(connection: Any, query: str) -> int:
    return int(_run(connection, query)[0][0])


def _find_bad_rows(connection: Any, batch: Batch, contract: Contract) -> None:
    """Create the table `bad` in one pass: rows that break a row rule, with all reasons."""
    every = row_rules(contract, batch)
    problems = quote(PROBLEMS)
    broken = (
        " OR ".join(filter(None, (rule.broken if rule.suspect is None else rule.suspect for rule in every))) or "false"
    )
    if batch.text:
        broken = f"len({problems}) > 0 OR {broken}"
    reasons = _reasons_of(every)
    if batch.text:
        # A malformed row has no values, so only that is reported.
        reasons = f"CASE WHEN {problems}[1].column = '' THEN {problems} ELSE list_concat({problems}, {reasons}) END"
    found = ", ".join(f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" for name in contract.columns)
    _run(
        connection,
        f"CREATE TEMP TABLE bad AS SELECT {quote(ROW)}, {found}, {reasons} AS {quote(REASONS)} "
        f"FROM typed WHERE {broken}",
    )


def _reasons_of(every: list[RowRule]) -> str:
    each = [
        f"CASE WHEN {rule.broken} THEN "
        f"{_reason(rule.column, rule.name, rule.expected, f'CAST({quote(rule.column)} AS VARCHAR)')} END"
        for rule in every
    ]
    return f"list_filter([{', '.join(each)}]::{REASON_TYPE}[], lambda reason: reason IS NOT NULL)"


def _reason(column: str, rule: str, expected: str, found: str) -> str:
    """Write a quarantine reason as SQL; `found` is an SQL expression of type text."""
    short = f"CASE WHEN length({found}) > 120 THEN left({found}, 119) || '…' ELSE {found} END"
    return (
        f'struct_pack("column" := {literal(column)}, "rule" := {literal(rule)}, '
        f'"expected" := {literal(expected)}, "found" := coalesce({short}, \'nothing\'))'
    )


def _find_repeated(connection: Any, number: int, group: UniqueGroup) -> int:
    """Create the table `late_<number>`: rows that repeat an earlier row's values, and why. Return their number."""
    values = [value_of(name) for name in group.columns]
    columns = ", ".join(values)
    there = " AND ".join(f"{value} IS NOT NULL" for value in values)
    # Two steps to save memory: group the values alone first, then look up the rows of those that repeat.
    _run(
        connection,
        f"CREATE TEMP TABLE repeated_{number} AS SELECT {columns} FROM typed WHERE {there} "
        f"GROUP BY {columns} HAVING count(*) > 1",
    )
    if _one(connection, f"SELECT count(*) FROM repeated_{number}") == 0:
        _run(connection, f"CREATE TEMP TABLE late_{number} (row BIGINT, reason {REASON_TYPE})")
        return 0
    found = " || ', ' || ".join(f"CAST({value} AS VARCHAR)" for value in values)
    why = _reason(
        ", ".join(group.columns), group.name, "a value that no earlier row has", f"{found} || ', as row ' || first"
    )
    _run(
        connection,
        f"CREATE TEMP TABLE first_{number} AS SELECT {columns}, min({quote(ROW)}) AS first FROM typed "
        f"SEMI JOIN repeated_{number} USING ({columns}) GROUP BY {columns}",
    )
    _run(
        connection,
        f"CREATE TEMP TABLE late_{number} AS SELECT {quote(ROW)} AS row, {why} AS reason FROM typed "
        f"JOIN first_{number} USING ({columns}) WHERE {quote(ROW)} > first",
    )
    return _one(connection, f"SELECT count(*) FROM late_{number}")


def _find_existing(connection: Any, existing_keys: pa.RecordBatchReader, contract: Contract) -> int:
    """Create the table `late_existing`: rows whose key is already in the table. Return their number."""
    connection.register(EXISTING, existing_keys)
    names = contract.primary_key
    same = " AND ".join(f"{value_of(name)} = existing.{quote(name)}" for name in names)
    found = " || ', ' || ".join(f"CAST({value_of(name)} AS VARCHAR)" for name in names)
    why = _reason(", ".join(names), "primaryKey", "a key that is not in the table yet", found)
    _run(
        connection,
        f"CREATE TEMP TABLE late_existing AS SELECT DISTINCT {quote(ROW)} AS row, {why} AS reason "
        f"FROM typed JOIN {EXISTING} AS existing ON {same}",
    )
    connection.unregister(EXISTING)
    return _one(connection, "SELECT count(*) FROM late_existing")


def _add_reasons(connection: Any, contract: Contract, late: int) -> None:
    """Merge the `late_…` tables into `bad`."""
    if late == 0:
        return
    tables = [name for (name,) in _run(connection, "SELECT table_name FROM duckdb_tables()")]
    union = " UNION ALL ".join(f"SELECT * FROM {name}" for name in sorted(tables) if name.startswith("late_"))
    row, reasons = quote(ROW), quote(REASONS)
    _run(
        connection,
        f"CREATE TEMP TABLE late AS SELECT row AS {row}, list(reason ORDER BY reason) AS more "
        f"FROM ({union}) GROUP BY row",
    )
    _run(connection, f"UPDATE bad SET {reasons} = list_concat({reasons}, more) FROM late WHERE bad.{row} = late.{row}")
    found = ", ".join(f"CAST({quote(name)} AS VARCHAR)" for name in contract.columns)
    _run(
        connection,
        f"INSERT INTO bad SELECT {row}, {found}, more FROM typed JOIN (SELECT * FROM late ANTI JOIN bad USING ({row})) "
        f"USING ({row})",
    )


def _summary(connection: Any, batch: Batch) -> Summary:
    quarantined = _one(connection, "SELECT count(*) FROM bad")
    counts = _run(
        connection,
        f"SELECT reason.column, reason.rule, count(*) AS n FROM (SELECT unnest({quote(REASONS)}) AS reason FROM bad) "
        "GROUP BY ALL ORDER BY n DESC, 1, 2",
    )
    return Summary(
        rows=batch.rows,
        good=batch.rows - quarantined,
        quarantined=quarantined,
        reasons=tuple(ReasonCount(column, rule, rows) for column, rule, rows in counts),
    )
