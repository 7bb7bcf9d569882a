"""Infer the draft of a contract from a data file."""

# ruff: noqa: S608 - names come from the file and are escaped by `quote`
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.data.checks import FLOATING, INTEGERS, TIMESTAMPS, UNSIGNED
from pipelines.data.contract_check import check_data_file
from pipelines.data.query_engine import NO_DOWNLOADS
from pipelines.data.reading import SUFFIXES
from pipelines.data.sql_quoting import literal, quote
from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import table_name

HEADER = "# yaml-language-server: $schema=../pipelines/declarations/schemas/contract.schema.json\n"
MOST_LEVELS = 12
"""Levels of a column of text up to which the draft lists them. Of integers, it lists 0 and 1 only: they are flags."""

FEWEST_ROWS = 20
"""Rows per level from which the draft believes that it has seen them all."""

FEWEST_REPEATS = 5
"""Rows that each level of text must have: a rarer one suggests that others were not seen yet."""

LONGEST_CODE, MOST_WORDS = 32, 3
"""Characters and words of a level up to which it looks like a code; a longer one is free text."""

FREE_TEXT_NAMES = re.compile(r"(^|_)(comments?|notes?|remarks?|descriptions?|feedback|messages?|free_?text)($|_)")
"""Names of columns that usually hold free text."""

_SENTENCE = re.compile(r"[.,;:!?](\s|$)")
_DATE = re.compile(r"\d{1,4}([./-])\d{1,2}\1\d{1,4}(\D.*)?")

PERSONAL_NAMES = re.compile(
    r"(^|_)(e?_?mail|phone|mobile|first_?name|last_?name|full_?name|surname|birth\w*|dob|ssn|passport|address|street|"
    r"iban|ip|latitude|longitude|gender|sex|race|religion)($|_)"
)
"""Names of columns that usually hold personal data."""

_COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True)
class Guess:
    """What a file shows of a column.

    Attributes:
        name: name of the column.
        kind: DuckDB type.
        nulls: number of rows without a value.
        distinct: number of distinct values.
        levels: the values, if there are few.
    """

    name: str
    kind: str
    nulls: int
    distinct: int
    levels: tuple[str | int, ...] = ()


def draft_contract(path: Path, dataset: str) -> str:
    """Infer the draft of a contract from a file, and return its text.

    The file keeps the draft. Bounds are left to people: the least value of a sample says little about the next file.

    Args:
        path: a CSV, JSON Lines or Parquet file.
        dataset: name of the dataset.

    Raises:
        MlopsError: the file cannot be read, has no rows, or has columns whose names or types a contract cannot hold.
    """
    rows, guesses = _guess(path)
    if rows == 0:
        raise MlopsError(f"{path} has no rows: expected at least one to infer a contract from")
    names = [guess.name for guess in guesses]
    if wrong := [name for name in names if not _COLUMN_NAME.fullmatch(name)]:
        raise MlopsError(
            f"{path} has columns that a contract cannot name: expected lower-case letters, digits and '_', "
            f"found {', '.join(map(repr, wrong[:5]))}",
            fix="rename them in the file",
        )
    text = _draft(path, dataset, rows, guesses)
    report = check_data_file(parse(text, Contract, path), path)
    if report.rejected:
        raise MlopsError(f"{path} cannot be read: {report.rejected}")
    if unread := {result.column for result in report.broken if result.rule == "type" and result.column}:
        # DuckDB reads more as a type than a landing file may have, such as "yes" and "no" as booleans
        rows, guesses = _guess(
            path, {guess.name: "VARCHAR" if guess.name in unread else guess.kind for guess in guesses}
        )
        text = _draft(path, dataset, rows, guesses)
    return text


def _draft(path: Path, dataset: str, rows: int, guesses: Sequence[Guess]) -> str:
    """Write the contract of columns as they were guessed."""
    key = next((guess for guess in guesses if guess.distinct == rows and _kind_of(guess, path)[0] != "number"), None)
    document: dict[str, Any] = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": f"urn:mlops:contract:{dataset}",
        "name": dataset,
        "version": "0.1.0",
        "status": "draft",
        "description": {"purpose": "TODO: what the data is for, and where it comes from."},
        "schema": [
            {
                "name": dataset,
                "physicalName": table_name(dataset),
                "physicalType": "table",
                "properties": [_property(guess, path, rows, is_key=guess is key) for guess in guesses],
                "quality": [{"metric": "rowCount", "mustBeGreaterThan": 0}],
            }
        ],
    }
    if key is None:
        document["schema"][0]["properties"][0] |= {"primaryKey": True, "primaryKeyPosition": 1, "required": True}
    text = HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    parse(text, Contract, path)
    return text


