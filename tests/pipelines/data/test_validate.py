from __future__ import annotations

import csv
import io
import json
import math
import string
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.batch import LandingFileError
from pipelines.data.reading import read_batch
from pipelines.data.validate import Summary, validate
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.pipelines.data.contracts import column, contract
from tests.sample_project import PROJECT
from tools.bench import contract as bench

pytestmark = pytest.mark.slow

Reasons = dict[int, list[tuple[str, str, str]]]


def check(
    path: Path, declared: Contract, existing: pa.Table | None = None
) -> tuple[list[dict[str, Any]], Reasons, Summary]:
    """Return the good rows; row number → (column, rule, found) of the other rows; and the summary."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        batch = read_batch(path, declared, scratch)
        keys = None if existing is None else existing.to_reader()
        with validate(batch, declared, scratch, existing_keys=keys) as checked:
            checked.write_quarantine(scratch / "quarantine.parquet")
            bad = pq.read_table(scratch / "quarantine.parquet").to_pylist()
            good = checked.good_rows().read_all().to_pylist()
            reasons = {row["_row"]: [(r["column"], r["rule"], r["found"]) for r in row["_reasons"]] for row in bad}
            return good, reasons, checked.summary


def check_csv(tmp_path: Path, declared: Contract, *lines: str) -> tuple[list[dict[str, Any]], Reasons, Summary]:
    path = tmp_path / "batch.csv"
    path.write_text("\n".join((",".join(declared.columns), *lines)) + "\n", encoding="utf-8")
    return check(path, declared)


def check_parquet(tmp_path: Path, declared: Contract, **columns: Any) -> tuple[list[dict[str, Any]], Reasons, Summary]:
    path = tmp_path / "batch.parquet"
    pq.write_table(pa.table(columns), path)
    return check(path, declared)


@pytest.mark.parametrize(
    ("declared", "value", "rule"),
    [
        (column("x", "integer", required=True), "", "required"),
        (column("x", "integer"), "abc", "type"),
        (column("x", "integer"), "1.5", "type"),
        (column("x", "integer"), "1_000", "type"),
        (column("x", "integer"), " 5", "type"),
        (column("x", "integer"), "9223372036854775808", "type"),
        (column("x", "integer", physicalType="int"), "2147483648", "type"),
        (column("x", "number"), "1e999", "finite"),
        (column("x", "number"), "nan", "type"),
        (column("x", "number"), "0x10", "type"),
        (column("x", "boolean"), "yes", "type"),
        (column("x", "date"), "2026-02-30", "type"),
        (column("x", "date"), "01/02/2026", "type"),
        (column("x", "timestamp"), "2026-01-01", "type"),
        (column("x", "integer", minimum=3), "2", "minimum"),
        (column("x", "integer", maximum=3), "4", "maximum"),
        (column("x", "number", exclusiveMinimum=3), "3", "exclusiveMinimum"),
        (column("x", "number", exclusiveMaximum=3.5), "3.5", "exclusiveMaximum"),
        (column("x", "date", minimum="2026-01-01"), "2025-12-31", "minimum"),
        (column("x", "timestamp", maximum="2026-01-01T00:00:00Z"), "2026-01-01T01:00:00-00:30", "maximum"),
        (column("x", "string", minLength=2), "é", "minLength"),
        (column("x", "string", maxLength=2), "äöü", "maxLength"),
        (column("x", "string", pattern="[a-z]+"), "abc1", "pattern"),
        (column("x", "string", pattern="a|b"), "ab", "pattern"),
        (
            column(
                "x", "string", quality=[{"metric": "invalidValues", "arguments": {"validValues": ["a'b"]}, "mustBe": 0}]
            ),
            "ab",
            "invalidValues",
        ),
        (column("x", "string", quality=[{"metric": "nullValues", "mustBe": 0}]), "", "nullValues"),
    ],
)
def test_a_row_that_breaks_a_rule_is_quarantined_with_the_rule_and_the_value(
    tmp_path: Path, declared: dict[str, Any], value: str, rule: str
) -> None:
    good, reasons, summary = check_csv(tmp_path, contract(declared), f"1,{value}")
    assert reasons == {1: [("x", rule, value or "nothing")]}
    assert (good, summary.good, summary.quarantined) == ([], 0, 1)


@pytest.mark.parametrize(
    ("declared", "value", "kept"),
    [
        (column("x", "integer"), "-9223372036854775808", -(2**63)),
        (column("x", "integer"), "19.0", 19),
        (column("x", "integer", physicalType="int"), "2147483647", 2**31 - 1),
        (column("x", "number"), "-.5e3", -500.0),
        (column("x", "boolean"), "True", True),
        (column("x", "date"), "2024-02-29", date(2024, 2, 29)),
        (column("x", "timestamp"), "2026-01-01T02:00:00.5+02:00", datetime(2026, 1, 1, 0, 0, 0, 500_000)),
        (column("x", "timestamp"), "2026-01-01 00:00", datetime(2026, 1, 1)),
        (column("x", "string", maxLength=3), "äöü", "äöü"),
        (column("x", "string", pattern="a|b"), "b", "b"),
        (column("x", "integer", minimum=3, maximum=3), "3", 3),
        (column("x", "integer", minimum=3), "", None),
    ],
)
def test_a_valid_value_is_converted_to_its_stored_type(
    tmp_path: Path, declared: dict[str, Any], value: str, kept: object
) -> None:
    good, reasons, _ = check_csv(tmp_path, contract(declared), f"1,{value}")
    assert reasons == {}
    assert good == [{"id": 1, "x": kept}]


def test_a_quarantined_row_has_every_reason(tmp_path: Path) -> None:
    declared = contract(column("age", "integer", required=True), column("size", "number", minimum=1))
    _, reasons, summary = check_csv(tmp_path, declared, "1,,0.5", "1,x,nan", "1,2")
    assert reasons == {
        1: [("age", "required", "nothing"), ("size", "minimum", "0.5")],
        2: [("age", "type", "x"), ("size", "type", "nan"), ("id", "primaryKey", "1, as row 1")],
        3: [("", "format", "2 fields: 1,2")],
    }
    assert (summary.rows, summary.good, summary.quarantined) == (3, 0, 3)


def test_nan_and_infinity_are_found_although_parquet_statistics_hide_them(tmp_path: Path) -> None:
    declared = contract(column("x", "number", minimum=0, maximum=10))
    _, reasons, _ = check_parquet(tmp_path, declared, id=[1, 2, 3], x=[1.0, math.nan, math.inf])
    assert reasons == {2: [("x", "finite", "nan")], 3: [("x", "finite", "inf")]}


@pytest.mark.parametrize(
    ("kind", "values", "good"),
    [
        ("integer", pa.array([1.0, 2.5, math.nan, None]), [1, None]),
        ("integer", pa.array([1, 2**63], pa.uint64()), [1]),
        ("number", pa.array([2**53, 2**53 + 1]), [2.0**53]),
        ("number", pa.array([1, 2], pa.int16()), [1.0, 2.0]),
        ("date", pa.array([datetime(2026, 1, 1), datetime(2026, 1, 1, 5)]), [date(2026, 1, 1)]),
        ("timestamp", pa.array([1000, 1001], pa.timestamp("ns")), [datetime(1970, 1, 1, 0, 0, 0, 1)]),
        ("timestamp", pa.array([datetime(2026, 1, 1, tzinfo=UTC)]), [datetime(2026, 1, 1)]),
        ("string", pa.array([None, None], pa.null()), [None, None]),
    ],
)
def test_a_parquet_value_that_would_lose_precision_is_quarantined(
    tmp_path: Path, kind: str, values: pa.Array, good: list[object]
) -> None:
    found, reasons, _ = check_parquet(tmp_path, contract(column("x", kind)), id=list(range(len(values))), x=values)
    assert sorted((row["x"] for row in found), key=repr) == sorted(good, key=repr)
    assert {reason[0][1] for reason in reasons.values()} <= {"type"}
    assert len(found) + len(reasons) == len(values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("integer", ["1", "2"]),
        ("integer", [True, False]),
        ("string", [1, 2]),
        ("string", [b"a", b"b"]),
        ("boolean", [0, 1]),
        ("date", ["2026-01-01", "2026-01-02"]),
        ("number", [[1.0], [2.0]]),
    ],
)
def test_a_parquet_column_of_an_incompatible_type_is_rejected_with_its_type(
    tmp_path: Path, kind: str, values: list[object]
) -> None:
    with pytest.raises(LandingFileError, match="x of type"):
        check_parquet(tmp_path, contract(column("x", kind)), id=[1, 2], x=values)


def test_a_quoted_json_number_is_text_and_an_unquoted_one_is_not(tmp_path: Path) -> None:
    declared = contract(column("age", "integer"), column("name", "string"))
    path = tmp_path / "batch.jsonl"
    rows: list[Any] = [
        {"id": 1, "age": 5, "name": "5"},
        {"id": 2, "age": "5", "name": 5},
        {"id": 3, "age": [5], "name": None},
        {"id": 4},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\nnot json\n{"id": 6, "name": "\\ud800"}\n')
    good, reasons, _ = check(path, declared)
    assert [(row["id"], row["age"], row["name"]) for row in good] == [(1, 5, "5"), (4, None, None)]
    assert reasons[2] == [("name", "type", "5"), ("age", "type", '"5"')]
    assert reasons[3] == [("age", "type", "[5]")]
    assert reasons[5][0][:2] == reasons[6][0][:2] == ("", "format")


def test_the_first_row_with_a_repeated_key_is_good_and_later_ones_are_quarantined(tmp_path: Path) -> None:
    declared = contract(column("x", "string"))
    good, reasons, _ = check_csv(tmp_path, declared, "2,first", "1,a", "2,second", "2,third")
    assert sorted(row["x"] for row in good) == ["a", "first"]
    assert reasons == {3: [("id", "primaryKey", "2, as row 1")], 4: [("id", "primaryKey", "2, as row 1")]}


def test_a_composite_key_repeats_only_if_all_columns_do(tmp_path: Path) -> None:
    keys = [column(n, "string", primaryKey=True, primaryKeyPosition=p) for n, p in (("b", 2), ("a", 1))]
    _, reasons, _ = check_csv(tmp_path, contract(*keys), "x,1", "y,1", "x,2", "x,1")
    assert reasons == {4: [("a, b", "primaryKey", "1, x, as row 1")]}


def test_unique_columns_and_duplicate_rules_ignore_missing_values(tmp_path: Path) -> None:
    declared = contract(
        column("mail", "string", unique=True),
        column("ward", "string"),
        column("bed", "string"),
        quality=({"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["ward", "bed"]}},),
    )
    _, reasons, _ = check_csv(tmp_path, declared, "1,,a,1", "2,,a,2", "3,m,a,1", "4,m,b,1")
    assert reasons == {
        3: [("ward, bed", "duplicateValues", "a, 1, as row 1")],
        4: [("mail", "unique", "m, as row 3")],
    }


def test_a_key_that_is_already_in_the_table_is_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "batch.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3]}), path)
    good, reasons, _ = check(path, contract(), existing=pa.table({"id": pa.array([2, 9], pa.int64())}))
    assert [row["id"] for row in good] == [1, 3]
    assert reasons == {2: [("id", "primaryKey", "2")]}


@pytest.mark.parametrize(
    ("quality", "refused"),
    [
        ({"metric": "rowCount", "mustBeGreaterThan": 4}, "rowCount of the batch: more than 4 rows"),
        ({"metric": "rowCount", "mustBe": 4}, None),
        ({"metric": "duplicateValues", "mustBeLessThan": 1.5, "arguments": {"properties": ["x"]}}, None),
        ({"metric": "duplicateValues", "mustBeLessThan": 1, "arguments": {"properties": ["x"]}}, "less than 1 rows"),
    ],
)
def test_a_batch_that_breaks_a_batch_rule_is_rejected(
    tmp_path: Path, quality: dict[str, Any], refused: str | None
) -> None:
    declared = contract(column("x", "string"), quality=(quality,))
    lines = ("1,a", "2,a", "3,b", "4,c")
    if refused is None:
        assert check_csv(tmp_path, declared, *lines)[2].good == 4
    else:
        with pytest.raises(LandingFileError, match=refused):
            check_csv(tmp_path, declared, *lines)


def test_a_maximum_share_of_missing_values_is_a_batch_rule(tmp_path: Path) -> None:
    rule = {"metric": "nullValues", "unit": "percent", "mustBeLessOrEqualTo": 25}
    declared = contract(column("x", "string", quality=[rule]))
    assert check_csv(tmp_path, declared, "1,", "2,a", "3,a", "4,a")[2].good == 4
    with pytest.raises(LandingFileError, match=r"nullValues of x: at most 25 percent, found 2 of 4"):
        check_csv(tmp_path, declared, "1,", "2,", "3,a", "4,a")


@pytest.mark.parametrize(
    "declared",
    [
        column("x", "string", pattern="("),
        column("x", "date", minimum="soon"),
        column("x", "integer", quality=[{"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": ["a"]}}]),
        column("file_row_number", "integer"),
    ],
    ids=["pattern", "bound", "valid values", "DuckDB's own name"],
)
def test_a_rule_that_cannot_be_checked_is_an_error(tmp_path: Path, declared: dict[str, Any]) -> None:
    with pytest.raises(MlopsError, match=declared["name"]) as caught:
        check_csv(tmp_path, contract(declared), "1,2")
    assert not isinstance(caught.value, LandingFileError)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_damaged_parquet_file_or_its_damaged_rows_are_rejected(tmp_path: Path, compression: str) -> None:
    declared = contract(column("x", "string", required=True), column("y", "number", required=True))
    path = tmp_path / "batch.parquet"
    rows = {"id": list(range(500)), "x": [str(n * 7) for n in range(500)], "y": [n / 3 for n in range(500)]}
    pq.write_table(pa.table(rows), path, compression=compression)
    whole, random, rejected = path.read_bytes(), Random(7), 0
    for _ in range(8):
        damaged = bytearray(whole)
        at = random.randrange(4, len(whole) - 8)
        length = random.randrange(1, 200)
        damaged[at : at + length] = random.randbytes(min(length, len(whole) - at))
        path.write_bytes(damaged)
        try:
            good, reasons, summary = check(path, declared)
            assert len(good) + len(reasons) == summary.rows
        except LandingFileError:
            rejected += 1
    assert rejected


def test_the_check_finds_as_many_bad_rows_as_handwritten_sql(tmp_path: Path) -> None:
    path = tmp_path / "patients.parquet"
    bench.generate(path, 20_000)
    declared = Project(PROJECT).contract("diabetes-patients")
    assert bench.by_contract(path, declared) == bench.by_hand(path) == 20


words = st.one_of(
    st.sampled_from(
        ["", "1", "2", "2.0", "-7", "abc", "nan", "1e400", "2026-01-01", "true", 'say "hi"', "a,b", "é\nü"]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.text(string.printable.replace("\x0b", "").replace("\x0c", "").replace("\r", ""), max_size=8),
)


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.lists(words, min_size=2, max_size=4), max_size=12))
def test_every_row_is_either_good_or_quarantined(rows: list[list[str]]) -> None:
    declared = contract(
        column("x", "number", minimum=0, maximum=100), column("y", "string", maxLength=5, required=True)
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(declared.columns)
    writer.writerows(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batch.csv"
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        good, reasons, summary = check(path, declared)
    assert summary.rows == len(rows)
    assert len(good) + len(reasons) == len(rows)
    assert (summary.good, summary.quarantined) == (len(good), len(reasons))
    assert all(reasons.values())

    def is_integer(value: str) -> bool:
        head, _, tail = value.partition(".")
        digits = head.removeprefix("-") if head.startswith("-") else head.removeprefix("+")
        return digits.isascii() and digits.isdigit() and set(tail) <= {"0"} and -(2**63) <= int(head) < 2**63

    kept = [
        (int(row[0].partition(".")[0]), float(row[1]) if row[1] else None, row[2])
        for number, row in enumerate(rows, 1)
        if number not in reasons
    ]
    assert sorted(((r["id"], r["x"], r["y"]) for r in good), key=repr) == sorted(kept, key=repr)
    for number, row in enumerate(rows, 1):
        if number in reasons and len(row) == 3 and is_integer(row[0]):
            broken = {rule for _, rule, _ in reasons[number]}
            assert broken <= {"type", "finite", "minimum", "maximum", "maxLength", "required", "primaryKey"}
    assert len({r["id"] for r in good}) == len(good)
