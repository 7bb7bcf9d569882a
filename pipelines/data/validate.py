"""Check a batch against its contract, in DuckDB, within a fixed amount of memory."""

# ruff: noqa: S608 - the SQL comes from a reviewed contract; names and texts are escaped by `quote` and `literal`
from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from pipelines.data.batch import (
    PROBLEMS,
    ROW,
    Batch,
    LandingFileError,
    QualityWarning,
    ReasonCount,
    TooManyBadRowsError,
)
from pipelines.data.checks import (
    BatchRule,
    RowRule,
    UniqueGroup,
    batch_rules,
    bounds_broken,
    row_rules,
    typed_rows,
    unique_groups,
    value_of,
)
from pipelines.data.query_engine import NO_DOWNLOADS
from pipelines.data.sql_quoting import literal, quote
from pipelines.data.sql_rules import ReadTable, SqlResults, SqlRule, run_sql_rules
from pipelines.declarations.classification import is_personal
from pipelines.declarations.contract import MAXIMUM_QUARANTINED, Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.printable import shorten
from pipelines.declarations.relationships import ForeignKey

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = "400MB"
"""DuckDB's memory limit; it spills to the scratch folder. With Python and Arrow a check stays under 1 GB."""

MOST_THREADS = 4
"""Each thread holds a part of the file in memory; more would not fit into `MEMORY`."""

LONGEST_CHECK = 600.0
"""Time limit of a check, in seconds. A small file can unpack to very many rows; others wait behind it."""

SAMPLED_ROWS = 1_000
"""Bad rows that are kept of a file with too many of them."""

STREAMED_ROWS = 65_536
STREAMED_BYTES = 32 << 20
"""Rows and bytes of text that are streamed at once; DuckDB may exceed both up to 2,048 rows."""

LONGEST_ROW = 128 << 10
"""Size limit of the texts of a row of a Parquet file, in bytes: 2,048 rows are in memory at once."""

LARGEST_TEXT = 16 << 30
"""Size limit of all texts of a Parquet file, in bytes. A few kilobytes can hold one long text a million times."""

MOST_FLAGS, FLAGS_PER_ROW = 64 << 20, 8
"""Integers that are unique are counted by flags if they need at most so many bytes, in all and for each row."""

MOST_SUSPECTS = 100_000
"""Rows that break a rule up to which a report copies them, to look at them again for each rule."""

REASONS = "_reasons"
EXISTING = "existing_keys"
OTHER = "other_table"

REASON_TYPE = 'STRUCT("column" VARCHAR, "rule" VARCHAR, "expected" VARCHAR, "found" VARCHAR)'


@dataclass(frozen=True)
class Summary:
    """Result of a check, in rows.

    Attributes:
        rows: rows in the file.
        good: rows that keep the contract.
        quarantined: the other rows; `good + quarantined == rows`.
        reasons: rows by broken rule; a row that breaks two rules counts twice.
        warnings: rules that the batch breaks and that do not bind.
        unchecked: names of the rules that read tables that are not at hand.
    """

    rows: int
    good: int
    quarantined: int
    reasons: tuple[ReasonCount, ...]
    warnings: tuple[QualityWarning, ...] = ()
    unchecked: tuple[str, ...] = ()


