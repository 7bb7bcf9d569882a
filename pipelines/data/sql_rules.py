"""Run the SQL checks of a contract, and its conditions on rows, in a process that can do nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.data.batch import ROW
from pipelines.data.columns import SQL_TYPES
from pipelines.data.sql_worker import SqlAnswer, Work
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.quality import BATCH_PLACEHOLDERS, COLUMN_PLACEHOLDERS, PLACEHOLDER, Quality

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_RUN = 120.0
"""Seconds that all SQL rules of a contract may take together."""

LONGEST_LINT = 20.0
"""Seconds that the same statements may take on empty tables."""

LARGEST_ANSWER = 1 << 20

PACKAGE = Path(__file__).parents[1]
"""Folder of the package `pipelines`."""

KEPT = ("PATH", "LD_LIBRARY_PATH", "TZ", "PYTHONPATH", "HOME")
"""Environment variables that the process gets; credentials are not among them."""

ReadTable = Callable[[str, Sequence[str]], "pa.RecordBatchReader"]
"""Read columns of the current table of a dataset, which may have no rows; all columns for ()."""


@dataclass(frozen=True)
class SqlRule:
    """A SQL check or a condition on rows.

    Attributes:
        column: name of the column that has the rule; "" for the table.
        quality: the rule.
        answer: what the process answered.
    """

    column: str
    quality: Quality
    answer: SqlAnswer


@dataclass(frozen=True)
class SqlResults:
    """Results of the SQL rules of a contract.

    Attributes:
        conditions, queries: the rules and their answers, in the order of the contract.
        broken: Parquet file with the columns `row` and `condition`, an index into `conditions`.
        unchecked: labels of the checks that read tables that are not at hand.
    """

    conditions: tuple[SqlRule, ...]
    queries: tuple[SqlRule, ...]
    broken: Path
    unchecked: tuple[str, ...] = ()


def run_sql_rules(
    contract: Contract, rows: Path, scratch: Path, read: ReadTable | None, *, only_conditions: bool = False
) -> SqlResults:
    """Run the SQL rules of a contract on the rows of a batch.

    Args:
        contract: the contract; it has such rules.
        rows: Parquet file with the contract's columns in their stored types, and the column `_row`.
        scratch: folder for temporary files.
        read: reads the tables of datasets; None if they are not at hand.
        only_conditions: True to run no queries.

    Raises:
        MlopsError: a statement is not valid, or takes too much memory or time.
    """
    rules = [each for each in contract.sql_rules if read is not None or not each[1].reads]
    unchecked = tuple(rule.label for _, rule in contract.sql_rules if read is None and rule.reads)
    conditions = [each for each in rules if each[1].type == "custom"]
    queries = [] if only_conditions else [each for each in rules if each[1].type == "sql"]
    tables = {}
    for dataset, text in _texts_of_readers([rule for _, rule in queries]).items():
        path = scratch / f"table-{dataset}.parquet"
        assert read is not None
        _write_table(read(dataset, ()), text, path)
        tables[_view(dataset)] = str(path)
    broken = scratch / "broken.parquet"
    work = _work(conditions, queries, scratch, rows=str(rows), tables=tables, broken=str(broken))
    answers = _run(contract, work, LONGEST_RUN)
    found = [SqlRule(*each, answer) for each, answer in zip((*conditions, *queries), answers, strict=True)]
    for rule in found:
        if rule.answer.error and rule.quality.binds and not rule.answer.is_null:
            raise _not_valid(contract, rule)
    return SqlResults(tuple(found[: len(conditions)]), tuple(found[len(conditions) :]), broken, unchecked)


def check_sql(contract: Contract, others: Mapping[str, Contract], scratch: Path) -> None:
    """Try the SQL rules of a contract on empty tables, to find mistakes before data arrives.

    Args:
        contract: the contract.
        others: the contracts of the datasets that its rules read.
        scratch: folder for temporary files.

    Raises:
        MlopsError: a statement is not valid.
    """
    if not contract.sql_rules:
        return
    views = {_OBJECT: contract, **{_view(name): others[name] for name in contract.datasets_read if name in others}}
    conditions = [each for each in contract.sql_rules if each[1].type == "custom"]
    queries = [each for each in contract.sql_rules if each[1].type == "sql"]
    work = _work(conditions, queries, scratch, empty={name: _sql_columns(each) for name, each in views.items()})
    answers = _run(contract, work, LONGEST_LINT)
    for each, answer in zip((*conditions, *queries), answers, strict=True):
        if answer.error and not answer.is_null:  # an average of no rows is null
            raise _not_valid(contract, SqlRule(*each, answer))


_OBJECT = "_object"


def _work(
    conditions: Sequence[tuple[str, Quality]],
    queries: Sequence[tuple[str, Quality]],
    scratch: Path,
    *,
    rows: str = "",
    tables: Mapping[str, str] | None = None,
    empty: Mapping[str, dict[str, str]] | None = None,
    broken: str = "",
) -> Work:
    """Describe the statements to the process, and what they read; see `Work`."""
    return Work(
        rows=rows,
        tables=dict(tables or {}),
        empty=dict(empty or {}),
        row=ROW,
        conditions=[rule.condition for _, rule in conditions],
        binding=[index for index, (_, rule) in enumerate(conditions) if rule.binds],
        queries=[_with_names(rule, column) for column, rule in queries],
        broken=broken,
        spill=str(scratch / "sql-spill"),
        object=_OBJECT,
    )


def _view(dataset: str) -> str:
    return f"_table_{dataset}"


def _sql_columns(contract: Contract) -> dict[str, str]:
    return {name: SQL_TYPES[column.stored_as] for name, column in contract.columns.items()}


def _with_names(rule: Quality, column: str) -> str:
    """Replace the names in braces of a query by the names of its views."""

    def name(match: re.Match[str]) -> str:
        found = match.group(1)
        if found in BATCH_PLACEHOLDERS:
            return f'"{_OBJECT}"'
        return f'"{column}"' if found in COLUMN_PLACEHOLDERS else f'"{_view(found)}"'

    return PLACEHOLDER.sub(name, rule.query or "").rstrip().rstrip(";")


def _texts_of_readers(rules: Iterable[Quality]) -> dict[str, str]:
    """Return each dataset that queries read, with the text of these queries."""
    found: dict[str, str] = {}
    for rule in rules:
        for dataset in rule.reads:
            found[dataset] = f"{found.get(dataset, '')}\n{rule.query}"
    return found


def _write_table(reader: pa.RecordBatchReader, text: str, path: Path) -> None:
    """Write the columns of a table that a text may name to a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    words = set(re.findall(r"[a-z_][a-z0-9_]*", text.lower()))
    everything = "*" in text.replace("(*)", "")
    names = [name for name in reader.schema.names if everything or name.lower() in words] or reader.schema.names[:1]
    schema = pa.schema([reader.schema.field(name) for name in names])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch.select(names))


