from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import reading
from pipelines.data.batch import LandingFileError
from pipelines.data.reading import read_batch
from tests.pipelines.data.contracts import column, contract

CONTRACT = contract(column("age", "integer"), column("name", "string"))
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00"


def rejection(tmp_path: Path, name: str, content: bytes) -> LandingFileError:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(LandingFileError) as caught:
        read_batch(path, CONTRACT, tmp_path)
    return caught.value


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl", "b.parquet"])
def test_an_empty_file_is_rejected(tmp_path: Path, name: str) -> None:
    assert rejection(tmp_path, name, b"").found == "an empty file"


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl", "b.parquet"])
def test_a_binary_file_is_rejected_whatever_its_suffix(tmp_path: Path, name: str) -> None:
    assert name in str(rejection(tmp_path, name, PNG))


def test_an_unknown_suffix_is_rejected_and_the_known_ones_are_listed(tmp_path: Path) -> None:
    assert ".csv, .jsonl, .parquet" in rejection(tmp_path, "b.xlsx", b"PK").expected


def test_a_truncated_parquet_file_is_rejected(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"id": [1, 2], "age": [3, 4], "name": ["a", "b"]}), whole)
    assert rejection(tmp_path, "b.parquet", whole.read_bytes()[:-20]).expected == "a Parquet file"


@pytest.mark.parametrize(
    ("name", "content"),
    [("b.csv", b"id,age\n1,2\n"), ("b.jsonl", b'{"id": 1, "age": 2}\n')],
)
def test_a_file_without_a_column_of_the_contract_is_rejected(tmp_path: Path, name: str, content: bytes) -> None:
    assert "no 'name'" in rejection(tmp_path, name, content).found


@pytest.mark.parametrize(
    ("name", "content"),
    [("b.csv", b"id,age,name,ssn\n1,2,x,9\n"), ("b.jsonl", b'{"id":1,"age":2,"name":"x","ssn":9}\n')],
)
def test_a_file_with_an_unknown_column_is_rejected(tmp_path: Path, name: str, content: bytes) -> None:
    assert "also 'ssn'" in rejection(tmp_path, name, content).found


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        (b"id,age\n1,2\n", "add 'name' to the file, without values where they are not known"),
        (b"age,name\n1,a\n", "correct the file, or change the contract in a pull request"),
        (b"id,age,size\n1,2,3\n", "correct the file, or change the contract in a pull request"),
    ],
    ids=["optional", "key", "renamed"],
)
def test_only_a_column_that_may_be_empty_is_to_be_added(tmp_path: Path, content: bytes, fix: str) -> None:
    assert rejection(tmp_path, "b.csv", content).fix == fix


def test_the_error_lists_both_missing_and_unknown_columns(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"id": [1], "Age": [2], "name": ["x"]}), path)
    with pytest.raises(LandingFileError, match="no 'age'; also 'Age'"):
        read_batch(path, CONTRACT, tmp_path)


def test_a_duplicate_column_in_the_header_is_rejected(tmp_path: Path) -> None:
    assert "duplicate 'age'" in rejection(tmp_path, "b.csv", b"id,age,age,name\n1,2,3,x\n").found


@pytest.mark.parametrize(
    "body",
    [b'1,2,"left open\n3,4,x\n', b'1,2,"a"b\n', b"1,2,\xff\n", b"1,2,\x00\n"],
    ids=["open quote", "text after a quote", "not UTF-8", "zero byte"],
)
def test_a_malformed_csv_file_is_rejected_with_the_line(tmp_path: Path, body: bytes) -> None:
    assert "line" in rejection(tmp_path, "b.csv", b"id,age,name\n" + body).found


@pytest.mark.parametrize("name", ["b.csv", "b.jsonl"])
def test_a_line_longer_than_the_limit_is_rejected(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 1000)
    assert "a longer one, line 1" in rejection(tmp_path, name, b"x" * 1001).found


@pytest.mark.parametrize("header", [b"id,age,name\n1,2,x\n", b""], ids=["row", "header"])
def test_a_row_of_many_lines_longer_than_the_limit_is_rejected(
    tmp_path: Path, header: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its lines and values is short, so only the row as a whole can fill the memory."""
    monkeypatch.setattr(reading, "LONGEST_RECORD", 1000)
    found = rejection(tmp_path, "b.csv", header + b'"x\ny",' * 400 + b"z\n").found
    assert re.fullmatch(r"a longer one, up to line \d{3}", found)


def test_many_rows_together_may_be_longer_than_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_RECORD", 100)
    (tmp_path / "b.csv").write_text("id,age,name\n" + '1,2,"x\ny"\n' * 400)
    assert read_batch(tmp_path / "b.csv", CONTRACT, tmp_path).rows == 400


def test_a_file_larger_than_the_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_FILE", 10)
    assert rejection(tmp_path, "b.csv", b"id,age,name\n").expected == "at most 10 bytes"


def test_deeply_nested_json_is_rejected(tmp_path: Path) -> None:
    assert "one object a line" in rejection(tmp_path, "b.jsonl", b"[" * 100_000).expected


def test_staged_text_keeps_the_row_numbers_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text('\ufeffname,id,age\n"two\nlines",1,\n\nx,2\n"a ""b""",3,4\n', encoding="utf-8")
    batch = read_batch(path, CONTRACT, tmp_path)
    rows = pq.read_table(batch.path).to_pylist()
    assert [(row["_row"], row["name"], row["id"], row["age"]) for row in rows] == [
        (1, "two\nlines", "1", None),
        (2, None, None, None),
        (3, 'a "b"', "3", "4"),
    ]
    problem = {"column": "", "rule": "format", "expected": "3 fields", "found": "2 fields: x,2"}
    assert rows[1]["_problems"] == [problem]


def test_a_text_file_is_staged_in_small_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "STAGED_ROWS", 10)
    path = tmp_path / "b.csv"
    path.write_text("id,age,name\n" + "".join(f"{n},{n},x\n" for n in range(95)))
    batch = read_batch(path, CONTRACT, tmp_path)
    parts = pq.ParquetFile(batch.path)
    assert (batch.rows, parts.num_row_groups) == (95, 10)
    assert parts.read(["_row"])["_row"].to_pylist() == list(range(1, 96))


def test_a_small_file_with_too_many_rows_is_rejected_by_its_footer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_ROWS", 99)
    pq.write_table(pa.table({"id": [1] * 100}), tmp_path / "a.parquet")
    with pytest.raises(LandingFileError, match="expected at most 99 rows, found 100 rows"):
        read_batch(tmp_path / "a.parquet", contract(), tmp_path)
