"""Read landing files: untrusted CSV, JSON Lines or Parquet, up to 4 GiB.

A file whose columns are not those of the contract is rejected as a whole: which of its rows are right would be a guess.
A problem in one row only affects that row, and is left to the checks.

Text files (CSV, JSON Lines) are first streamed into a Parquet file of text. The checks then read one format, and can
quote the original text of a value.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pipelines.data.batch import PROBLEMS, ROW, Batch, LandingFileError, reason
from pipelines.data.query_engine import NO_DOWNLOADS
from pipelines.declarations.contract import Contract
from pipelines.declarations.printable import shorten

SUFFIXES = (".csv", ".jsonl", ".parquet")

LARGEST_FILE = 4 << 30
"""Size limit of a landing file, in bytes."""

LONGEST_LINE = 1 << 20
"""Size limit of a line of a text file, in characters (bytes for JSON Lines)."""

LONGEST_VALUE = 128 << 10
"""Size limit of a value of a CSV file, in characters."""

MOST_COLUMNS = 1_000
MOST_ROWS = 100_000_000

STAGED_ROWS = 16_384
STAGED_CHARACTERS = 16 << 20
"""Rows and characters of a text file that are held in memory at once; the latter may be exceeded by one row."""

LONGEST_RECORD = STAGED_CHARACTERS
"""Size limit of a row of a CSV file, in characters. Values with line breaks let a row have any number of lines."""

_SPLIT = "split it into several files"
_CORRECT = "correct the file, or change the contract in a pull request"


def check_size(file: str, size: int) -> None:
    """Reject a landing file that is too large to read.

    Args:
        file: name of the file.
        size: its size in bytes.

    Raises:
        LandingFileError: the file has more than `LARGEST_FILE` bytes.
    """
    if size > LARGEST_FILE:
        raise LandingFileError(file, f"at most {LARGEST_FILE} bytes", f"{size} bytes", _SPLIT)


def read_batch(path: Path, contract: Contract, scratch: Path, *, name: str | None = None) -> Batch:
    """Read a landing file as rows that can be checked.

    Args:
        path: the file; its suffix names the format.
        contract: names the columns that the file must have.
        scratch: existing folder for the staged text; the caller deletes it.
        name: name of the file in messages; the name of `path` by default.

    Raises:
        LandingFileError: the file is empty, too large or not in its format; or its columns are not the contract's.
    """
    file = name or path.name
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise LandingFileError(file, f"a file that ends in {', '.join(readers)}", repr(path.suffix or "no suffix"))
    size = path.stat().st_size
    if size == 0:
        raise LandingFileError(file, "rows", "an empty file")
    check_size(file, size)
    return reader(path, contract, scratch, file)


def compare_columns(file: str, found: list[str], contract: Contract) -> None:
    """Check that a file has the columns of its contract, in any order.

    Raises:
        LandingFileError: it has others.
    """
    expected = list(contract.columns)
    if len(found) > MOST_COLUMNS:
        raise LandingFileError(file, f"the {len(expected)} columns of the contract", f"{len(found)} columns")
    problems = []
    if duplicates := sorted({name for name in found if found.count(name) > 1}):
        problems.append(f"duplicate {_names(duplicates)}")
    if missing := [name for name in expected if name not in found]:
        problems.append(f"no {_names(missing)}")
    if extra := [name for name in found if name not in contract.columns]:
        problems.append(f"also {_names(extra)}")
    if problems:
        raise LandingFileError(
            file,
            f"the columns {', '.join(expected)}",
            "; ".join(problems),
            _CORRECT if duplicates or extra else _add(missing, contract),
        )


def _add(missing: list[str], contract: Contract) -> str:
    """Say what to do about missing columns: a column that is not required may be empty."""
    if any(contract.columns[name].required or contract.columns[name].primary_key for name in missing):
        return _CORRECT
    return f"add {_names(missing)} to the file, without values where they are not known"


def _names(names: list[str]) -> str:
    shown = ", ".join(shorten(repr(name), 60) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _read_csv(path: Path, contract: Contract, scratch: Path, file: str) -> Batch:
    """Read CSV (RFC 4180) in UTF-8 with a header. An empty field is a missing value."""
    kind = "CSV text in UTF-8 with a header"

    def records(rows: Iterator[list[str]], names: list[str]) -> Iterator[Record]:
        width = len(names)
        nothing = ("",) * width
        for fields in rows:
            lines.row_began = lines.read
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
            lines.row_began = 0
            names = next(reader, [])
            compare_columns(file, names, contract)
            return _stage(records(reader, names), lines, names, scratch, empty_is_null=True)
        except UnicodeDecodeError:
            raise LandingFileError(file, kind, f"bytes that are not UTF-8 after line {reader.line_num}") from None
        except csv.Error as error:
            raise LandingFileError(file, kind, f"in line {reader.line_num}: {error}") from None


def _read_json_lines(path: Path, contract: Contract, scratch: Path, file: str) -> Batch:
    """Read JSON Lines in UTF-8, one object a line. An absent key is a missing value.

    A quoted number is text in JSON. Its quotes stay in the staged text, so the type check rejects it.
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
                    raise LandingFileError(file, "JSON Lines: one object a line", found) from None
                done += 1
                found = f"{error}: {line[:200].decode(errors='replace')}"
                yield (None,) * len(names), [reason("", "format", "a JSON object", found)]
                continue
            if extra := [key for key in texts if key not in kinds]:
                columns = f"the columns {', '.join(names)}"
                raise LandingFileError(file, columns, f"also {_names(extra)} in line {lines.number}", _CORRECT)
            seen.update(texts)
            done += 1
            unquoted = [
                key for key, value in texts.items() if kinds[key] == "string" and value[0] != '"' and value != "null"
            ]
            problems = [reason(key, "type", "text in quotes", texts[key]) for key in unquoted]
            yield [values.get(name) for name in names], problems or None

    with path.open("rb") as source:
        lines = _Lines(source, file)
        batch = _stage(records(lines), lines, names, scratch, empty_is_null=False)
    if batch.rows and (missing := [name for name in names if name not in seen]):
        found = f"no {_names(missing)} in any line"
        raise LandingFileError(file, f"the columns {', '.join(names)}", found, _add(missing, contract))
    return batch


