"""Process that runs the SQL of a contract: no files but the tables that it is given, no network, bounded memory.

DuckDB's own memory limit does not count the text that a function builds, so the operating system bounds the memory,
and the caller the time. `sql_rules` starts it, writes one JSON document to its standard input, and reads lines
of JSON from its standard output: one for each statement.
"""

# ruff: noqa: S608 - names are quoted; the statements are what the process is there to run
from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple, TypedDict

from pipelines.data.sql_quoting import literal, quote
from pipelines.declarations.process_limits import limit_memory

MEMORY = "300MB"
"""DuckDB's memory limit."""

PROCESS_MEMORY = 1_200_000_000
"""Private memory of the process in bytes, at most."""

LARGEST_SPILL = "4GB"
"""Data that does not fit into memory, on disk."""

LARGEST_ERROR = 300


class Work(TypedDict):
    """Input of the process.

    Attributes:
        rows: Parquet file with the rows of the batch and their numbers; "" without any, if only columns matter.
        tables: name of a view → Parquet file with its rows.
        empty: name of a view → columns of an empty one, each with its type in SQL.
        row: name of the column with the number of a row.
        conditions: SQL conditions that each row must keep.
        binding: indexes of the conditions whose broken rows queries do not see.
        queries: SQL queries that return one number each.
        broken: Parquet file to write, with the columns `row` and `condition`: the number of each row that breaks a
            condition, and the index of the condition.
        spill: folder for data that does not fit into memory.
        object: name of the view of the rows that keep the conditions.
    """

    rows: str
    tables: dict[str, str]
    empty: dict[str, dict[str, str]]
    row: str
    conditions: list[str]
    binding: list[int]
    queries: list[str]
    broken: str
    spill: str
    object: str


class SqlAnswer(NamedTuple):
    """Answer to one statement.

    Attributes:
        figure: the number that a query returns; the number of rows that break a condition.
        error: why there is none.
        is_null: True if the query is valid, but has no figure for these rows: null, or not a number.
    """

    figure: float | None
    error: str = ""
    is_null: bool = False


def main() -> None:
    """Read the work from standard input, and write the answers to standard output."""
    limit_memory(PROCESS_MEMORY)
    work: Work = json.load(sys.stdin)
    for answer in run(work):
        print(json.dumps(answer), flush=True)


def run(work: Work) -> list[SqlAnswer]:
    """Run the statements, the conditions first; queries see only the rows that keep those that bind."""
    import duckdb

    with duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "threads": 2,
            "temp_directory": work["spill"],
            "max_temp_directory_size": LARGEST_SPILL,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "preserve_insertion_order": False,
        }
    ) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET TimeZone = 'UTC'")
        files = [file for file in (work["rows"], work["broken"], *work["tables"].values()) if file]
        connection.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
        for name, file in work["tables"].items():
            connection.execute(f"CREATE VIEW {quote(name)} AS SELECT * FROM read_parquet({literal(file)})")
        for name, columns in work["empty"].items():
            declared = ", ".join(f"{quote(column)} {kind}" for column, kind in columns.items())
            connection.execute(f"CREATE TABLE {quote(name)} ({declared})")
        if work["rows"]:
            connection.execute(f"CREATE VIEW _rows AS SELECT * FROM read_parquet({literal(work['rows'])})")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        if not work["rows"]:
            answers = [_try_condition(connection, work, condition) for condition in work["conditions"]]
        else:
            answers = _apply_conditions(connection, work)
        return answers + [_query(connection, query) for query in work["queries"]]


def _try_condition(connection: Any, work: Work, condition: str) -> SqlAnswer:
    """Try a condition on no rows."""
    return _query(connection, f"SELECT count(*) FROM {quote(work['object'])} WHERE NOT (\n{condition}\n)")


def _apply_conditions(connection: Any, work: Work) -> list[SqlAnswer]:
    """Write which rows break which condition, and create the view of the others. Return the number of the former."""
    import duckdb

    row = quote(work["row"])
    connection.execute("CREATE TEMP TABLE _broken (row BIGINT, condition INTEGER)")
    answers = []
    for index, condition in enumerate(work["conditions"]):
        rows = f"SELECT {row}, {index} FROM _rows WHERE NOT (\n{condition}\n)"
        problem = _not_one_query(connection, rows)
        try:
            count = 0 if problem else connection.execute(f"INSERT INTO _broken {rows}").fetchall()[0][0]
            answers.append(SqlAnswer(None if problem else float(count), problem))
        except (duckdb.Error, MemoryError) as error:
            answers.append(SqlAnswer(None, _described(error)))
    connection.execute(f"COPY _broken TO {literal(work['broken'])} (FORMAT parquet, USE_TMP_FILE false)")
    binding = ", ".join(map(str, work["binding"])) or "-1"
    connection.execute(
        f"CREATE VIEW {quote(work['object'])} AS SELECT * EXCLUDE ({row}) FROM _rows WHERE {row} NOT IN "
        f"(SELECT row FROM _broken WHERE condition IN ({binding}))"
    )
    return answers


def _query(connection: Any, query: str) -> SqlAnswer:
    import duckdb

    # DuckDB lets a SELECT change tables and write files in its WITH clause, but only at the top level of a statement.
    nested = f"SELECT * FROM (\n{query}\n)"
    if problem := _not_one_query(connection, query) or _not_one_query(connection, nested):
        return SqlAnswer(None, problem)
    try:
        rows = connection.execute(nested).fetchmany(2)
    except (duckdb.Error, MemoryError) as error:
        return SqlAnswer(None, _described(error))
    if len(rows) != 1 or len(rows[0]) != 1:
        shape = "no row" if not rows else "several rows" if len(rows) > 1 else f"{len(rows[0])} columns"
        return SqlAnswer(None, f"expected one row with one column, found {shape}")
    return _figure(rows[0][0])


def _figure(value: Any) -> SqlAnswer:
    from decimal import Decimal

    if value is None:
        return SqlAnswer(None, "expected a number or a truth value, found null", is_null=True)
    if isinstance(value, bool | int | float | Decimal):
        number = float(value)
        if number != number:
            return SqlAnswer(None, "expected a number or a truth value, found not a number (NaN)", is_null=True)
        return SqlAnswer(number)
    return SqlAnswer(None, f"expected a number or a truth value, found a value of type {type(value).__name__}")


def _not_one_query(connection: Any, text: str) -> str:
    """Return what is wrong with a text that is not exactly one SELECT statement; "" if it is one."""
    import duckdb

    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        return _described(error)
    kinds = [statement.type for statement in statements]
    if kinds != [duckdb.StatementType.SELECT]:
        return f"expected one SELECT statement, found {len(kinds) if len(kinds) != 1 else 'another statement'}"
    return ""


def _described(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:LARGEST_ERROR]


if __name__ == "__main__":
    main()
