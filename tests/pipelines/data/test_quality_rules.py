"""Quality rules that are more than bounds on a column: SQL checks, conditions, foreign keys, thresholds, severity."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import sql_rules
from pipelines.data.batch import LandingFileError, TooManyBadRowsError
from pipelines.data.contract_check import FileReport, check_data_file, report_json, report_junit, report_lines
from pipelines.data.reading import read_batch
from pipelines.data.sql_rules import ReadTable, check_sql
from pipelines.data.validate import Summary, validate
from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from tests.pipelines.data.contracts import column, contract

pytestmark = pytest.mark.slow

WARDS = pa.table({"name": ["east", "west"], "beds": pa.array([10, 20], pa.int64())})


def tables(**found: pa.Table) -> ReadTable:
    def read(dataset: str, columns: Any) -> pa.RecordBatchReader:
        table = found[dataset.replace("-", "_")]
        return (table.select(list(columns)) if columns else table).to_reader()

    return read


def stay(*quality: dict[str, Any], relationships: tuple[dict[str, Any], ...] = (), **keys: Any) -> Contract:
    """Make a contract of stays in hospital; `quality` are rules on the table."""
    ward = column("ward", "string", relationships=list(relationships))
    dates = [column(name, "date") for name in ("admitted", "discharged")]
    return contract(ward, *dates, column("cost", "number"), quality=quality, **keys)


ROWS = (
    "1,east,2026-01-01,2026-01-03,10",
    "2,west,2026-01-05,2026-01-04,20",
    "3,,2026-01-05,,30",
    "4,north,2026-01-05,2026-01-06,40",
)

CONDITION = {"type": "custom", "engine": "duckdb", "name": "in order", "implementation": "discharged >= admitted"}


def sql(query: str, **keys: Any) -> dict[str, Any]:
    return {"type": "sql", "query": query, **keys}


def write(folder: Path, declared: Contract, *lines: str) -> Path:
    path = folder / "stays.csv"
    path.write_text("\n".join((",".join(declared.columns), *(lines or ROWS))) + "\n")
    return path


def check(
    folder: Path, declared: Contract, *lines: str, read_table: ReadTable | None = None
) -> tuple[list[int], dict[int, list[tuple[str, str]]], Summary]:
    """Return the ids of the good rows; row number → (column, rule) of the others; and the summary."""
    folder.mkdir(exist_ok=True)
    batch = read_batch(write(folder, declared, *lines), declared, folder)
    with validate(batch, declared, folder, read_table=read_table) as checked:
        checked.write_quarantine(folder / "quarantine.parquet")
        bad = pq.read_table(folder / "quarantine.parquet").to_pylist()
        good = sorted(checked.good_rows().read_all()["id"].to_pylist())
        summary = checked.summary
    assert summary.rows == len(good) + len(bad) == summary.good + summary.quarantined
    return good, {row["_row"]: [(r["column"], r["rule"]) for r in row["_reasons"]] for row in bad}, summary


def test_a_row_that_breaks_a_condition_is_quarantined_and_null_keeps_it(tmp_path: Path) -> None:
    good, reasons, _ = check(tmp_path, stay(CONDITION))
    assert good == [1, 3, 4]
    assert reasons == {2: [("", "in order")]}


def test_a_condition_on_a_column_shows_its_value(tmp_path: Path) -> None:
    declared = contract(column("cost", "number", quality=[{**CONDITION, "implementation": "cost % 20 = 0"}]))
    batch = read_batch(write(tmp_path, declared, "1,20", "2,30"), declared, tmp_path)
    with validate(batch, declared, tmp_path) as checked:
        checked.write_quarantine(tmp_path / "quarantine.parquet")
    (row,) = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
    assert row["_reasons"] == [{"column": "cost", "rule": "in order", "expected": "cost % 20 = 0", "found": "30"}]


@pytest.mark.parametrize(
    "relationship", [{"to": "wards.name"}, {"to": "schema/wards/properties/name", "type": "foreignKey"}]
)
def test_a_value_that_another_table_lacks_is_quarantined(tmp_path: Path, relationship: dict[str, Any]) -> None:
    declared = stay(relationships=(relationship,))
    good, reasons, summary = check(tmp_path, declared, read_table=tables(wards=WARDS))
    assert (good, summary.unchecked) == ([1, 2, 3], ())
    assert reasons == {4: [("ward", "foreignKey wards")]}


def test_a_foreign_key_of_several_columns_compares_them_together(tmp_path: Path) -> None:
    beds = pa.table({"ward": ["east", "west"], "at": pa.array(["2026-01-01", "2026-01-01"]).cast(pa.date32())})
    relation = {"from": ["visits.ward", "visits.admitted"], "to": ["beds.ward", "beds.at"]}
    declared = stay(table_relationships=(relation,))
    _, reasons, _ = check(tmp_path, declared, read_table=tables(beds=beds))
    assert sorted(reasons) == [2, 4]


def test_a_table_that_refers_to_itself_knows_the_rows_of_the_batch(tmp_path: Path) -> None:
    declared = contract(column("mother", "integer", relationships=[{"to": "visits.id"}]))
    before = pa.table({"id": pa.array([7], pa.int64())})
    good, reasons, _ = check(tmp_path, declared, "1,", "2,1", "3,7", "4,9", read_table=tables(visits=before))
    assert good == [1, 2, 3]
    assert list(reasons) == [4]


def test_rules_that_read_tables_are_named_if_the_tables_are_not_at_hand(tmp_path: Path) -> None:
    query = sql("SELECT count(*) FROM {object} JOIN {wards} ON ward = name", name="joined", mustBeGreaterThan=0)
    good, _, summary = check(tmp_path, stay(query, relationships=({"to": "wards.name"},)))
    assert good == [1, 2, 3, 4]
    assert summary.unchecked == ("foreignKey wards", "joined")


def test_too_many_rows_without_a_counterpart_reject_the_file(tmp_path: Path) -> None:
    declared = stay(relationships=({"to": "wards.name"},), most_bad=20)
    with pytest.raises(TooManyBadRowsError, match=r"foreignKey wards 1\b") as caught:
        check(tmp_path, declared, read_table=tables(wards=WARDS))
    assert caught.value.bad == 1


def test_broken_conditions_count_for_the_bound_on_bad_rows(tmp_path: Path) -> None:
    with pytest.raises(TooManyBadRowsError, match=r"in order 1\b"):
        check(tmp_path, stay(CONDITION, most_bad=20))


@pytest.mark.parametrize(
    ("query", "bounds", "found"),
    [
        ("SELECT avg(cost) FROM {object}", {"mustBeLessThan": 25}, "expected mean: less than 25, found 25"),
        ("SELECT avg(cost) FROM ${object}", {"mustBe": 25}, ""),
        ("SELECT avg(cost) FROM {table}", {"mustNotBe": 25}, "not 25"),
        ("SELECT avg(cost) FROM {object};", {"mustBeBetween": [25, 30]}, "more than 25 and less than 30, found 25"),
        ("SELECT avg(cost) FROM {object}", {"mustNotBeBetween": [20, 30]}, "at most 20 or at least 30, found 25"),
        ("SELECT avg(cost) FROM {object}", {"mustNotBeBetween": [25, 30]}, ""),
        ("SELECT bool_and(cost > 10) FROM {object}", {"mustBe": True}, "exactly 1, found 0"),
        ("SELECT sum(cost) FROM {object} WHERE false", {"mustBe": 0}, "found null"),
        ("SELECT count(*) FROM {object} o ANTI JOIN {wards} w ON o.ward = w.name", {"mustBe": 2}, ""),
        ("SELECT max(beds) FROM {wards}", {"mustBeLessThan": 20}, "less than 20, found 20"),
        ("SELECT count(*) FROM {visits}", {"mustBe": 1}, ""),
    ],
)
def test_a_sql_check_holds_the_batch_back_if_its_figure_breaks_a_bound(
    tmp_path: Path, query: str, bounds: dict[str, Any], found: str
) -> None:
    visits = pa.table({"id": pa.array([9], pa.int64())})
    declared = stay(sql(query, name="mean", **bounds))
    read_table = tables(wards=WARDS, visits=visits)
    if not found:
        assert check(tmp_path, declared, read_table=read_table)[0] == [1, 2, 3, 4]
        return
    with pytest.raises(LandingFileError, match=found):
        check(tmp_path, declared, read_table=read_table)


def test_sql_checks_see_the_rows_that_keep_the_rules_on_rows(tmp_path: Path) -> None:
    costs = column("cost", "number", maximum=1000, quality=[sql("SELECT max({property}) FROM {object}", mustBe=20)])
    condition = {**CONDITION, "implementation": "cost <> 30"}
    good, reasons, _ = check(tmp_path, contract(costs, quality=(condition,)), "1,20", "2,5000", "3,x", "4,30", "1,90")
    assert good == [1]
    assert sorted(reasons) == [2, 3, 4, 5]


@pytest.mark.parametrize("severity", ["warning", "Info"])
def test_a_rule_that_only_warns_neither_quarantines_nor_holds_back(tmp_path: Path, severity: str) -> None:
    rules = (
        {**CONDITION, "severity": severity},
        sql("SELECT sum(cost) FROM {object}", name="sum", mustBe=0, severity=severity),
        {"metric": "rowCount", "mustBeGreaterThan": 100, "severity": severity},
    )
    ward = column("ward", "string", quality=[{"metric": "nullValues", "mustBe": 0, "severity": severity}])
    declared = contract(ward, *stay().table.model_dump(mode="json", by_alias=True)["properties"][2:], quality=rules)
    good, reasons, summary = check(tmp_path, declared)
    assert (good, reasons) == ([1, 2, 3, 4], {})
    assert [str(warning) for warning in summary.warnings] == [
        "the batch: rowCount: expected more than 100 rows, found 4",
        "ward: nullValues: expected exactly 0 rows, found 1 of 4",
        "the batch: sum: expected exactly 0, found 100",
        "the batch: in order: expected discharged >= admitted, found another value in 1 row",
    ]


@pytest.mark.parametrize("severity", ["error", "high", None])
def test_any_other_severity_binds(tmp_path: Path, severity: str | None) -> None:
    rule = {"metric": "rowCount", "mustBeGreaterThan": 100, "severity": severity}
    with pytest.raises(LandingFileError, match="more than 100 rows"):
        check(tmp_path, stay(rule))


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        ({"metric": "missingValues", "arguments": {"missingValues": ["N/A", None]}, "mustBe": 0}, [2, 3]),
        ({"metric": "missingValues", "arguments": {"missingValues": ["N/A"]}, "mustBe": 0}, [3]),
        ({"metric": "missingValues", "mustBe": 0}, [2]),
        ({"metric": "invalidValues", "arguments": {"pattern": "[a-z]+"}, "mustBe": 0}, [3]),
        ({"metric": "invalidValues", "arguments": {"pattern": "[a-z/A-Z]+", "validValues": ["N/A"]}, "mustBe": 0}, [1]),
    ],
)
def test_library_metrics_with_arguments(tmp_path: Path, rule: dict[str, Any], bad: list[int]) -> None:
    declared = contract(column("x", "string", quality=[rule]))
    _, reasons, _ = check(tmp_path, declared, "1,abc", "2,", "3,N/A")
    assert sorted(reasons) == bad


@pytest.mark.parametrize(
    ("bounds", "kept"),
    [
        ({"mustBeBetween": [0, 40], "unit": "percent"}, True),
        ({"mustBeBetween": [0, 25], "unit": "percent"}, False),
        ({"mustNotBeBetween": [0, 40], "unit": "percent"}, False),
        ({"mustNotBe": 1}, False),
        ({"mustNotBe": 2}, True),
        ({"mustBeLessOrEqualTo": 1}, True),
    ],
)
def test_metrics_keep_every_kind_of_bound(tmp_path: Path, bounds: dict[str, Any], kept: bool) -> None:
    declared = contract(column("x", "string", quality=[{"metric": "nullValues", **bounds}]))
    if kept:
        assert check(tmp_path, declared, "1,a", "2,b", "3,c", "4,")[0] == [1, 2, 3, 4]
        return
    with pytest.raises(LandingFileError, match="nullValues of x"):
        check(tmp_path, declared, "1,a", "2,b", "3,c", "4,")


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (sql("SELECT nothing FROM {object}", mustBe=0), '"nothing" not found'),
        (sql("SELECT 1; SELECT 2", mustBe=0), "expected one SELECT statement, found 2"),
        (sql("DROP TABLE _rows", mustBe=0), "expected one SELECT statement"),
        (sql("SELECT 1, 2", mustBe=0), "found 2 columns"),
        (sql("SELECT * FROM range(3)", mustBe=0), "found several rows"),
        (sql("SELECT 'a'", mustBe=0), "a value of type str"),
        (sql("SELEKT 1", mustBe=0), "syntax error"),
        ({**CONDITION, "implementation": "discharged >>= admitted"}, ""),
        ({**CONDITION, "implementation": "missing > 1"}, '"missing" not found'),
    ],
)
def test_sql_that_cannot_be_checked_is_found_before_data_arrives_and_blames_the_contract(
    tmp_path: Path, rule: dict[str, Any], problem: str
) -> None:
    declared = stay(rule)
    with pytest.raises(MlopsError, match=r"cannot be checked: .*" + problem) as linted:
        check_sql(declared, {}, tmp_path)
    with pytest.raises(MlopsError) as checked:
        check(tmp_path, declared)
    assert not isinstance(checked.value, LandingFileError)
    assert "in the contract" in linted.value.fix


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT count(*) FROM read_text('/etc/passwd')",
        "SELECT count(*) FROM '/etc/passwd'",
        "SELECT count(*) FROM read_csv('https://example.com/x.csv')",
        "SELECT count(*) FROM glob('/*')",
        "SELECT count(*) FROM read_parquet('{rows}')",
        "COPY (SELECT 1) TO '{copy}'",
        "ATTACH '{copy}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '10GB'",
        "SET enable_external_access = true",
        "CREATE TABLE x AS SELECT 1",
        "SELECT getenv('HOME')",
        "PRAGMA version",
        "CALL pragma_version()",
        "EXPLAIN ANALYZE SELECT 1",
        "WITH x AS (DELETE FROM _broken RETURNING 1) SELECT count(*) FROM x",
        "WITH x AS (INSERT INTO _broken VALUES (0, 0) RETURNING 1) SELECT count(*) FROM x",
        "WITH x AS (COPY (SELECT 1) TO '{copy}') SELECT count(*) FROM x",
        "SELECT 1) UNION ALL (SELECT 2",
    ],
)
def test_sql_of_a_contract_reads_no_files_opens_no_network_and_changes_nothing(tmp_path: Path, attempt: str) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"x": [1]}), other)
    text = attempt.replace("{rows}", str(other)).replace("{copy}", str(tmp_path / "copy"))
    with pytest.raises(MlopsError, match="cannot be checked"):
        check(tmp_path, stay(sql(text, mustBeGreaterOrEqualTo=0)))
    assert not (tmp_path / "copy").exists()


def test_a_rule_that_only_reports_does_not_change_what_is_quarantined(tmp_path: Path) -> None:
    """DuckDB writes files in a WITH clause, and knows the paths that it may write to."""
    broken = tmp_path / "broken.parquet"
    write_none = f"COPY (SELECT * FROM _broken LIMIT 0) TO '{broken}' (FORMAT parquet, USE_TMP_FILE false)"  # noqa: S608
    text = f"WITH x AS ({write_none}) SELECT count(*) FROM x"  # noqa: S608
    good, reasons, _ = check(tmp_path, stay(CONDITION, sql(text, severity="info", mustBe=1)))
    assert (good, list(reasons)) == ([1, 3, 4], [2])


def test_the_process_has_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, str] = {}
    original = subprocess.Popen

    def record(*arguments: Any, **keys: Any) -> Any:
        started.update(keys["env"])
        return original(*arguments, **keys)

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(subprocess, "Popen", record)
    check(tmp_path, stay(CONDITION))
    assert started
    assert not [name for name in started if name.startswith("AWS")]


@pytest.mark.parametrize(
    "bomb",
    [
        "SELECT length(repeat('xxxxxxxxxx', 400000000))",
        "SELECT list_sum(range(1000000000))",
        "SELECT count(*) FROM (SELECT DISTINCT a.range * 1000003 + b.range FROM range(100000) a, range(100000) b)",
    ],
)
def test_sql_that_needs_too_much_memory_is_stopped(tmp_path: Path, bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_rules, "LONGEST_RUN", 10.0)
    with pytest.raises(MlopsError, match=r"cannot be checked|too long|too much memory"):
        check(tmp_path, stay(sql(bomb, mustBe=0)))


def test_sql_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_rules, "LONGEST_RUN", 1.0)
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    started = time.monotonic()
    with pytest.raises(MlopsError, match="take too long: expected at most 1 seconds"):
        check(tmp_path, stay(sql(endless, mustBe=0)))
    assert time.monotonic() - started < 20


def test_the_report_names_every_rule_its_severity_and_what_was_not_checked(tmp_path: Path) -> None:
    declared = stay(
        CONDITION,
        sql("SELECT sum(cost) FROM {object}", name="sum", mustBe=0, severity="warning"),
        sql("SELECT count(*) FROM {wards}", name="wards", mustBe=2),
        relationships=({"to": "wards.name"},),
    )
    path = write(tmp_path, declared)
    report = check_data_file(declared, path, "stays.csv")
    text = "\n".join(report_lines(declared, [report]))
    assert (
        "1 of 13 rules broken; not checked, because they read tables (add --env): ward: foreignKey wards, wards" in text
    )
    assert "  the rows: in order: expected discharged >= admitted, found another value in 1 row\n      id: 2" in text
    assert "  warning: the rows: sum: expected exactly 0, found 80" in text
    assert report_junit(declared, [report]).count("<skipped") == 2
    assert '"is_checked": false' in report_json(declared, [report])
    with_tables = check_data_file(declared, path, "stays.csv", tables(wards=WARDS))
    assert [(r.rule, r.failing, r.keys) for r in with_tables.broken] == [
        ("foreignKey wards", 1, ("4",)),
        ("in order", 1, ("2",)),
    ]
    assert not with_tables.unchecked


def test_a_warning_does_not_fail_the_contract_test(tmp_path: Path) -> None:
    declared = stay({"metric": "rowCount", "mustBe": 0, "severity": "warning"})
    report: FileReport = check_data_file(declared, write(tmp_path, declared))
    assert report.keeps
    assert [warning.rule for warning in report.warnings] == ["rowCount"]
