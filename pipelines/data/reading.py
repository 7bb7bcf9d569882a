"""Read a landing file: untrusted, of a kind that its name claims, and of any size up to a limit.

A file that cannot be told apart into rows with the contract's columns is refused as a whole, because which of its rows
are right would be a guess. What is wrong with one row is that row's problem, and left to the checks.

Text files (CSV, JSON Lines) are first written, as a stream, to a Parquet file of text, so that the checks see one kind
of file and can name the text that they found.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError

SUFFIXES = (".csv", ".jsonl", ".parquet")

LARGEST_FILE = 4 << 30
"""Bytes. A larger batch is better cut into several: each is committed on its own."""

LONGEST_LINE = 1 << 20
"""Bytes or characters of one line of a text file."""

LONGEST_VALUE = 128 << 10
"""Characters of one value of a text file."""

MOST_COLUMNS = 1_000
MOST_ROWS = 1_000_000_000

ROWS_AT_ONCE = 16_384
LONGEST_PART = 16 << 20
"""Characters of a text file that are held at once, besides one line."""

ROW = "_row"
"""The number of the row in the file, from 1; a CSV file's header is not counted. No column of a contract starts with
an underscore."""

PROBLEMS = "_problems"
"""What is wrong with a row before its values are looked at: a list of reasons."""


class Refused(MlopsError):  # noqa: N818 - it is a verdict on a file, and named as people read it
    """A landing file that is refused as a whole: none of its rows is read.

    Args:
        file: the file's name.
        expected: what a file should be like.
        found: what it is like.
        fix: what to do.
    """

    def __init__(self, file: str, expected: str, found: str, fix: str = "") -> None:
        self.file = file
        self.expected = expected
        self.found = found
        super().__init__(f"{file} is refused: expected {expected}, found {found}", fix=fix)


@dataclass(frozen=True)
class Batch:
    """A landing file whose rows can be checked.

    Attributes:
        file: the landing file's name, for messages.
        path: a Parquet file: the landing file itself, or the text of its values.
        columns: name → DuckDB's type of it in `path`.
        text: whether `path` holds text with `_row` and `_problems`, made from a text file.
        rows: how many rows there are, good or bad.
    """

    file: str
    path: Path
    columns: dict[str, str]
    text: bool
    rows: int


def read_batch(path: Path, contract: Contract, scratch: Path, *, name: str | None = None) -> Batch:
    """Read a landing file as rows that can be checked.

    Args:
        path: the file; its suffix says of what kind it claims to be.
        contract: names the columns it must have.
        scratch: an existing folder for the text of a text file; emptied by the caller.
        name: what to call the file in messages.

    Raises:
        Refused: the file is not what it claims to be, or lacks a column, or has one too many, or is too large.
    """
    file = name or path.name
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise Refused(file, f"a file that ends in {', '.join(readers)}", repr(path.suffix or "no suffix"))
    size = path.stat().st_size
    if size == 0:
        raise Refused(file, "rows", "an empty file")
    if size > LARGEST_FILE:
        raise Refused(file, f"at most {LARGEST_FILE} bytes", f"{size} bytes", "cut it into several files")
    return reader(path, contract, scratch, file)


def _compare_columns(file: str, found: list[str], contract: Contract) -> None:
    expected = list(contract.columns)
    if len(found) > MOST_COLUMNS:
        raise Refused(file, f"the {len(expected)} columns of the contract", f"{len(found)} columns")
    problems = []
    if twice := sorted({name for name in found if found.count(name) > 1}):
        problems.append(f"twice {_names(twice)}")
    if missing := [name for name in expected if name not in found]:
        problems.append(f"no {_names(missing)}")
    if extra := [name for name in found if name not in contract.columns]:
        problems.append(f"also {_names(extra)}")
    if problems:
        raise Refused(
            file,
            f"the columns {', '.join(expected)}",
            "; ".join(problems),
            "correct the file, or change the contract in a pull request",
        )


def _names(names: list[str]) -> str:
    shown = ", ".join(shorten(repr(name), 60) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def shorten(text: str, limit: int = 120) -> str:
    """`text`, cut to `limit` characters: messages quote what was found, and what was found may be huge."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _read_csv(path: Path, contract: Contract, scratch: Path, file: str) -> Batch:
    """RFC 4180, UTF-8, with a header. An empty field is no value."""
    kind = "CSV text in UTF-8 with a header"

    def records(rows: Iterator[list[str]], names: list[str]) -> Iterator[Record]:
        width = len(names)
        nothing = ("",) * width
        for fields in rows:
            if len(fields) == width:
                yield fields, None
            elif fields:
                found = f"{len(fields)} fields: {','.join(fields)}"
                yield nothing, [reason("", "format", f"{width} fields", found)]

    with path.open(encoding="utf-8-sig", newline="") as text:
        lines = _Lines(text, file)
        reader = csv.reader(lines, strict=True)
        try:
            csv.field_size_limit(LONGEST_VALUE)
            names = next(reader, [])
            _compare_columns(file, names, contract)
            return _stage(records(reader, names), lines, names, scratch, empty_is_nothing=True)
        except UnicodeDecodeError:
            raise Refused(file, kind, f"bytes that are not UTF-8 after line {reader.line_num}") from None
        except csv.Error as error:
            raise Refused(file, kind, f"in line {reader.line_num}: {error}") from None