def _guess(path: Path, kinds: Mapping[str, str] | None = None) -> tuple[int, list[Guess]]:
    """Count the rows of a file and look at each column. `kinds` are the columns' DuckDB types, if they are known."""
    import duckdb

    if path.suffix.lower() not in SUFFIXES:
        raise MlopsError(f"{path} cannot be read: expected a name that ends in one of {', '.join(SUFFIXES)}")
    readers = {".csv": "read_csv({}, header = true, all_varchar = false)", ".parquet": "read_parquet({})"}
    source = readers.get(path.suffix.lower(), "read_json({}, format = 'newline_delimited')").format(literal(str(path)))
    if kinds is not None and path.suffix.lower() != ".parquet":
        columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in kinds.items())
        source = f"{source[:-1]}, columns = {{{columns}}})"
    try:
        with duckdb.connect(config=NO_DOWNLOADS) as connection:
            connection.execute("SET enable_progress_bar = false")
            described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            counts = ", ".join(
                f"count(*) - count({quote(name)}), count(DISTINCT {quote(name)})" for name, *_ in described
            )
            total, *figures = connection.execute(f"SELECT count(*), {counts} FROM {source}").fetchall()[0]
            guesses = []
            for at, (name, kind, *_) in enumerate(described):
                nulls, distinct = (int(figure) for figure in figures[2 * at : 2 * at + 2])
                levels: Sequence[Any] = ()
                if kind == "VARCHAR" and 0 < distinct <= MOST_LEVELS:
                    query = f"SELECT {quote(name)}, count(*) FROM {source} WHERE {quote(name)} IS NOT NULL GROUP BY 1"
                    counts_of_levels = dict(connection.execute(f"{query} ORDER BY 1").fetchall())
                    levels = [*counts_of_levels] if are_codes(name, counts_of_levels, total) else []
                if kind in INTEGERS and distinct == 2 and total >= FEWEST_ROWS * distinct:
                    query = f"SELECT min({quote(name)}), max({quote(name)}) FROM {source}"
                    least, greatest = connection.execute(query).fetchall()[0]
                    levels = (0, 1) if (least, greatest) == (0, 1) else ()
                guesses.append(Guess(str(name), str(kind), nulls, distinct, tuple(levels)))
            return int(total), guesses
    except duckdb.Error as error:
        raise MlopsError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def are_codes(name: str, counts: Mapping[str, int], rows: int) -> bool:
    """Return True if the values of a column of text look like a complete list of codes, and not like free text.

    Args:
        name: name of the column.
        counts: value → number of rows that have it.
        rows: rows of the file, also those without a value.
    """
    return (
        2 <= len(counts) <= MOST_LEVELS
        and rows >= FEWEST_ROWS * len(counts)
        and min(counts.values()) >= FEWEST_REPEATS
        and FREE_TEXT_NAMES.search(name) is None
        and all(map(_is_code, counts))
    )


def _is_code(value: str) -> bool:
    words = value.split()
    is_short = len(value) <= LONGEST_CODE and 1 <= len(words) <= MOST_WORDS
    return is_short and not (len(words) > 1 and _SENTENCE.search(value)) and not _DATE.fullmatch(value)


def _kind_of(guess: Guess, path: Path) -> tuple[str, str]:
    """Return the logical and the physical type of a column.

    Raises:
        MlopsError: a contract has no such type.
    """
    if guess.kind in INTEGERS or guess.kind in UNSIGNED:
        is_small = INTEGERS.get(guess.kind, 64) <= 32 and path.suffix.lower() == ".parquet"
        return "integer", "int" if is_small else "long"
    if guess.kind in FLOATING or guess.kind.startswith("DECIMAL"):
        return "number", "float" if guess.kind == "FLOAT" else "double"
    if guess.kind in TIMESTAMPS:
        return "timestamp", "timestamp"
    kinds = {"VARCHAR": ("string", "string"), "BOOLEAN": ("boolean", "boolean"), "DATE": ("date", "date")}
    kinds['"NULL"'] = ("string", "string")
    if guess.kind not in kinds:
        raise MlopsError(
            f"{path} has a column that a contract cannot hold: expected text, numbers, booleans, dates or timestamps, "
            f"found {guess.name!r} of type {guess.kind}",
            fix="flatten it into several columns",
        )
    return kinds[guess.kind]


def _property(guess: Guess, path: Path, rows: int, *, is_key: bool) -> dict[str, Any]:
    logical, physical = _kind_of(guess, path)
    found: dict[str, Any] = {"name": guess.name, "logicalType": logical, "physicalType": physical}
    found["description"] = "TODO"
    if guess.nulls == 0:
        found["required"] = True
    if is_key:
        found |= {"primaryKey": True, "primaryKeyPosition": 1}
    personal = PERSONAL_NAMES.search(guess.name) is not None
    if personal:
        found["classification"] = "restricted"
    if guess.levels and not is_key and not personal:
        found["quality"] = [{"metric": "invalidValues", "arguments": {"validValues": [*guess.levels]}, "mustBe": 0}]
    return found
