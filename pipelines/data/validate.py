"""Check a batch against its contract: DuckDB does the work, as a stream, within a fixed memory."""

# ruff: noqa: S608 - the SQL is made of a reviewed contract; names and texts go through `quote` and `literal`
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from pipelines.data.checks import (
    Rule,
    UniqueGroup,
    batch_rules,
    bounds_broken,
    literal,
    quote,
    rules,
    typed_rows,
    unique_groups,
    value_of,
)
from pipelines.data.reading import PROBLEMS, ROW, Batch, Refused, shorten
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = "400MB"
"""What DuckDB may hold; more goes to the scratch folder. With Python and Arrow a check stays under 1 GB."""

MOST_THREADS = 4
"""Each thread holds a part of the file; more of them would not fit into `MEMORY`."""

ROWS_AT_ONCE = 65_536
REASONS = "_reasons"
EXISTING = "existing_keys"

REASON_TYPE = 'STRUCT("column" VARCHAR, "rule" VARCHAR, "expected" VARCHAR, "found" VARCHAR)'


@dataclass(frozen=True)
class ReasonCount:
    """How many rows broke one rule.

    Attributes:
        column: the column, or "" for the whole row; for several columns their names with commas.
        rule: the rule.
        rows: how many rows.
    """

    column: str
    rule: str
    rows: int


@dataclass(frozen=True)
class Summary:
    """The verdict on a batch.

    Attributes:
        rows: rows in the file.
        good: rows that keep the contract.
        quarantined: rows that do not; `good + quarantined == rows`.
        reasons: by rule; a row that breaks two rules counts twice.
    """

    rows: int
    good: int
    quarantined: int
    reasons: tuple[ReasonCount, ...]


