from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.data import validate
from pipelines.data.columns import iceberg_schema
from pipelines.data.contract_check import (
    check_data_file,
    data_files,
    report_json,
    report_junit,
    report_lines,
    stored_type_problems,
)
from pipelines.data.landing import check_file
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from tests.pipelines.data.contracts import column, contract

VISITS = contract(
    column("age", "integer", required=True, minimum=0, maximum=120),
    column("name", "string", unique=True),
    quality=({"metric": "rowCount", "mustBeGreaterThan": 3},),
)


def write(folder: Path, *lines: str, name: str = "a.csv", header: str = "id,age,name") -> Path:
    path = folder / name
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def broken(declared: Contract, path: Path) -> list[tuple[Any, ...]]:
    report = check_data_file(declared, path)
    return [(each.column, each.rule, each.failing, each.keys) for each in report.broken]


def test_every_broken_rule_is_reported_with_its_count_and_keys(tmp_path: Path) -> None:
    path = write(tmp_path, "1,x,a", "2,130,a", "2,,b")
    assert broken(VISITS, path) == [
        ("age", "required", 1, ("2",)),
        ("age", "type", 1, ("1",)),
        ("age", "maximum", 1, ("2",)),
        ("id", "primaryKey", 1, ("2",)),
        ("name", "unique", 1, ("2",)),
        ("", "rowCount", 1, ()),
    ]
    with pytest.raises(MlopsError, match="rowCount of the batch"):  # which hides the others from ingestion
        check_file(VISITS, path)


def test_a_file_that_keeps_its_contract_keeps_every_rule(tmp_path: Path) -> None:
    report = check_data_file(VISITS, write(tmp_path, *(f"{n},{n},n{n}" for n in range(1, 5))))
    assert report.keeps and report.rows == 4 and len(report.results) > 8


@pytest.mark.parametrize("classified", [{"classification": "restricted"}, {"tags": ["PII"]}])
def test_keys_that_are_personal_are_never_shown(tmp_path: Path, classified: dict[str, Any]) -> None:
    key = {"name": "email", "logicalType": "string", "primaryKey": True, **classified}
    declared = contract(key, column("age", "integer", maximum=120))
    path = write(tmp_path, "ann@example.org,500", "ann@example.org,3", header="email,age")
    reports = [check_data_file(declared, path)]
    shown = (
        "\n".join(report_lines(declared, reports)) + report_json(declared, reports) + report_junit(declared, reports)
    )
    assert "ann@" not in shown
    assert "rows 1" in shown and "email: primaryKey" in shown


def test_a_terminal_acts_neither_on_a_key_nor_on_the_name_of_a_file(tmp_path: Path) -> None:
    declared = contract(column("id", "string", primaryKey=True), column("age", "integer", maximum=120))
    path = write(tmp_path, "\x1b[2J,500", header="id,age")
    shown = report_lines(declared, [check_data_file(declared, path, "s3://b/\x9b2J.csv")])
    assert any("age: maximum" in line for line in shown)
    assert all(line.isprintable() for line in shown)


def test_a_file_that_is_not_the_dataset_is_rejected_and_the_others_are_checked(tmp_path: Path) -> None:
    write(tmp_path, "1,2", name="wrong.csv", header="id,years")
    write(tmp_path, *(f"{n},{n},n{n}" for n in range(1, 5)), name="right.csv")
    reports = [check_data_file(VISITS, path) for path in data_files([tmp_path])]
    lines = report_lines(VISITS, reports)
    assert lines[-1] == "1 of 2 keep version 1.0.0 of the contract visits"
    assert any(
        "wrong.csv: rejected: expected the columns id, age, name, found no 'age', 'name'" in line for line in lines
    )
    suites = ET.fromstring(report_junit(VISITS, reports)).findall("testsuite")  # noqa: S314 - our own output
    assert [(suite.get("failures"), suite.get("name", "").rpartition("/")[2]) for suite in suites] == [
        ("0", "right.csv"),
        ("1", "wrong.csv"),
    ]
    found = json.loads(report_json(VISITS, reports))
    assert (found["keeps"], [each["keeps"] for each in found["files"]]) == (False, [True, False])