def _json_text(value: str, logical_type: str) -> str | None:
    import msgspec

    if value == "null":
        return None
    if value.startswith('"') and logical_type in ("string", "date", "timestamp"):
        return msgspec.json.decode(value, type=str)
    return value


class _Lines:
    """Lines of a text file, with a limit on their length.

    Attributes:
        read: characters (or bytes) read so far.
        number: number of the last line, from 1.
        row_began: characters read before the row that is being read; the reader of rows sets it.
    """

    def __init__(self, source: IO[Any], file: str) -> None:
        self.source = source
        self.file = file
        self.read = 0
        self.number = 0
        self.row_began: int | None = None

    def __iter__(self) -> Iterator[Any]:
        zero: str | bytes | None = None
        while line := self.source.readline(LONGEST_LINE + 1):
            self.number += 1
            self.read += len(line)
            if zero is None:
                zero = "\0" if isinstance(line, str) else b"\0"
            if len(line) > LONGEST_LINE:
                longer = f"a longer one, line {self.number}"
                raise LandingFileError(self.file, f"lines of at most {LONGEST_LINE} characters", longer)
            if self.row_began is not None and self.read - self.row_began > LONGEST_RECORD:
                longer = f"a longer one, up to line {self.number}"
                raise LandingFileError(self.file, f"rows of at most {LONGEST_RECORD} characters", longer)
            if zero in line:
                raise LandingFileError(self.file, "text", f"a binary file: a zero byte in line {self.number}")
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
        raise LandingFileError(file, "a Parquet file", shorten(str(error).splitlines()[0])) from None
    compare_columns(file, names, contract)
    if rows > MOST_ROWS:
        raise LandingFileError(file, f"at most {MOST_ROWS} rows", f"{rows} rows", _SPLIT)
    try:
        with duckdb.connect(config=NO_DOWNLOADS) as connection:
            described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
    except duckdb.Error as error:
        raise LandingFileError(file, "a Parquet file", shorten(str(error).splitlines()[0])) from None
    return Batch(file, path, {name: kind for name, kind, *_ in described}, text=False, rows=rows)


Record = tuple[Sequence[str | None], list[dict[str, str]] | None]
"""The text of a row's values, and its problems, if any."""


def _stage(records: Iterator[Record], lines: _Lines, names: list[str], scratch: Path, *, empty_is_null: bool) -> Batch:
    """Stream records into a Parquet file of text."""
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
            if empty_is_null:
                columns = [pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column) for column in columns]
            numbers = pa.array(range(total + 1, total + len(pending) + 1), pa.int64())
            problems = pa.array([problems for _, problems in pending], problems_type)
            writer.write_batch(pa.RecordBatch.from_arrays([numbers, *columns, problems], schema=schema))
            total += len(pending)
            if total > MOST_ROWS:
                raise LandingFileError(lines.file, f"at most {MOST_ROWS} rows", "more", _SPLIT)
    return Batch(lines.file, path, dict.fromkeys(names, "VARCHAR"), text=True, rows=total)


def _parts(records: Iterator[Record], lines: _Lines) -> Iterator[list[Record]]:
    """Group records into lists of bounded size."""
    pending: list[Record] = []
    before = 0
    for record in records:
        pending.append(record)
        if len(pending) == STAGED_ROWS or lines.read - before > STAGED_CHARACTERS:
            yield pending
            pending, before = [], lines.read
    if pending:
        yield pending
