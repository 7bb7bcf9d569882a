from __future__ import annotations

import csv
import io
import json
import math
import string
import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data import validate as module
from pipelines.data.batch import LandingFileError, TooManyBadRowsError
from pipelines.data.reading import read_batch
from pipelines.data.validate import Summary, examine, validate
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
        (column("x", "string", physicalType="varchar(2)"), "äöü", "maxLength"),
        (column("x", "number", physicalType="decimal(4, 2)"), "100", "exclusiveMaximum"),
        (column("x", "number", physicalType="decimal(4, 2)"), "12.345", "physicalType"),
        (column("x", "integer", physicalType="smallint"), "-32769", "minimum"),
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
        (column("x", "number", physicalType="decimal(4, 2)"), "-99.99", -99.99),
        (column("x", "number", physicalType="decimal(15, 2)"), "1234567890123.45", 1234567890123.45),
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


def test_statistics_that_deny_a_bad_value_do_not_hide_it(tmp_path: Path) -> None:
    """A file's writer may state any statistics: no reader checks them."""
    declared = contract(column("x", "integer", maximum=120))
    path = tmp_path / "batch.parquet"
    rows = {"id": pa.array(range(1000), pa.int64()), "x": pa.array([*[20] * 999, 777_777_777], pa.int64())}
    pq.write_table(pa.table(rows), path, use_dictionary=False, compression="none")
    written = path.read_bytes()
    footer = len(written) - int.from_bytes(written[-8:-4], "little") - 8
    stated, denied = (number.to_bytes(8, "little") for number in (777_777_777, 20))
    assert written.count(stated, footer) and written.count(stated, 0, footer)
    path.write_bytes(written[:footer] + written[footer:].replace(stated, denied))
    assert pq.ParquetFile(path).metadata.row_group(0).column(1).statistics.max == 20
    _, reasons, _ = check(path, declared)
    assert reasons == {1000: [("x", "maximum", "777777777")]}


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


def test_a_pattern_that_the_engine_cannot_match_is_an_error(tmp_path: Path) -> None:
    for pattern in ("(", "(?=a)"):
        with pytest.raises(MlopsError, match="pattern of column 'x' in the contract visits is not valid") as caught:
            check_csv(tmp_path, contract(column("x", "string", pattern=pattern)), "1,2")
        assert not isinstance(caught.value, LandingFileError)


YEAR_0 = -719_529
"""Days from 1970-01-01 to the last day of the year 0, which Iceberg's writer and Python cannot hold."""