def _not_valid(contract: Contract, rule: SqlRule) -> MlopsError:
    where = f"column {rule.column!r} of " if rule.column else ""
    return MlopsError(
        f"the quality rule {rule.quality.label!r} of {where}the contract {contract.name} cannot be checked: "
        f"{rule.answer.error}",
        fix="correct the SQL in the contract; it is in DuckDB's dialect (https://duckdb.org/docs/sql/introduction)",
    )


def _run(contract: Contract, work: Work, seconds: float) -> list[SqlAnswer]:
    """Run the process.

    Raises:
        MlopsError: it took too much memory or time.
    """
    environment = {key: value for key, value in os.environ.items() if key in KEPT}
    path = [str(PACKAGE.parent), *filter(None, [environment.get("PYTHONPATH", "")])]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "pipelines.data.sql_worker"],
        env={**environment, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(json.dumps(work), timeout=seconds)
    except subprocess.TimeoutExpired:
        raise MlopsError(
            f"the SQL rules of the contract {contract.name} take too long: expected at most {seconds:.0f} seconds",
            fix="simplify the queries",
        ) from None
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    answers = [SqlAnswer(*json.loads(line)) for line in output[:LARGEST_ANSWER].splitlines()]
    if len(answers) != len(work["conditions"]) + len(work["queries"]):
        raise MlopsError(
            f"the SQL rules of the contract {contract.name} need too much memory: the process ended with "
            f"{process.returncode}",
            fix="simplify the queries: they must not build texts or lists of many rows",
        )
    return answers