def _read_json_lines(path: Path, contract: Contract, scratch: Path, file: str) -> Batch:
    """One JSON object a line, in UTF-8. A key that is not there is no value.

    JSON tells numbers from text, so a number in quotes is not a number here: its quotes stay in the text that is
    checked, and found.
    """
    import msgspec

    decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
    seen: set[str] = set()
    done = 0

    names = list(contract.columns)
    kinds = {name: column.logical_type for name, column in contract.columns.items()}

    def records(lines: _Lines) -> Iterator[Record]:
        nonlocal done
        for line in lines:
            if lines.number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                texts = {key: bytes(value).decode() for key, value in decode(line).items()}
                values = {key: _json_text(value, kinds.get(key, "string")) for key, value in texts.items()}
            except (ValueError, RecursionError) as error:
                if done == 0:
                    found = f"in line {lines.number}: {shorten(repr(line[:60]))}"
                    raise Refused(file, "JSON Lines: an object a line", found) from None
                done += 1
                found = f"{error}: {line[:200].decode(errors='replace')}"
                yield (None,) * len(names), [reason("", "format", "a JSON object", found)]
                continue
            if extra := [key for key in texts if key not in kinds]:
                columns = f"the columns {', '.join(names)}"
                fix = "correct the file, or change the contract in a pull request"
                raise Refused(file, columns, f"also {_names(extra)} in line {lines.number}", fix)
            seen.update(texts)
            done += 1
            unquoted = [
                key for key, value in texts.items() if kinds[key] == "string" and value[0] != '"' and value != "null"
            ]
            problems = [reason(key, "type", "text, in quotes", texts[key]) for key in unquoted]
            yield [values.get(name) for name in names], problems or None

    with path.open("rb") as source:
        lines = _Lines(source, file)
        batch = _stage(records(lines), lines, names, scratch, empty_is_nothing=False)
    if batch.rows and (missing := [name for name in names if name not in seen]):
        raise Refused(file, f"the columns {', '.join(names)}", f"no {_names(missing)} in any line")
    return batch


def _json_text(value: str, logical_type: str) -> str | None:
    import msgspec

    if value == "null":
        return None
    if value.startswith('"') and logical_type in ("string", "date", "timestamp"):
        return msgspec.json.decode(value, type=str)
    return value


class _Lines:
    """The lines of a text file, none of them so long that it fills the memory.

    Attributes:
        read: the characters, or bytes, so far.
        number: of the last line, from 1.
    """

    def __init__(self, source: IO[Any], file: str) -> None:
        self.source = source
        self.file = file
        self.read = 0
        self.number = 0

    def __iter__(self) -> Iterator[Any]:
        zero: str | bytes | None = None
        while line := self.source.readline(LONGEST_LINE + 1):
            self.number += 1
            self.read += len(line)
            if zero is None:
                zero = "\0" if isinstance(line, str) else b"\0"
            if len(line) > LONGEST_LINE:
                longer = f"a longer one, line {self.number}"
                raise Refused(self.file, f"lines of at most {LONGEST_LINE} characters", longer)
            if zero in line:
                raise Refused(self.file, "text", f"a zero byte in line {self.number}: a binary file")
            yield line


def _read_parquet(path: Path, contract: Contract, scratch: Path, file: str) -> Batch:
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            rows = parquet.metadata.num_rows
            names = list(parquet.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Refused(file, "a Parquet file", shorten(str(error).splitlines()[0])) from None
    _compare_columns(file, names, contract)
    if rows > MOST_ROWS:
        raise Refused(file, f"at most {MOST_ROWS} rows", f"{rows} rows", "cut it into several files")
    try:
        with duckdb.connect() as connection:
            described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    except duckdb.Error as error:
        raise Refused(file, "a Parquet file", shorten(str(error).splitlines()[0])) from None
    return Batch(file, path, {name: kind for name, kind, *_ in described}, text=False, rows=rows)


Record = tuple[Sequence[str | None], list[dict[str, str]] | None]
"""The text of a row's values, and what is wrong with it already."""


def reason(column: str, rule: str, expected: str, found: str) -> dict[str, str]:
    """Why a row is in quarantine: the column ("" for the row), the rule, what was expected and what was found."""
    return {"column": column, "rule": rule, "expected": expected, "found": shorten(found)}


def _stage(
    records: Iterator[Record], lines: _Lines, names: list[str], scratch: Path, *, empty_is_nothing: bool
) -> Batch:
    """Write records to a Parquet file of text, a bounded number at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    problems_type = pa.list_(pa.struct([(name, pa.string()) for name in ("column", "rule", "expected", "found")]))
    schema = pa.schema([(ROW, pa.int64()), *((name, pa.string()) for name in names), (PROBLEMS, problems_type)])
    path = scratch / "text.parquet"
    total = 0
    with pq.ParquetWriter(path, schema, use_dictionary=False, write_statistics=False) as writer:
        for pending in _parts(records, lines):
            columns = [pa.array(column, pa.string()) for column in zip(*(row for row, _ in pending), strict=True)]
            if empty_is_nothing:
                columns = [pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column) for column in columns]
            numbers = pa.array(range(total + 1, total + len(pending) + 1), pa.int64())
            problems = pa.array([problems for _, problems in pending], problems_type)
            writer.write_batch(pa.RecordBatch.from_arrays([numbers, *columns, problems], schema=schema))
            total += len(pending)
            if total > MOST_ROWS:
                raise Refused(lines.file, f"at most {MOST_ROWS} rows", "more", "cut it into several files")
    return Batch(lines.file, path, dict.fromkeys(names, "VARCHAR"), text=True, rows=total)


def _parts(records: Iterator[Record], lines: _Lines) -> Iterator[list[Record]]:
    """Records in lists that are short, both in rows and in characters."""
    pending: list[Record] = []
    before = 0
    for record in records:
        pending.append(record)
        if len(pending) == ROWS_AT_ONCE or lines.read - before > LONGEST_PART:
            yield pending
            pending, before = [], lines.read
    if pending:
        yield pending
