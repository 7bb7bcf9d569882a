"""A table is checked on Spark as in one process: the same failing rows for each rule, and the same first keys."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.contract_check import FileReport, check_data_file, report_lines
from pipelines.data.row_digest import in_key_order
from pipelines.data.spark_rows import FileRows, group_files
from pipelines.data.spark_session import open_spark, run_sail
from pipelines.declarations.contract import Contract
from tests.pipelines.data.contracts import column, contract

pytestmark = pytest.mark.slow

pytest.importorskip("pysail", reason="requirements/spark.txt is not installed")

CONTRACT = contract(
    column("age", "integer", minimum=0, exclusiveMaximum=120, required=True),
    column("weight", "number", minimum=0.5, maximum=300),
    column("code", "string", pattern=r"[A-Z]\d{3}", minLength=2, maxLength=4),
    column("ward", "string", unique=True),
    column("city", "string", enum=[{"value": "Bern"}, {"value": "Basel"}]),
    column("day", "date", minimum="2026-01-01"),
    column("at", "timestamp", maximum="2026-06-30T00:00:00Z"),
    column(
        "note",
        "string",
        quality=[
            {"metric": "nullValues", "mustBeLessThan": 10, "unit": "percent"},
            {"metric": "duplicateValues", "mustBeLessThan": 5, "severity": "warning"},
        ],
    ),
    column("owner", "integer", relationships=[{"to": "people.number"}]),
    quality=(
        {"metric": "rowCount", "mustBeGreaterThan": 10_000},
        {"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["city", "weight"]}},
        {"type": "sql", "query": "SELECT avg(age) FROM {object}", "mustBeLessThan": 200},
    ),
)
PEOPLE = pa.table({"number": pa.array(range(500), pa.int64())})


def rows(count: int) -> pa.Table:
    """Make rows of which some break each rule."""
    rng = np.random.default_rng(3)

    def of(values: list[Any], likely: float = 0.99) -> list[Any]:
        """Choose the first value for most rows."""
        rest = (1 - likely) / (len(values) - 1)
        chosen = rng.choice(len(values), count, p=[likely, *[rest] * (len(values) - 1)])
        return [values[number] for number in chosen]

    weights = [each + float(rng.random()) for each in of([60.0, 0.0, 400.0])]
    weights[:6] = [float("nan"), float("inf"), 0.0, -0.0, float("nan"), 0.1]
    ids: list[int | None] = list(range(count))
    ids[100:105], ids[50] = [7, 7, 8, 9, 10], None
    day = date(2026, 1, 15)
    return pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "age": pa.array(of([30, -1, 120, None]), pa.int64()),
            "weight": pa.array(weights, pa.float64()),
            "code": of(["A123", "a123", "A12", "A", "A12٣", "A1234", None]),
            "ward": [f"w{number % (count - 20)}" for number in range(count)],
            "city": of(["Bern", "Basel", "Genf", None], 0.5),
            "day": pa.array(of([day, date(2025, 12, 31), None]), pa.date32()),
            "at": pa.array(of([datetime(2026, 1, 15), datetime(2026, 11, 1), None]), pa.timestamp("us")),
            "note": of([f"n{number}" for number in range(count)] + [None], 0.0) if count < 50 else of(["x", None], 0.8),
            "owner": pa.array(of([5, 499, 500, -1, None], 0.9), pa.int64()),
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One file with all rows in the order of their keys, and three with a part of them each, in another order."""
    folder, whole = tmp_path_factory.mktemp("rows"), rows(3_000)
    pq.write_table(in_key_order(whole, CONTRACT.primary_key), folder / "whole.parquet")
    order = np.random.default_rng(1).permutation(3_000)
    for number in range(3):
        part = whole.take(pa.array(order[number * 1_000 : number * 1_000 + 1_000]))
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=300)
    pq.write_table(PEOPLE, folder / "people.parquet")
    return [str(folder / f"{name}.parquet") for name in ("whole", 0, 1, 2, "people")]


TYPES = {
    **dict.fromkeys(("id", "age", "owner"), "bigint"),
    **dict.fromkeys(("code", "ward", "city", "note"), "string"),
    "weight": "double",
    "day": "date",
    "at": "timestamp_ntz",
}


def file_rows(paths: list[str], types: dict[str, str]) -> FileRows:
    def stream() -> Iterator[pa.RecordBatch]:
        for path in paths:
            yield from pq.read_table(path).to_batches()

    return FileRows(group_files(paths, pq.read_schema, types), types, stream)


def facts(report: FileReport) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return what both engines must agree on. Numbers of rows have no meaning without an order of the files."""
    return {
        (each.column, each.rule): (each.expected, each.failing, each.found, each.keys, each.binds)
        for each in report.results
        if each.is_checked and not each.rule.startswith("SELECT")
    }


@pytest.fixture(scope="module")
def in_one_process(files: list[str]) -> FileReport:
    return check_data_file(CONTRACT, Path(files[0]), "visits", lambda *_: PEOPLE.to_reader())


def ordered(contract_: Contract, types: dict[str, str]) -> dict[str, str]:
    return {name: types[name] for name in contract_.columns}


@pytest.mark.parametrize("mode", ["local", "local-cluster"])
def test_every_rule_fails_for_the_same_rows(
    files: list[str], in_one_process: FileReport, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.data.spark_check import check_on_spark

    with run_sail(SAIL_MODE=mode) as address:
        monkeypatch.setenv("SPARK_REMOTE", address)
        with open_spark() as spark:
            report = check_on_spark(
                spark,
                CONTRACT,
                file_rows(files[1:4], ordered(CONTRACT, TYPES)),
                "visits",
                lambda dataset, columns: file_rows([files[4]], dict.fromkeys(columns, "bigint")),
            )
    assert report.rows == in_one_process.rows == 3_000
    assert facts(report) == facts(in_one_process)
    assert sum(bool(each.failing) for each in report.results) >= 14
    assert "not checked, because SQL is checked at ingestion only" in report_lines(CONTRACT, [report])[0]