def test_dates_and_timestamps_that_the_table_cannot_hold_are_the_rows_problem(tmp_path: Path) -> None:
    declared = contract(column("day", "date"), column("at", "timestamp"))
    _, reasons, _ = check_csv(
        tmp_path,
        declared,
        "1,0001-01-01,0001-01-01T00:00:00Z",
        "2,9999-12-31,9999-12-31T23:59:59.999999Z",
        "3,0000-01-01,",
        "4,,0000-06-01T00:00:00Z",
        "5,,0001-01-01T00:00:00+10:00",
        "6,,9999-12-31T23:59:59-01:00",
    )
    assert {row: [(name, rule) for name, rule, _ in found] for row, found in reasons.items()} == {
        3: [("day", "type")],
        4: [("at", "type")],
        5: [("at", "type")],
        6: [("at", "type")],
    }


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_parquet_times_that_the_table_cannot_hold_are_the_rows_problem(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    year = 366 * 24 * 3600 * scale
    far = [0, *((30_000 * year, -3_000 * year, 8_500 * year) if unit != "ns" else (1000, 2000, 1))]
    at = pa.array(far, pa.int64()).cast(pa.timestamp(unit, zone))
    day = pa.array([0, YEAR_0, 3_000_000, 2**31 - 1], pa.int32()).cast(pa.date32())
    declared = contract(column("day", "date"), column("at", "timestamp"))
    good, reasons, _ = check_parquet(tmp_path, declared, id=[1, 2, 3, 4], day=day, at=at)
    assert [row["id"] for row in good] == [1]
    named = {row: [name for name, _, _ in found] for row, found in reasons.items()}
    assert (
        named == {2: ["day", "at"], 3: ["day", "at"], 4: ["day", "at"]}
        if unit != "ns"
        else {2: ["day"], 3: ["day"], 4: ["day", "at"]}
    )
    assert all(rule == "type" for found in reasons.values() for _, rule, _ in found)


@pytest.mark.parametrize(
    ("offset", "good"),
    [("+14:00", True), ("-11:30", True), ("Z", True), ("+25:00", False), ("+14:75", False), ("+15:00", False)],
)
def test_an_offset_that_no_place_on_earth_has_is_not_a_timestamp(tmp_path: Path, offset: str, good: bool) -> None:
    _, _, summary = check_csv(tmp_path, contract(column("x", "timestamp")), f"1,2026-01-31T12:00:00{offset}")
    assert summary.good == good


FLOAT = {"physicalType": "float"}


@pytest.mark.parametrize(
    ("bound", "value", "good"),
    [
        ({"maximum": 0.1}, 0.1, True),
        ({"minimum": 0.7}, 0.7, True),
        ({"minimum": 0.1, "maximum": 0.1}, 0.1, True),
        ({"exclusiveMaximum": 1}, 0.999999999, False),  # which is 1 in 32 bits
        ({"exclusiveMaximum": 0.1}, 0.1, False),
        ({"exclusiveMinimum": 0.7}, 0.7, False),
        ({"exclusiveMinimum": 0.7}, 0.7000001, True),
        ({"maximum": 0.1}, 0.1000001, False),
    ],
)
def test_a_decimal_is_compared_in_the_precision_of_the_value(
    tmp_path: Path, bound: dict[str, float], value: float, good: bool
) -> None:
    declared = contract(column("x", "number", **FLOAT, **bound))
    assert check_csv(tmp_path, declared, f"1,{value}")[2].good == good
    (tmp_path / "a.jsonl").write_text(json.dumps({"id": 1, "x": value}) + "\n")
    assert check(tmp_path / "a.jsonl", declared)[2].good == good
    stored = pa.array([value], pa.float32())
    for kind in (FLOAT, {}):  # a column of 64 bits that arrives with 32 is compared with 32
        declared = contract(column("x", "number", **kind, **bound))
        assert check_parquet(tmp_path, declared, id=[1], x=stored)[2].good == good


def test_listed_decimals_are_compared_in_the_precision_of_the_value(tmp_path: Path) -> None:
    listed = {"metric": "invalidValues", "arguments": {"validValues": [0.1, 0.5]}, "mustBe": 0}
    declared = contract(column("x", "number", **FLOAT, quality=[listed]))
    assert check_csv(tmp_path, declared, "1,0.1", "2,0.5", "3,0.2")[2].good == 2
    declared = contract(column("x", "number", enum=[{"value": 0.1}, {"value": 0.5, "label": "half"}]))
    _, reasons, _ = check_csv(tmp_path, declared, "1,0.1", "2,0.5", "3,0.10000000149011612")
    assert reasons == {3: [("x", "enum", "0.10000000149011612")]}


def test_a_bound_of_an_integer_is_exact_beyond_what_floating_point_holds(tmp_path: Path) -> None:
    declared = contract(column("x", "integer", maximum=2**53 + 1))
    assert check_csv(tmp_path, declared, f"1,{2**53 + 1}", f"2,{2**53 + 2}")[2].good == 1
    declared = contract(column("x", "integer", minimum=1.5, exclusiveMaximum=3.5))
    assert check_csv(tmp_path, declared, "1,1", "2,2", "3,3", "4,4")[2].good == 2


def lines(bad: int, of: int) -> list[str]:
    return [f"{number},{'x' if number <= bad else number}" for number in range(1, of + 1)]


def test_a_file_with_too_many_bad_rows_is_rejected_with_the_reasons_and_a_sample(tmp_path: Path) -> None:
    declared = contract(column("age", "integer"), most_bad=20)
    assert check_csv(tmp_path, declared, *lines(2, 10))[2].quarantined == 2
    with pytest.raises(TooManyBadRowsError) as caught:
        check_csv(tmp_path, declared, *lines(3, 10))
    error = caught.value
    assert error.what == (
        "batch.csv is rejected: expected at most 20 percent of 10 rows to break the contract, "
        "found at least 3 (age: type 3)"
    )
    assert error.fix.endswith("mlops data release visits batch.csv")
    assert [(reason.column, reason.rule, reason.rows) for reason in error.reasons] == [("age", "type", 3)]


@pytest.mark.parametrize("most_bad", [0, 34])
def test_repeated_keys_and_bad_values_count_together_each_row_once(tmp_path: Path, most_bad: float) -> None:
    declared = contract(column("age", "integer"), most_bad=most_bad)
    rows = ["1,1", "1,x", "2,2", "3,x", "4,4", "5,5"]
    if most_bad == 0:
        with pytest.raises(TooManyBadRowsError):
            check_csv(tmp_path, declared, *rows)
    else:
        assert check_csv(tmp_path, declared, *rows)[2].quarantined == 2


def test_rows_that_are_in_the_table_already_do_not_count_as_bad(tmp_path: Path) -> None:
    path = tmp_path / "batch.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3]}), path)
    known = pa.table({"id": pa.array([1, 2, 3], pa.int64())})
    assert check(path, contract(most_bad=0), existing=known)[2].quarantined == 3


def test_a_small_file_of_very_many_equal_rows_is_rejected_without_unpacking_its_reasons(tmp_path: Path) -> None:
    rows = 2_000_000
    same = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), pa.array(["x" * 50]))
    path = tmp_path / "batch.parquet"
    pq.write_table(pa.table({"id": pa.array([7] * rows, pa.int8()), "name": same}), path)
    assert path.stat().st_size < 50_000
    with pytest.raises(TooManyBadRowsError, match=f"found at least {rows - 1}"):
        check(path, contract(column("name", "string"), most_bad=20))