class Validation:
    """A checked batch. Created by `validate`; usable only inside its `with` block."""

    def __init__(self, connection: Any, batch: Batch, contract: Contract, summary: Summary, longest_row: int) -> None:
        self._connection = connection
        self._streamed_rows = max(1, min(STREAMED_ROWS, STREAMED_BYTES // max(1, longest_row)))
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
        return self._connection.sql(query).to_arrow_reader(self._streamed_rows)

    def write_quarantine(self, path: Path) -> None:
        """Write the other rows to a Parquet file, in their original order.

        The columns are `_row`, every column as text as found, and `_reasons`, a list of structs (column, rule,
        expected, found).
        """
        _write_bad_rows(self._connection, self._contract, path)


def _write_bad_rows(connection: Any, contract: Contract, path: Path, limit: int | None = None) -> None:
    columns = ", ".join(quote(name) for name in contract.columns)
    most = "" if limit is None else f" LIMIT {limit}"
    _run(
        connection,
        f"COPY (SELECT {quote(ROW)}, {columns}, {quote(REASONS)} FROM bad ORDER BY {quote(ROW)}{most}) "
        f"TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)",
    )


@contextmanager
def validate(
    batch: Batch,
    contract: Contract,
    scratch: Path,
    *,
    existing_keys: pa.RecordBatchReader | None = None,
    read_table: ReadTable | None = None,
) -> Iterator[Validation]:
    """Check a batch against its contract.

    If a value that must be unique is repeated in the batch, the first row keeps it and each later row is quarantined,
    even if the first row breaks another rule. A row whose primary key is already in the table is quarantined: tables
    are append-only, and corrections are left to people. So is a row that breaks a condition, or a foreign key. SQL
    checks see the rows that are left.

    Args:
        batch: the batch, from `read_batch`.
        contract: the contract that it was read for.
        scratch: existing folder for data that does not fit into memory; the caller deletes it.
        existing_keys: stream of the primary keys in the table, in their stored types.
        read_table: reads the tables of datasets, for foreign keys and SQL checks; without it, rules that read tables
            are not checked.

    Yields:
        The checked batch.

    Raises:
        TooManyBadRowsError: more rows break the contract than it allows; rows whose key is in the table do not count.
        LandingFileError: the batch breaks a batch rule, its rows cannot be read, or the check takes too much memory or
            time.
        MlopsError: the contract has a rule that cannot be checked, or the disk is full.
    """
    with _connect(scratch) as connection:
        check_patterns(contract, connection)
        with _blaming(batch), _time_limit(connection):
            _run(connection, f"CREATE TEMP VIEW typed AS {typed_rows(batch, contract)}")
            longest_row = _measure_texts(connection, batch)
            summary = _check(connection, batch, contract, scratch, existing_keys, read_table)
        yield Validation(connection, batch, contract, summary, longest_row)


@contextmanager
def _blaming(batch: Batch) -> Iterator[None]:
    """Turn errors of DuckDB that the content of a file causes into errors about the file."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        _refuse_full_disk(batch, error)
        fix = "split the file into smaller ones, with smaller Parquet row groups"
        found = f"one that needs more: {_first_line(error)}"
        raise LandingFileError(batch.file, f"a check within {MEMORY} of memory", found, fix) from None
    except duckdb.InterruptException:
        found = f"one that was stopped after {LONGEST_CHECK:.0f} seconds"
        raise LandingFileError(
            batch.file, f"a check within {LONGEST_CHECK:.0f} seconds", found, "split it into several files"
        ) from None
    except duckdb.Error as error:
        _refuse_full_disk(batch, error)
        if not _is_about_the_file(error):
            raise
        raise LandingFileError(batch.file, "readable rows", _first_line(error)) from None


def _measure_texts(connection: Any, batch: Batch) -> int:
    """Return the size of the texts of the longest row, in bytes.

    Raises:
        LandingFileError: the texts of a Parquet file are too large; lines of text files have a limit already.
    """
    texts = [name for name, kind in batch.columns.items() if kind in ("VARCHAR", "JSON")]
    if not texts or batch.rows == 0:
        return 0
    size = " + ".join(f"coalesce(strlen({quote(name)}), 0)" for name in texts)
    longest, total = connection.execute(
        f"SELECT max(size), sum(size) FROM (SELECT {size} AS size FROM typed)"
    ).fetchone()
    if not batch.text and longest > LONGEST_ROW:
        fix = "keep long texts in objects of their own, and refer to them"
        raise LandingFileError(batch.file, f"at most {LONGEST_ROW} bytes of text in a row", f"{longest} bytes", fix)
    if not batch.text and total > LARGEST_TEXT:
        raise LandingFileError(
            batch.file, f"at most {LARGEST_TEXT} bytes of text", f"{total} bytes", "split it into several files"
        )
    return int(longest or 0)


def _check(
    connection: Any,
    batch: Batch,
    contract: Contract,
    scratch: Path,
    existing_keys: pa.RecordBatchReader | None,
    read_table: ReadTable | None,
) -> Summary:
    """Find the bad rows of the view `typed`; see `validate`."""
    warnings = _apply_batch_rules(connection, batch, contract) if batch.replayed is None else []
    most = batch.rows if batch.replayed is not None else int(batch.rows * contract.maximum_quarantined / 100)
    bad = _find_bad_rows(connection, batch, contract, most)
    if bad > most:
        raise _too_many(connection, batch, contract, scratch, bad)
    late = 0
    for number, group in enumerate(unique_groups(contract)):
        repeated = _find_repeated_values(connection, number, group)
        if repeated > most:
            more = ReasonCount(", ".join(group.columns), group.name, repeated)
            raise _too_many(connection, batch, contract, scratch, repeated, more)
        late += _find_repeated(connection, number, group) if repeated else 0
    others = [] if read_table is None else _find_unknown(connection, contract, read_table)
    late += sum(reason.rows for reason in others)
    if late and (together := _count_bad(connection)) > most:
        raise _too_many(connection, batch, contract, scratch, together, *others)
    if existing_keys is not None:
        late += _find_existing(connection, existing_keys, contract)
    unchecked = [key.label for key in contract.foreign_keys if read_table is None]
    if contract.sql_rules:
        results = _run_sql(connection, batch, contract, scratch, read_table)
        broken = _find_broken_conditions(connection, results)
        if broken and (together := _count_bad(connection)) > most:
            raise _too_many(connection, batch, contract, scratch, together, *others, *broken)
        late += sum(reason.rows for reason in broken)
        warnings += _apply_queries(batch, results)
        unchecked += results.unchecked
    _add_reasons(connection, contract, late)
    return _summary(connection, batch, tuple(warnings), tuple(unchecked))


@contextmanager
def _time_limit(connection: Any) -> Iterator[None]:
    """Interrupt the connection's queries after `LONGEST_CHECK` seconds."""
    timer = threading.Timer(LONGEST_CHECK, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _refuse_full_disk(batch: Batch, error: duckdb.Error) -> None:
    """Raise an error that does not blame the file if the scratch disk is full."""
    if "No space left" in str(error) or "max_temp_directory_size" in str(error):
        raise MlopsError(
            f"{batch.file}: the check needs more scratch space: {_first_line(error)}",
            fix="free disk space, or give the job a larger scratch volume, and ingest again",
        ) from None


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


def check_patterns(contract: Contract, connection: Any = None) -> None:
    """Check that every pattern of a contract is a regular expression that the engine can match.

    Args:
        contract: the contract.
        connection: a DuckDB connection; a new one by default.

    Raises:
        MlopsError: a pattern is not valid.
    """
    patterns = [(name, pattern) for name, column in contract.columns.items() for pattern in column.patterns]
    if not patterns:
        return
    if connection is None:
        with duckdb.connect(config=NO_DOWNLOADS) as own:
            check_patterns(contract, own)
        return
    for name, pattern in patterns:
        try:
            _run(connection, f"SELECT regexp_full_match('', {literal(pattern)})")
        except duckdb.Error as error:
            raise MlopsError(
                f"the pattern of column {name!r} in the contract {contract.name} is not valid: expected a regular "
                f"expression (RE2), found {pattern!r}: {str(error).splitlines()[0]}",
                fix="correct it in the contract; RE2 has no lookaround and no backreferences",
            ) from None


def _apply_batch_rules(connection: Any, batch: Batch, contract: Contract) -> list[QualityWarning]:
    """Compute the metrics of the batch; return the broken ones that do not bind.

    Raises:
        LandingFileError: others are broken.
    """
    broken, warnings = [], []
    for rule in batch_rules(contract):
        count = _count_for(connection, rule, batch)
        expected = bounds_broken(rule.quality, count, batch.rows)
        if expected is None:
            continue
        subject = rule.column or ", ".join(rule.unique)
        share = f" of {batch.rows}" if rule.quality.metric != "rowCount" else ""
        if rule.quality.binds:
            broken.append((f"{rule.quality.metric} of {subject or 'the batch'}: {expected}", f"{count}{share}"))
        else:
            found = f"{count}{share}"
            warnings.append(QualityWarning(column=subject, rule=rule.quality.label, expected=expected, found=found))
    if broken:
        raise LandingFileError(batch.file, *("; ".join(texts) for texts in zip(*broken, strict=True)))
    return warnings


def _run_sql(
    connection: Any, batch: Batch, contract: Contract, scratch: Path, read_table: ReadTable | None
) -> SqlResults:
    """Run the SQL rules on the rows that are good so far."""
    rows, columns = scratch / "good.parquet", ", ".join(f"{value_of(n)} AS {quote(n)}" for n in contract.columns)
    late = " ".join(f"UNION ALL SELECT row FROM {name}" for name in _late_tables(connection))
    _run(
        connection,
        f"COPY (SELECT {quote(ROW)}, {columns} FROM typed WHERE {quote(ROW)} NOT IN "
        f"(SELECT {quote(ROW)} FROM bad {late})) TO {literal(str(rows))} (FORMAT parquet)",
    )
    try:
        return run_sql_rules(contract, rows, scratch, read_table, only_conditions=batch.replayed is not None)
    finally:
        rows.unlink(missing_ok=True)


def _find_broken_conditions(connection: Any, results: SqlResults) -> list[ReasonCount]:
    """Create the tables `late_condition_<number>`: rows that break a condition that binds. Return their numbers."""
    found = []
    for number, rule in enumerate(results.conditions):
        if not rule.quality.binds or not rule.answer.figure:
            continue
        shown = f"CAST({quote(rule.column)} AS VARCHAR)" if rule.column else literal("other values")
        why = _reason(rule.column, rule.quality.label, rule.quality.condition, shown)
        _run(
            connection,
            f"CREATE TEMP TABLE late_condition_{number} AS SELECT {quote(ROW)} AS row, {why} AS reason FROM typed "
            f"SEMI JOIN (SELECT row FROM read_parquet({literal(str(results.broken))}) WHERE condition = {number}) "
            f"AS broken ON typed.{quote(ROW)} = broken.row",
        )
        found.append(ReasonCount(rule.column, rule.quality.label, int(rule.answer.figure)))
    return found


def _apply_queries(batch: Batch, results: SqlResults) -> list[QualityWarning]:
    """Compare the figures of the SQL checks with their bounds; return the broken rules that do not bind.

    Raises:
        LandingFileError: others are broken.
    """
    broken, warnings = [], []
    for rule in (*results.queries, *results.conditions):
        problem = sql_problem(rule, batch.rows)
        if problem is None:
            continue
        expected, found = problem
        if rule.quality.type == "sql" and rule.quality.binds:
            broken.append((f"{rule.quality.label}: {expected}", found))
        elif not rule.quality.binds:
            label = rule.quality.label
            warnings.append(QualityWarning(column=rule.column, rule=label, expected=expected, found=found))
    if broken:
        raise LandingFileError(batch.file, *("; ".join(texts) for texts in zip(*broken, strict=True)))
    return warnings


def sql_problem(rule: SqlRule, rows: int) -> tuple[str, str] | None:
    """Return what a SQL rule expected and what it found; None if it is kept."""
    figure = rule.answer.figure
    if figure is None:
        return "a figure that its bounds can be compared with", rule.answer.error.rpartition("found ")[2]
    if rule.quality.type == "custom":
        return (rule.quality.condition, _rows(figure)) if figure else None
    expected = bounds_broken(rule.quality, figure, rows)
    return None if expected is None else (expected, f"{figure:g}")


def _rows(count: float) -> str:
    return "another value in 1 row" if count == 1 else f"others in {count:.0f} rows"


def _find_unknown(connection: Any, contract: Contract, read_table: ReadTable) -> list[ReasonCount]:
    """Create the tables `late_key_<number>`: rows whose foreign key is not in the other table. Return their numbers."""
    found = []
    for number, key in enumerate(contract.foreign_keys):
        rows = _find_unknown_values(connection, number, key, contract, read_table)
        found += [ReasonCount(", ".join(key.columns), key.label, rows)] if rows else []
    return found


def _find_unknown_values(
    connection: Any, number: int, key: ForeignKey, contract: Contract, read_table: ReadTable
) -> int:
    values = [value_of(name) for name in key.columns]
    names = [f"_{place}" for place in range(len(values))]
    known = ", ".join(f"{quote(other)} AS {name}" for other, name in zip(key.others, names, strict=True))
    same = " AND ".join(f"{value} = {name}" for value, name in zip(values, names, strict=True))
    there = " AND ".join(f"{value} IS NOT NULL" for value in values)
    found = " || ', ' || ".join(f"CAST({value} AS VARCHAR)" for value in values)
    why = _reason(", ".join(key.columns), key.label, f"a value in {', '.join(key.others)} of {key.dataset}", found)
    rows = f"SELECT {known} FROM {OTHER}"
    if key.dataset == contract.name:  # the batch counts as well
        own = ", ".join(f"{value_of(other)} AS {name}" for other, name in zip(key.others, names, strict=True))
        rows += f" UNION ALL SELECT {own} FROM typed"
    connection.register(OTHER, read_table(key.dataset, key.others))
    _run(
        connection,
        f"CREATE TEMP TABLE late_key_{number} AS SELECT {quote(ROW)} AS row, {why} AS reason "
        f"FROM (SELECT * FROM typed WHERE {there}) AS typed ANTI JOIN ({rows}) AS known ON {same}",
    )
    connection.unregister(OTHER)
    return _one(connection, f"SELECT count(*) FROM late_key_{number}")


def _count_for(connection: Any, rule: BatchRule, batch: Batch) -> int:
    """Return the number of rows or values that a rule on the batch counts."""
    if rule.unique:
        columns = ", ".join(value_of(name) for name in rule.unique)
        there = " AND ".join(f"{value_of(name)} IS NOT NULL" for name in rule.unique)
        repeated = f"SELECT count(*) - 1 AS n FROM typed WHERE {there} GROUP BY {columns}"
        return _one(connection, f"SELECT coalesce(sum(n), 0) FROM ({repeated})")
    if rule.broken:
        return _one(connection, f"SELECT count(*) FROM typed WHERE {rule.broken}")
    return batch.rows


def _run(connection: Any, query: str) -> list[Any]:
    """Run a query and fetch all rows; until then, the connection is busy."""
    rows: list[Any] = connection.execute(query).fetchall()
    return rows


def _one(connection: Any, query: str) -> int:
    return int(_run(connection, query)[0][0])


def _find_bad_rows(connection: Any, batch: Batch, contract: Contract, most: int) -> int:
    """Create the table `bad`: rows that break a row rule, with all reasons. Return their number.

    If there are more than `most`, it holds `most + 1` of them.
    """
    every = row_rules(contract, batch)
    broken, problems = _any_broken(every, batch), quote(PROBLEMS)
    reasons = _reasons_of(every)
    if batch.text:
        # A malformed row has no values, so only that is reported.
        reasons = f"CASE WHEN {problems}[1].column = '' THEN {problems} ELSE list_concat({problems}, {reasons}) END"
    found = ", ".join(f"CAST({quote(name)} AS VARCHAR) AS {quote(name)}" for name in contract.columns)
    # DuckDB computes in vectors. Two steps fill them with bad rows, which are few among the others.
    _run(connection, f"CREATE TEMP TABLE suspects AS SELECT * FROM typed WHERE {broken} LIMIT {most + 1}")
    _run(
        connection,
        f"CREATE TEMP TABLE bad AS SELECT {quote(ROW)}, {found}, {reasons} AS {quote(REASONS)} FROM suspects",
    )
    _run(connection, "DROP TABLE suspects")
    return _one(connection, "SELECT count(*) FROM bad")


def _any_broken(every: list[RowRule], batch: Batch) -> str:
    """Write the condition of the rows that break any of the rules."""
    broken = " OR ".join(filter(None, (rule.broken if rule.suspect is None else rule.suspect for rule in every)))
    if batch.text:
        return " OR ".join(filter(None, (f"len({quote(PROBLEMS)}) > 0", broken)))
    return broken or "false"


def _too_many(
    connection: Any, batch: Batch, contract: Contract, scratch: Path, bad: int, *more: ReasonCount
) -> TooManyBadRowsError:
    """Return the error for a batch with too many bad rows; rows that are not needed to know that are not looked at.

    Args:
        connection: with the table `bad`.
        batch: the batch.
        contract: its contract.
        scratch: folder for the sample.
        bad: least number of bad rows.
        more: rows that break rules which are not rules on single rows.
    """
    every = row_rules(contract, batch)
    column = f"{quote(PROBLEMS)}[1].column"
    conditions = {("", "format"): f"{column} = ''", ("", "type"): f"{column} <> ''"} if batch.text else {}
    whole = f"({column} IS NULL OR {column} <> '') AND " if batch.text else ""
    for rule in every:
        key, before = (rule.column, rule.name), conditions.get((rule.column, rule.name))
        conditions[key] = f"{whole}({rule.broken})" if before is None else f"({before} OR {whole}({rule.broken}))"
    any_of_them = " OR ".join(f"({condition})" for condition in conditions.values()) or "false"
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in (any_of_them, *conditions.values()))
    total, *numbers = _run(connection, f"SELECT {counts} FROM typed")[0]
    reasons = [ReasonCount(*rule, int(n)) for rule, n in zip(conditions, numbers, strict=True)]
    reasons = sorted((reason for reason in (*reasons, *more) if reason.rows), key=lambda reason: -reason.rows)
    bad = max(bad, int(total))
    sample = scratch / "sample.parquet"
    _write_bad_rows(connection, contract, sample, SAMPLED_ROWS)
    described = "; ".join(f"{reason.column or 'the row'}: {reason.rule} {reason.rows}" for reason in reasons[:5])
    return TooManyBadRowsError(
        batch.file,
        f"at most {contract.maximum_quarantined:g} percent of {batch.rows} rows to break the contract",
        f"at least {bad} ({described})",
        f"correct the file, or the contract ({MAXIMUM_QUARANTINED} is the bound) and replay it: "
        f"mlops data release {contract.name} {batch.file}",
        rows=batch.rows,
        bad=bad,
        reasons=tuple(reasons),
        sample=sample,
    )


def _count_bad(connection: Any) -> int:
    """Count the rows in `bad` and in the `late_…` tables, each once."""
    late = " ".join(f"UNION SELECT row FROM {name}" for name in _late_tables(connection))
    return _one(connection, f"SELECT count(*) FROM (SELECT {quote(ROW)} FROM bad {late})")


def _late_tables(connection: Any) -> list[str]:
    tables = [str(name) for (name,) in _run(connection, "SELECT table_name FROM duckdb_tables()")]
    return sorted(name for name in tables if name.startswith("late_"))


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


def _find_repeated_values(connection: Any, number: int, group: UniqueGroup) -> int:
    """Return the number of rows whose value an earlier row has.

    If there are any, the table `repeated_<number>` has these values.
    """
    values = [value_of(name) for name in group.columns]
    if len(values) == 1 and _are_distinct_integers(connection, values[0]):
        return 0
    columns = ", ".join(values)
    there = " AND ".join(f"{value} IS NOT NULL" for value in values)
    _run(
        connection,
        f"CREATE TEMP TABLE repeated_{number} AS SELECT {columns}, count(*) AS n FROM typed WHERE {there} "
        f"GROUP BY {columns} HAVING count(*) > 1",
    )
    return _one(connection, f"SELECT coalesce(sum(n - 1), 0) FROM repeated_{number}")


def _are_distinct_integers(connection: Any, value: str) -> bool:
    """Return True if the values of a column are integers close to each other, no two of them equal.

    One flag for each possible value takes less time and memory than a table of all values.
    """
    import numpy as np

    low, high, count = _run(connection, f"SELECT min({value}), max({value}), count({value}) FROM typed")[0]
    if type(low) is not int or high - low >= min(MOST_FLAGS, FLAGS_PER_ROW * count):
        return False
    flags = np.zeros(high - low + 1, dtype=np.bool_)
    places = connection.sql(f"SELECT CAST({value} AS BIGINT) - ({low}) FROM typed WHERE {value} IS NOT NULL")
    for some in places.to_arrow_reader(STREAMED_ROWS):
        flags[np.from_dlpack(some.column(0))] = True  # to_numpy would import pandas
    return bool(np.count_nonzero(flags) == count)


def _find_repeated(connection: Any, number: int, group: UniqueGroup) -> int:
    """Create the table `late_<number>` from `repeated_<number>`: the later rows, and why. Return their number.

    Two steps save memory: group the values alone first, then look up the rows of those that repeat.
    """
    values = [value_of(name) for name in group.columns]
    columns = ", ".join(values)
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
    union = " UNION ALL ".join(f"SELECT * FROM {name}" for name in _late_tables(connection))
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


def _summary(
    connection: Any, batch: Batch, warnings: tuple[QualityWarning, ...], unchecked: tuple[str, ...]
) -> Summary:
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
        warnings=warnings,
        unchecked=unchecked,
    )


@dataclass(frozen=True)
class RuleResult:
    """Result of one rule of a contract on a batch.

    Attributes:
        column: name of the column; "" for the whole row or the whole batch; names separated by commas for several.
        rule: name of the rule, as the contract calls it.
        expected: what the rule allows.
        failing: number of rows that break it; for a rule on the batch, 1 if it is broken.
        found: what was found, for a rule on the batch.
        rows: numbers of some of the rows, from 1.
        keys: the primary keys of these rows, as text.
        binds: False if the rule is only reported.
        is_checked: False if the rule was not checked.
        unchecked_because: why it, and others like it, were not.
    """

    column: str
    rule: str
    expected: str
    failing: int
    found: str = ""
    rows: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    binds: bool = True
    is_checked: bool = True
    unchecked_because: str = "they read tables (add --env)"


EXAMPLES = 5
"""Rows that are named for each broken rule."""


def examine(batch: Batch, contract: Contract, scratch: Path, read_table: ReadTable | None = None) -> list[RuleResult]:
    """Check every rule of a contract on a batch, also if one of them is broken. Nothing is written.

    Args:
        batch: the batch, from `read_batch`.
        contract: the contract that it was read for.
        scratch: existing folder for data that does not fit into memory; the caller deletes it.
        read_table: reads the tables of datasets; None if they are not at hand.

    Returns:
        A result for each rule, in the order of the contract.

    Raises:
        LandingFileError: the rows cannot be read, or the check takes too much memory or time.
        MlopsError: a pattern is not valid, or the disk is full.
    """
    with _connect(scratch) as connection:
        check_patterns(contract, connection)
        with _blaming(batch), _time_limit(connection):
            _run(connection, f"CREATE TEMP VIEW typed AS {typed_rows(batch, contract)}")
            _measure_texts(connection, batch)
            return [
                *_row_results(connection, batch, contract),
                *_unique_results(connection, contract),
                *_key_results(connection, contract, read_table),
                *_batch_results(connection, batch, contract),
                *_sql_results(connection, batch, contract, scratch, read_table),
            ]


def _row_results(connection: Any, batch: Batch, contract: Contract) -> Iterator[RuleResult]:
    every = [(rule.column, rule.name, rule.expected, rule.broken) for rule in row_rules(contract, batch)]
    if batch.text:
        column = f"{quote(PROBLEMS)}[1].column"
        whole = f"({column} IS NULL OR {column} <> '') AND "  # a malformed row has no values to check
        every = [(name, rule, expected, f"{whole}({broken})") for name, rule, expected, broken in every]
        every.insert(0, ("", "format", "a row in the format of the file", f"{column} = ''"))
        every.insert(1, ("", "type", "values of the types of their columns", f"{column} <> ''"))
    if not every:
        return
    # The others are not looked at for each rule, unless very many rows break one.
    broken = _any_broken(row_rules(contract, batch), batch)
    _run(connection, f"CREATE TEMP TABLE suspects AS SELECT * FROM typed WHERE {broken} LIMIT {MOST_SUSPECTS + 1}")
    source = "suspects" if _one(connection, "SELECT count(*) FROM suspects") <= MOST_SUSPECTS else "typed"
    counts = ", ".join(f"count(*) FILTER (WHERE {condition})" for *_, condition in every)
    numbers = _run(connection, f"SELECT {counts} FROM {source}")[0]
    for (name, rule, expected, condition), number in zip(every, numbers, strict=True):
        query = f"SELECT * FROM {source} WHERE {condition}"
        rows, keys = _examples(connection, contract, query) if number else ((), ())
        yield RuleResult(name, rule, expected, int(number), rows=rows, keys=keys)
    _run(connection, "DROP TABLE suspects")


def _unique_results(connection: Any, contract: Contract) -> Iterator[RuleResult]:
    for number, group in enumerate(unique_groups(contract)):
        repeated = _find_repeated_values(connection, number, group)
        rows: tuple[int, ...] = ()
        keys: tuple[str, ...] = ()
        if repeated:
            _find_repeated(connection, number, group)
            query = f"SELECT typed.* FROM typed SEMI JOIN late_{number} ON typed.{quote(ROW)} = late_{number}.row"
            rows, keys = _examples(connection, contract, query)
        yield RuleResult(
            ", ".join(group.columns), group.name, "a value that no earlier row has", repeated, rows=rows, keys=keys
        )


def _batch_results(connection: Any, batch: Batch, contract: Contract) -> Iterator[RuleResult]:
    for rule in batch_rules(contract):
        count = _count_for(connection, rule, batch)
        broken = bounds_broken(rule.quality, count, batch.rows)
        subject = rule.column or ", ".join(rule.unique)
        found = f"{count} of {batch.rows} rows" if rule.quality.metric != "rowCount" else f"{count} rows"
        expected = broken or "a figure within the bounds of the rule"
        failing = int(broken is not None)
        found = found if broken else ""
        yield RuleResult(subject, rule.quality.label, expected, failing, found, binds=rule.quality.binds)


def _key_results(connection: Any, contract: Contract, read_table: ReadTable | None) -> Iterator[RuleResult]:
    for number, key in enumerate(contract.foreign_keys):
        column, expected = ", ".join(key.columns), f"a value in {', '.join(key.others)} of {key.dataset}"
        if read_table is None:
            yield RuleResult(column, key.label, expected, 0, is_checked=False)
            continue
        unknown = _find_unknown_values(connection, number, key, contract, read_table)
        query = f"SELECT typed.* FROM typed SEMI JOIN late_key_{number} AS late ON typed.{quote(ROW)} = late.row"
        rows, keys = _examples(connection, contract, query) if unknown else ((), ())
        yield RuleResult(column, key.label, expected, unknown, rows=rows, keys=keys)


def _sql_results(
    connection: Any, batch: Batch, contract: Contract, scratch: Path, read_table: ReadTable | None
) -> Iterator[RuleResult]:
    if not contract.sql_rules:
        return
    _find_bad_rows(connection, batch, contract, batch.rows)
    results = _run_sql(connection, batch, contract, scratch, read_table)
    for number, rule in enumerate(results.conditions):
        failing, broken = int(rule.answer.figure or 0), literal(str(results.broken))
        query = f"SELECT typed.* FROM typed SEMI JOIN (SELECT row FROM read_parquet({broken}) WHERE condition = "
        query += f"{number}) AS broken ON typed.{quote(ROW)} = broken.row"
        rows, keys = _examples(connection, contract, query) if failing else ((), ())
        expected, label, binds = rule.quality.condition, rule.quality.label, rule.quality.binds
        yield RuleResult(rule.column, label, expected, failing, rows=rows, keys=keys, binds=binds)
    for rule in results.queries:
        problem = sql_problem(rule, batch.rows)
        expected, found = problem or ("a figure within the bounds of the rule", "")
        yield RuleResult(rule.column, rule.quality.label, expected, int(bool(problem)), found, binds=rule.quality.binds)
    for label in results.unchecked:
        yield RuleResult("", label, "a figure within the bounds of the rule", 0, is_checked=False)


def _examples(connection: Any, contract: Contract, query: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the numbers and the keys of the first rows of a query on `typed`; no keys if they are personal."""
    key = " || ', ' || ".join(f"coalesce(CAST({quote(name)} AS VARCHAR), 'nothing')" for name in contract.primary_key)
    found = _run(
        connection,
        f"SELECT {quote(ROW)}, {key or literal('')} FROM ({query}) ORDER BY {quote(ROW)} LIMIT {EXAMPLES}",
    )
    hidden = any(is_personal(contract.columns[name]) for name in contract.primary_key)
    return tuple(int(row) for row, _ in found), () if hidden else tuple(shorten(str(text)) for _, text in found)