class Validation:
    """A batch that was checked. Made by `validate`, and of use only inside its block."""

    def __init__(self, connection: Any, batch: Batch, contract: Contract, summary: Summary) -> None:
        self._connection = connection
        self._batch = batch
        self._contract = contract
        self.summary = summary

    def good_rows(self) -> pa.RecordBatchReader:
        """The rows that keep the contract, as a stream, with its columns in the types they are stored as.

        The stream ends when anything else is asked of this validation.
        """
        columns = ", ".join(f"{value_of(name)} AS {quote(name)}" for name in self._contract.columns)
        without = "" if self.summary.quarantined == 0 else f" ANTI JOIN bad USING ({quote(ROW)})"
        query = f"SELECT {columns} FROM typed{without}"
        return self._connection.sql(query).to_arrow_reader(ROWS_AT_ONCE)

    def write_quarantine(self, path: Path) -> None:
        """Write the other rows to a Parquet file: `_row`, every column as text, as found, and `_reasons`.

        `_reasons` is a list of structs (column, rule, expected, found). The order is that of the file.
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
    """Check a batch.

    A primary key (or another value that must be unique) that occurs more than once in the batch: the first row of the
    file stays, each later one is in quarantine, whatever else is wrong with the first. A primary key that is in the
    table already: the row is in quarantine, for tables only grow, and a correction is a decision of people.

    Args:
        batch: what `read_batch` returned.
        contract: the contract it was read for.
        scratch: an existing folder for what does not fit into memory; emptied by the caller.
        existing_keys: the primary keys that are in the table already: the key's columns, in the types they are stored
            as, as a stream.

    Raises:
        Refused: the batch breaks a rule about the whole of it, or its rows cannot be read.
        MlopsError: the contract has a rule that cannot be checked.
    """
    with _connect(scratch) as connection:
        _try_patterns(connection, contract)
        try:
            query = typed_rows(batch, contract)
            _run(connection, f"CREATE TEMP VIEW typed AS {query}")
            _refuse_batch(connection, batch, contract)
            _find_bad_rows(connection, batch, contract)
            groups = unique_groups(contract)
            late = [_repeated(connection, number, group) for number, group in enumerate(groups)]
            if existing_keys is not None:
                late.append(_already_there(connection, existing_keys, contract))
            _add_reasons(connection, contract, sum(late))
            summary = _summary(connection, batch)
        except duckdb.OutOfMemoryException as error:
            raise MlopsError(
                f"{batch.file}: checking it needs more than {MEMORY} of memory: {_first_line(error)}",
                fix="cut the file into smaller ones, with smaller Parquet row groups",
            ) from None
        except duckdb.Error as error:
            if not _is_about_the_file(error):
                raise
            raise Refused(batch.file, "rows that can be read", _first_line(error)) from None
        yield Validation(connection, batch, contract, summary)


def _is_about_the_file(error: duckdb.Error) -> bool:
    """Whether DuckDB could not read what is in the file; most of what it says of damage has no class of its own."""
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
            # Nothing is fetched over the network: what is needed comes with the package.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    try:
        _run(connection, "SET enable_progress_bar = false")
        _run(connection, "SET TimeZone = 'UTC'")
        # The statistics in a Parquet file are what its writer claims, and say nothing of NaN: with them, DuckDB would
        # skip row groups that hold bad rows.
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
                f"the contract's column {column.name!r} has a pattern that is no regular expression (RE2): "
                f"{column.options.pattern!r}: {str(error).splitlines()[0]}"
            ) from None


def _refuse_batch(connection: Any, batch: Batch, contract: Contract) -> None:
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
        asked = bounds_broken(rule.quality, count, batch.rows)
        if asked is not None:
            of = rule.column or ", ".join(rule.unique) or "the batch"
            share = f" of {batch.rows}" if rule.quality.metric != "rowCount" else ""
            broken.append((f"{rule.quality.metric} of {of}: {asked}", f"{count}{share}"))
    if broken:
        raise Refused(batch.file, "; ".join(asked for asked, _ in broken), "; ".join(found for _, found in broken), "")


def _run(connection: Any, query: str) -> list[Any]:
    """Run a query to its end: a connection takes no other before that."""
    rows: list[Any] = connection.execute(query).fetchall()
    return rows


def _one(connection: Any, query: str) -> int:
    return int(_run(connection, query)[0][0])


def _find_bad_rows(connection: Any, batch: Batch, contract: Contract) -> None:
    """Table `bad`: in one pass, the rows that break a rule on their own, with every reason."""
    every = rules(contract, batch)
    problems = quote(PROBLEMS)
    broken = (
        " OR ".join(filter(None, (rule.broken if rule.suspect is None else rule.suspect for rule in every))) or "false"
    )
    if batch.text:
        broken = f"len({problems}) > 0 OR {broken}"
    reasons = _reasons_of(every)
    if batch.text:
        # A row that is no row has no values to speak of.
        reasons = f"CASE WHEN {problems}[1].column = '' THEN {problems} ELSE list_concat({problems}, {reasons}) END"
    found = ", ".join(f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" for name in contract.columns)
    _run(
        connection,
        f"CREATE TEMP TABLE bad AS SELECT {quote(ROW)}, {found}, {reasons} AS {quote(REASONS)} "
        f"FROM typed WHERE {broken}",
    )


def _reasons_of(every: list[Rule]) -> str:
    each = [
        f"CASE WHEN {rule.broken} THEN "
        f"{_reason(rule.column, rule.name, rule.expected, f'CAST({quote(rule.column)} AS VARCHAR)')} END"
        for rule in every
    ]
    return f"list_filter([{', '.join(each)}]::{REASON_TYPE}[], lambda reason: reason IS NOT NULL)"


def _reason(column: str, rule: str, expected: str, found: str) -> str:
    """A reason in SQL; `found` is SQL of a text."""
    short = f"CASE WHEN length({found}) > 120 THEN left({found}, 119) || '…' ELSE {found} END"
    return (
        f'struct_pack("column" := {literal(column)}, "rule" := {literal(rule)}, '
        f'"expected" := {literal(expected)}, "found" := coalesce({short}, \'nothing\'))'
    )


def _repeated(connection: Any, number: int, group: UniqueGroup) -> int:
    """Table `late_<number>`: later rows with values that an earlier row has, and why. Returns how many."""
    values = [value_of(name) for name in group.columns]
    columns = ", ".join(values)
    there = " AND ".join(f"{value} IS NOT NULL" for value in values)
    # Two steps: the expensive one holds the values and nothing else; the rows are only looked up for those that repeat.
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


def _already_there(connection: Any, existing_keys: pa.RecordBatchReader, contract: Contract) -> int:
    """Table `late_existing`: rows whose key the table has. Returns how many."""
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
    """Put the rows of the `late_…` tables into `bad`."""
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