def test_a_report_of_strange_text_is_valid_xml(tmp_path: Path) -> None:
    declared = contract(column("name", "string", pattern="[a-z]+"), column("note", "string", primaryKey=True))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"name": ["\x01<&\ufffe"], "note": ["\x02]]>"]}), path)
    report = check_data_file(declared, path)
    assert [each.rule for each in report.broken] == ["pattern"]
    assert ET.fromstring(report_junit(declared, [report])) is not None  # noqa: S314 - our own output


def test_malformed_and_mistyped_lines_are_counted_once(tmp_path: Path) -> None:
    declared = contract(column("age", "integer"), column("name", "string"))
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "age": 2, "name": "x"}\n{"id": 2, "age": 3, "name": 7}\nnot json\n')
    assert [(name, rule, count) for name, rule, count, _ in broken(declared, path)] == [
        ("", "format", 1),
        ("", "type", 1),
    ]


def test_folders_without_data_and_unknown_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="has no data files: expected names that end in"):
        data_files([tmp_path])
    with pytest.raises(MlopsError, match="does not exist"):
        data_files([tmp_path / "nothing.csv"])


def test_a_table_with_another_physical_type_is_reported() -> None:
    narrow = contract(column("age", "integer", physicalType="int"), column("gone", "string"))
    wide = contract(column("age", "integer", physicalType="long"))
    assert stored_type_problems(wide, iceberg_schema(wide)) == []
    found = stored_type_problems(narrow, iceberg_schema(wide))
    assert [(each.column, each.expected, each.found) for each in found] == [
        ("age", "int", "long"),
        ("gone", "string", "no such column"),
    ]


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["1", "2", "3", "", "x"]),
            st.sampled_from(["5", "-1", "200", "", "1.5", "NaN"]),
            st.sampled_from(["a", "b", "", "toolong"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_the_report_counts_the_rows_that_ingestion_would_quarantine(
    tmp_path: Path, rows: list[tuple[str, ...]]
) -> None:
    declared = contract(
        column("age", "integer", required=True, minimum=0, maximum=120),
        column("name", "string", unique=True, maxLength=3),
    )
    path = write(tmp_path, *(",".join(row) for row in rows))
    report = check_data_file(declared, path)
    expected = {(each.column, each.rule): each.rows for each in check_file(declared, path).reasons}
    assert {(each.column, each.rule): each.failing for each in report.broken} == expected


@pytest.mark.parametrize(("limit", "value"), [("MOST_SUSPECTS", 0), ("MOST_FLAGS", 0)])
def test_a_report_does_not_depend_on_how_rows_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    rows = [f"{7 * n % 50 + 1},{n if n % 9 else 400},n{n % 40}" for n in range(60)]
    path = write(tmp_path, *rows, "x,1", "70,,b")
    usual = check_data_file(VISITS, path).results
    assert {each.rule for each in usual if each.failing} >= {"format", "maximum", "required", "primaryKey", "unique"}
    monkeypatch.setattr(validate, limit, value)
    assert check_data_file(VISITS, path).results == usual


def test_unique_integers_far_apart_are_counted_as_well(tmp_path: Path) -> None:
    far = [str(number) for number in (-(2**62), 2**62, 2**62, 0, 1, 1)]
    ids = [each for each in broken(VISITS, write(tmp_path, *(f"{id_},1," for id_ in far))) if each[0] == "id"]
    assert ids == [("id", "primaryKey", 2, (str(2**62), "1"))]
    near = [each for each in broken(VISITS, write(tmp_path, *(f"{n},1," for n in (-3, -1, -2)))) if each[0] == "id"]
    assert near == []