def same_text(path: Path, text: str, rows: int) -> int:
    """Write one text in every row, and return the size of the file."""
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    pq.write_table(pa.table({"id": pa.array(range(rows)), "name": repeated}), path)
    return path.stat().st_size


def test_a_small_file_with_a_long_text_in_every_row_is_rejected(tmp_path: Path) -> None:
    """Its rows would be good, and take gigabytes of memory on their way into the table, in every run of the job."""
    declared, path = contract(column("name", "string")), tmp_path / "batch.parquet"
    assert same_text(path, "x" * 1_000_000, 3_000) < 200_000
    expected = "expected at most 131072 bytes of text in a row, found 1000000 bytes"
    with pytest.raises(LandingFileError, match=expected):
        check(path, declared)
    with pytest.raises(LandingFileError, match=expected), tempfile.TemporaryDirectory() as folder:
        examine(read_batch(path, declared, Path(folder)), declared, Path(folder))


def test_a_file_with_too_much_text_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_TEXT", 1_000_000)
    path = tmp_path / "batch.parquet"
    same_text(path, "x" * 1_000, 1_001)
    with pytest.raises(LandingFileError, match="expected at most 1000000 bytes of text, found 1001000 bytes"):
        check(path, contract(column("name", "string")))


def test_rows_with_long_texts_are_streamed_in_parts_of_bounded_size(tmp_path: Path) -> None:
    declared, path = contract(column("name", "string")), tmp_path / "batch.parquet"
    same_text(path, "x" * 30_000, 6_000)
    with (
        tempfile.TemporaryDirectory() as folder,
        validate(read_batch(path, declared, Path(folder)), declared, Path(folder)) as checked,
    ):
        sizes = [(rows.num_rows, rows.nbytes) for rows in checked.good_rows()]
    assert sum(rows for rows, _ in sizes) == 6_000
    assert max(size for _, size in sizes) < 2_100 * 31_000, "2,048 rows are DuckDB's least"


def test_a_check_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(connection: Any, *_: Any) -> int:
        return int(connection.execute("SELECT sum(hash(a.i + b.i)) FROM range(9000000) a(i), range(9000000) b(i)"))

    monkeypatch.setattr(module, "LONGEST_CHECK", 0.05)
    monkeypatch.setattr(module, "_find_bad_rows", endless)
    with pytest.raises(LandingFileError, match="found one that was stopped after"):
        check_csv(tmp_path, contract(), "1")


def test_a_full_disk_is_not_blamed_on_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise duckdb.IOException("Could not write file: No space left on device")

    monkeypatch.setattr(module, "_find_bad_rows", full)
    with pytest.raises(MlopsError, match="needs more scratch space") as caught:
        check_csv(tmp_path, contract(), "1")
    assert not isinstance(caught.value, LandingFileError)


def test_only_the_chosen_rows_of_a_batch_are_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "batch.csv"
    path.write_text("id,age\n1,1\n2,x\n3,3\n4,y\n")
    declared = contract(column("age", "integer"), most_bad=0)
    pq.write_table(pa.table({"_row": [2, 3]}), tmp_path / "rows.parquet")
    batch = read_batch(path, declared, tmp_path)
    with validate(replace(batch, replayed=tmp_path / "rows.parquet", rows=2), declared, tmp_path) as checked:
        assert (checked.summary.good, checked.summary.quarantined) == (1, 1)
        assert checked.good_rows().read_all().to_pylist() == [{"id": 3, "age": 3}]


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


@settings(max_examples=25)
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
