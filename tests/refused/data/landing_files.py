"""Landing files that must be rejected, or whose bad rows must be quarantined: a table, and the bytes of each file.

The contract is `CONTRACT`. A file is either rejected as a whole, with words that name what is wrong, or its rows are
split: `bad` lists the numbers of the rows in quarantine, and every other row is good.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.declarations.contract import Contract
from tests.pipelines.data.contracts import column, contract

CONTRACT: Contract = contract(
    column("age", "integer", physicalType="int", minimum=0, maximum=120),
    column("size", "number"),
    column("name", "string", maxLength=20),
    column("seen", "date", minimum="1900-01-01"),
    column("at", "timestamp"),
    column("ok", "boolean"),
)
HEADER = "id,age,size,name,seen,at,ok"
GOOD = "1,20,1.5,ann,2026-01-31,2026-01-31T12:00:00Z,true"
MANY = 60_000


ANY = (-1,)


class Case(NamedTuple):
    """A landing file.

    Attributes:
        name: what is wrong; the file's suffix follows the last dot.
        content: its bytes, or a function that makes them.
        words: part of the reason why it is rejected; "" if it is not.
        bad: numbers of the rows in quarantine; `ANY` if the file may also be rejected.
    """

    name: str
    content: bytes | Callable[[], bytes]
    words: str = ""
    bad: tuple[int, ...] = ()

    def make(self) -> bytes:
        """Return the bytes of the file."""
        return self.content if isinstance(self.content, bytes) else self.content()


def _csv(*rows: str, header: str = HEADER, end: str = "\n") -> bytes:
    return (end.join((header, *rows)) + end).encode()


def _row(number: int, **fields: str) -> str:
    values = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | {"id": str(number)} | fields
    return ",".join(values.values())


def _lines(*rows: dict[str, Any] | str) -> bytes:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


def _object(number: int, **fields: Any) -> dict[str, Any]:
    good: dict[str, Any] = dict(zip(HEADER.split(","), GOOD.split(","), strict=True))
    return {**good, "id": number, "age": 20, "size": 1.5, "ok": True, **fields}


ARRAYS: dict[str, Any] = {
    "id": pa.array([1, 2], pa.int64()),
    "age": pa.array([20, 30], pa.int32()),
    "size": pa.array([1.5, 2.5], pa.float64()),
    "name": pa.array(["ann", "bob"]),
    "seen": pa.array([0, 1], pa.int32()).cast(pa.date32()),
    "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
    "ok": pa.array([True, False]),
}


def _parquet(order: Sequence[str] = (), drop: Sequence[str] = (), **replaced: Any) -> bytes:
    arrays = {name: array for name, array in (ARRAYS | replaced).items() if name not in drop}
    sink = io.BytesIO()
    pq.write_table(pa.table({name: arrays[name] for name in order or arrays}), sink)
    return sink.getvalue()


def _twice(name: str) -> bytes:
    names = [*ARRAYS, name]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([ARRAYS[each] for each in names], names=names), sink)
    return sink.getvalue()


def _bomb(rows: int = MANY) -> bytes:
    """Return a small Parquet file that unpacks to long texts in very many rows."""
    sink = io.BytesIO()
    text = pa.array(["x" * 1000] * 1000)
    parts = {name: pa.concat_arrays([array[:1]] * 1000) for name, array in ARRAYS.items()} | {"name": text}
    table = pa.table(parts)
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        for _ in range(rows // 1000 // 30):
            writer.write_table(pa.concat_tables([table] * 30))
    return sink.getvalue()


def _damaged(start: int, length: int) -> bytes:
    content = bytearray(_parquet())
    at = start if start >= 0 else len(content) + start
    content[at : at + length] = b"\xff" * length
    return bytes(content)


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.csv", _csv(GOOD))
    return sink.getvalue()


def _dates(*days: int) -> Any:
    return pa.array(list(days), pa.int32()).cast(pa.date32())


def _times(*moments: int, unit: str = "us") -> Any:
    return pa.array(list(moments), pa.int64()).cast(pa.timestamp(unit))


NOT_UTF8, NOT_CSV, COLUMNS = "not UTF-8", "CSV text in UTF-8", "the columns"


def encodings() -> Iterator[Case]:
    """Encodings, byte order marks and invisible characters."""
    text = _csv(_row(1, name="Zoë")).decode()
    yield Case("latin-1.csv", text.encode("latin-1"), NOT_UTF8)
    yield Case("windows-1252 quotes.csv", _csv(_row(1, name="@")).replace(b"@", b"\x93a\x94"), NOT_UTF8)
    yield Case("utf-16 with mark.csv", text.encode("utf-16"), NOT_CSV)
    yield Case("utf-16-le.csv", text.encode("utf-16-le"), NOT_UTF8)
    yield Case("utf-32.csv", text.encode("utf-32"), NOT_CSV)
    yield Case("ebcdic.csv", text.encode("cp037", "replace"), NOT_CSV)
    yield Case("lone surrogate.csv", _csv(_row(1, name="@")).replace(b"@", b"\xed\xa0\x80"), NOT_UTF8)
    yield Case("overlong slash.csv", _csv(_row(1, name="@")).replace(b"@", b"\xc0\xaf"), NOT_UTF8)
    yield Case("cut character.csv", _csv(_row(1, name="é"))[:-40] + b"\xc3", NOT_CSV)
    yield Case("utf-8 with mark.csv", b"\xef\xbb\xbf" + _csv(GOOD))
    yield Case("two marks.csv", b"\xef\xbb\xbf\xef\xbb\xbf" + _csv(GOOD), COLUMNS)
    yield Case("mark in a value.csv", _csv(_row(1, name="\ufeffann")))
    yield Case("right to left.csv", _csv(_row(1, name="\u202etxt.exe")))
    yield Case("zero width header.csv", _csv(GOOD, header=HEADER.replace("age", "a\u200bge")), COLUMNS)
    yield Case("look-alike header.csv", _csv(GOOD, header=HEADER.replace("age", "аge")), COLUMNS)
    yield Case("full-width digits.csv", _csv(GOOD, _row(2, age="２０")), bad=(2,))
    yield Case("arabic digits.csv", _csv(GOOD, _row(2, age="٢٠")), bad=(2,))
    yield Case("no-break space.csv", _csv(GOOD, _row(2, age="20\u00a0")), bad=(2,))
    yield Case("latin-1.jsonl", json.dumps(_object(1, name="Zoë"), ensure_ascii=False).encode("latin-1"), "JSON Lines")
    yield Case("mark.jsonl", b"\xef\xbb\xbf" + _lines(_object(1)))
    yield Case("utf-16.jsonl", _lines(_object(1)).decode().encode("utf-16"), "zero byte")
    yield Case(
        "escaped surrogate.jsonl", _lines(_object(1), json.dumps(_object(2)).replace("ann", "\\ud800")), bad=(2,)
    )


def layouts() -> Iterator[Case]:
    """Line ends, delimiters, quotes, headers and columns."""
    yield Case("line ends of windows.csv", _csv(GOOD, _row(2), end="\r\n"))
    yield Case("line ends of old macs.csv", _csv(GOOD, _row(2), end="\r"))
    yield Case("mixed line ends.csv", (HEADER + "\r\n" + GOOD + "\n" + _row(2) + "\r\n").encode())
    yield Case("no last line end.csv", _csv(GOOD)[:-1])
    yield Case("blank lines.csv", _csv("", GOOD, "", _row(2), ""))
    yield Case("line end in quotes.csv", _csv(GOOD, _row(2, name='"a\nb"')))
    yield Case("unclosed quote.csv", _csv(GOOD, _row(2, name='"ann')), NOT_CSV)
    yield Case("text after quote.csv", _csv(GOOD, _row(2, name='"a"b')), NOT_CSV)
    yield Case("semicolons.csv", _csv(GOOD).replace(b",", b";"), COLUMNS)
    yield Case("tabs.csv", _csv(GOOD).replace(b",", b"\t"), COLUMNS)
    yield Case("pipes.csv", _csv(GOOD).replace(b",", b"|"), COLUMNS)
    yield Case("spaces after commas.csv", _csv(GOOD, header=HEADER.replace(",", ", ")), COLUMNS)
    yield Case("decimal comma.csv", _csv(GOOD, _row(2, size='"1,5"')), bad=(2,))
    yield Case("unquoted comma.csv", _csv(GOOD, _row(2, name="a,b")), bad=(2,))
    yield Case("too few fields.csv", _csv(GOOD, "2,20"), bad=(2,))
    yield Case("trailing comma.csv", _csv(GOOD, _row(2) + ","), bad=(2,))
    yield Case("no header.csv", _csv(GOOD, header=_row(9)), COLUMNS)
    yield Case("only a header.csv", _csv())
    yield Case("only a line end.csv", b"\n", COLUMNS)
    yield Case("empty.csv", b"", "an empty file")
    yield Case("duplicate column.csv", _csv(GOOD + ",1", header=HEADER + ",age"), "duplicate 'age'")
    yield Case("missing column.csv", _csv("1,20", header="id,age"), "no 'size'")
    yield Case("further column.csv", _csv(GOOD + ",x", header=HEADER + ",note"), "also 'note'")
    yield Case("upper case columns.csv", _csv(GOOD, header=HEADER.upper()), COLUMNS)
    yield Case("5000 columns.csv", _csv(header=",".join(f"c{n}" for n in range(5000))), "5000 columns")
    yield Case(
        "reordered columns.csv",
        _csv("true,1,20,1.5,ann,2026-01-31,2026-01-31T12:00:00Z", header="ok,id,age,size,name,seen,at"),
    )
    yield Case("array.jsonl", json.dumps([_object(1)]).encode(), "JSON Lines")
    yield Case("pretty.jsonl", json.dumps(_object(1), indent=2).encode(), "JSON Lines")
    yield Case(
        "two objects a line.jsonl", _lines(_object(1), json.dumps(_object(2)) + json.dumps(_object(3))), bad=(2,)
    )
    yield Case("cut.jsonl", _lines(_object(1), _object(2))[:-30], bad=(2,))
    yield Case("scalar.jsonl", _lines(_object(1), "5"), bad=(2,))
    yield Case("nothing.jsonl", b"\n\n", "")
    yield Case("further key.jsonl", _lines({**_object(1), "note": 1}), "also 'note'")
    yield Case("nested.jsonl", b"[" * 100_000, "JSON Lines")
    yield Case("duplicate key.jsonl", _lines(_object(1), json.dumps(_object(2))[:-1] + ', "age": 500}'), bad=(2,))
    yield Case("list value.jsonl", _lines(_object(1), _object(2, age=[1])), bad=(2,))
    yield Case("object value.jsonl", _lines(_object(1), _object(2, name={"a": 1})), bad=(2,))
    yield Case("quoted number.jsonl", _lines(_object(1), _object(2, age="20")), bad=(2,))
    yield Case("number as text.jsonl", _lines(_object(1), _object(2, name=5)), bad=(2,))
    yield Case("not a number.jsonl", _lines(_object(1), json.dumps(_object(2)).replace("1.5", "NaN")), bad=(2,))
    yield Case("missing key.jsonl", _lines(_object(1), {k: v for k, v in _object(2).items() if k != "age"}))
    yield Case("csv.jsonl", _csv(GOOD), "JSON Lines")
    yield Case("html.csv", b"<!doctype html><html><body>Sign in</body></html>\n", COLUMNS)
    yield Case("error of s3.csv", b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>\n", COLUMNS)


def values() -> Iterator[Case]:
    """Numbers, dates and texts beyond what their types hold."""
    for name, fields in {
        "int32 overflow": {"age": "2147483648"},
        "int64 overflow": {"id": "9223372036854775808"},
        "40 digits": {"age": "1" * 40},
        "negative": {"age": "-1"},
        "exponent of an integer": {"age": "2e1"},
        "hexadecimal": {"age": "0x14"},
        "underscore": {"age": "2_0"},
        "thousands separator": {"size": '"1,000.5"'},
        "space": {"age": " 20"},
        "infinity": {"size": "inf"},
        "overflow to infinity": {"size": "1e999"},
        "nan": {"size": "NaN"},
        "null as a word": {"age": "NULL"},
        "n/a": {"size": "n/a"},
        "30 february": {"seen": "2026-02-30"},
        "month 13": {"seen": "2026-13-01"},
        "year 0": {"seen": "0000-01-01"},
        "year 10000": {"seen": "10000-01-01"},
        "before the bound": {"seen": "1899-12-31"},
        "american date": {"seen": "01/31/2026"},
        "two-digit year": {"seen": "26-01-31"},
        "day 0": {"seen": "2026-01-00"},
        "infinite date": {"seen": "infinity"},
        "epoch seconds": {"at": "1767225600"},
        "hour 25": {"at": "2026-01-01T25:00:00Z"},
        "leap second": {"at": "2026-06-30T23:59:60Z"},
        "offset +15:00": {"at": "2026-01-01T00:00:00+15:00"},
        "nanoseconds": {"at": "2026-01-01T00:00:00.123456789Z"},
        "named zone": {"at": "2026-01-01T00:00:00 Europe/Berlin"},
        "yes": {"ok": "yes"},
        "too long": {"name": "x" * 21},
        "2 as truth": {"ok": "2"},
        "no key": {"id": ""},
        "repeated key": {"id": "1"},
        "formula in a number": {"size": "=1+1"},
    }.items():
        yield Case(f"{name}.csv", _csv(GOOD, _row(2, **fields)), bad=(2,))
    yield Case("formula in a text.csv", _csv(GOOD, _row(2, name="=cmd|' /C calc'!A0")))
    yield Case("sql in a text.csv", _csv(GOOD, _row(2, name="'; DROP TABLE --")))
    yield Case("path in a text.csv", _csv(GOOD, _row(2, name="../../etc/passwd")))
    yield Case("null in a text.csv", _csv(GOOD, _row(2, name="a@b")).replace(b"@", b"\0"), "zero byte")
    yield Case("control characters.csv", _csv(GOOD, _row(2, name="a\x1b[31mb")))
    yield Case("huge field.csv", lambda: _csv(GOOD, _row(2, name="x" * (200 << 10))), NOT_CSV)
    yield Case("huge line.csv", lambda: _csv(GOOD, "x" * (2 << 20)), "lines of at most")
    yield Case("huge line.jsonl", lambda: _lines(_object(1), _object(2, name="x" * (2 << 20))), "lines of at most")
    yield Case("huge number.csv", lambda: _csv(GOOD, _row(2, age="9" * 100_000)), bad=(2,))
    yield Case(
        "huge number.jsonl", lambda: _lines(_object(1), json.dumps(_object(2)).replace("20", "9" * 5000, 1)), bad=(2,)
    )


def columnar() -> Iterator[Case]:
    """Parquet files: damaged, with other types, or with values that the contract's types do not hold."""
    whole = _parquet()
    yield Case("only the magic.parquet", b"PAR1PAR1", "a Parquet file")
    yield Case("first half.parquet", whole[: len(whole) // 2], "a Parquet file")
    yield Case("without the last byte.parquet", whole[:-1], "a Parquet file")
    yield Case("without the first bytes.parquet", whole[100:], "rejected")
    yield Case("damaged footer.parquet", _damaged(-60, 40), "a Parquet file")
    yield Case("damaged pages.parquet", _damaged(4, 60), "rejected")
    yield Case("negative footer length.parquet", whole[:-8] + b"\xff\xff\xff\xff" + b"PAR1", "a Parquet file")
    yield Case("encrypted magic.parquet", whole[:-4] + b"PARE", "a Parquet file")
    yield Case("csv.parquet", _csv(GOOD), "a Parquet file")
    yield Case("empty.parquet", b"", "an empty file")
    yield Case("parquet.csv", whole, "rejected")
    yield Case("duplicate column.parquet", _twice("age"), "duplicate 'age'")
    yield Case("missing column.parquet", _parquet(drop=["ok"]), "no 'ok'")
    yield Case("text instead of numbers.parquet", _parquet(age=pa.array(["20", "30"])), "age of type VARCHAR")
    yield Case("lists.parquet", _parquet(age=pa.array([[1], [2]])), "age of type")
    yield Case("structs.parquet", _parquet(name=pa.array([{"a": 1}, {"a": 2}])), "name of type")
    yield Case("bytes.parquet", _parquet(name=pa.array([b"\xff", b"\xfe"])), "name of type BLOB")
    yield Case("times of day.parquet", _parquet(at=pa.array([1, 2], pa.time64("us"))), "at of type TIME")
    yield Case("dates as numbers.parquet", _parquet(seen=pa.array([1, 2])), "seen of type BIGINT")
    yield Case("unsigned overflow.parquet", _parquet(id=pa.array([1, 2**64 - 1], pa.uint64())), bad=(2,))
    yield Case("int64 in int32.parquet", _parquet(age=pa.array([20, 2**31])), bad=(2,))
    yield Case("fractions in integers.parquet", _parquet(age=pa.array([20.0, 20.5])), bad=(2,))
    yield Case("nan.parquet", _parquet(size=pa.array([1.0, float("nan")])), bad=(2,))
    yield Case("infinity.parquet", _parquet(size=pa.array([1.0, float("-inf")])), bad=(2,))
    yield Case("far future.parquet", _parquet(seen=_dates(1, 2_932_897)), bad=(2,))
    yield Case("far past.parquet", _parquet(seen=_dates(1, -719_529)), bad=(2,))
    yield Case("greatest date.parquet", _parquet(seen=_dates(1, 2**31 - 1)), bad=(2,))
    yield Case("greatest timestamp.parquet", _parquet(at=_times(1, 2**63 - 1)), bad=(2,))
    yield Case("seconds beyond.parquet", _parquet(at=_times(1, 2**40, unit="s")), bad=(2,))
    yield Case("nanoseconds.parquet", _parquet(at=_times(1000, 1001, unit="ns")), bad=(2,))
    yield Case("nulls in the key.parquet", _parquet(id=pa.array([1, None], pa.int64())), bad=(2,))
    yield Case("all null.parquet", _parquet(name=pa.nulls(2)))
    yield Case("no rows.parquet", _parquet(**{name: array[:0] for name, array in ARRAYS.items()}))
    yield Case("dictionary.parquet", _parquet(name=pa.array(["a", "b"]).dictionary_encode()))
    yield Case("reordered.parquet", _parquet(order=sorted(ARRAYS)))


def bombs() -> Iterator[Case]:
    """Files that unpack to much more than their size, and archives."""
    yield Case("gzip.csv", gzip.compress(_csv(GOOD)), NOT_CSV)
    yield Case("gzip bomb.csv", lambda: gzip.compress(bytes(50 << 20)), "rejected")
    yield Case("zip.csv", _zip(), "rejected")
    yield Case("deflate.jsonl", zlib.compress(_lines(_object(1))), "a binary file")
    yield Case("zstd bomb.parquet", _bomb, bad=ANY)


def cases() -> list[Case]:
    """Return every file."""
    return [case for kind in (encodings, layouts, values, columnar, bombs) for case in kind()]
