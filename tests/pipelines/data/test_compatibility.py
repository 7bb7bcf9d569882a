from __future__ import annotations

from typing import Any

import pytest

from pipelines.data.schema_compatibility import breaking_changes, next_major, unannounced_changes
from tests.pipelines.data.contracts import column, contract

LISTED: dict[str, Any] = {"metric": "invalidValues", "arguments": {"validValues": ["a", "b"]}, "mustBe": 0}


def listing(*values: str) -> list[dict[str, Any]]:
    return [{**LISTED, "arguments": {"validValues": list(values)}}]


BREAKING = [
    (column("x", "integer"), column("y", "integer"), "the column"),
    (column("x", "integer"), column("x", "number"), "logicalType"),
    (column("x", "integer", physicalType="int"), column("x", "integer"), "physicalType"),
    (column("x", "integer", required=True), column("x", "integer"), "required"),
    (column("x", "string", unique=True), column("x", "string"), "unique"),
    (column("x", "number", minimum=0), column("x", "number", minimum=-1), "minimum"),
    (column("x", "number", minimum=0), column("x", "number"), "minimum"),
    (column("x", "number", exclusiveMinimum=0), column("x", "number", minimum=0), "minimum"),
    (column("x", "number", maximum=9), column("x", "number", maximum=10), "maximum"),
    (column("x", "number", exclusiveMaximum=9), column("x", "number", maximum=9), "maximum"),
    (column("x", "date", maximum="2026-01-01"), column("x", "date", maximum="2026-01-02"), "maximum"),
    (column("x", "string", minLength=2), column("x", "string", minLength=1), "minLength"),
    (column("x", "string", maxLength=2), column("x", "string"), "maxLength"),
    (column("x", "string", pattern="a+"), column("x", "string", pattern="a*"), "pattern"),
    (column("x", "string", quality=listing("a")), column("x", "string", quality=listing("a", "b")), "validValues"),
    (column("x", "string", quality=listing("a")), column("x", "string"), "validValues"),
    (
        column("x", "string", quality=[{"metric": "nullValues", "unit": "percent", "mustBeLessThan": 5}]),
        column("x", "string", quality=[{"metric": "nullValues", "unit": "percent", "mustBeLessOrEqualTo": 5}]),
        "nullValues",
    ),
]

KEEPING = [
    (column("x", "integer"), column("x", "integer", required=True, unique=True)),
    (column("x", "number", minimum=0), column("x", "number", exclusiveMinimum=0)),
    (column("x", "number", exclusiveMinimum=0), column("x", "number", minimum=1)),
    (column("x", "number"), column("x", "number", minimum=0, maximum=5)),
    (
        column("x", "timestamp", maximum="2026-01-01T00:00:00Z"),
        column("x", "timestamp", maximum="2026-01-01T01:00:00+01:00"),
    ),
    (column("x", "string", quality=listing("a", "b")), column("x", "string", quality=listing("b"))),
    (column("x", "integer"), column("x", "integer", physicalType="bigint")),
    (
        column("x", "string", quality=[{"metric": "nullValues", "mustBe": 0}]),
        column("x", "string", required=True),
    ),
    (
        column("x", "string", quality=[{"metric": "missingValues", "mustBeLessThan": 5}]),
        column("x", "string", quality=[{"metric": "missingValues", "mustBe": 2}]),
    ),
]


ZERO: dict[str, Any] = {"metric": "duplicateValues", "mustBe": 0}
FLOAT = {"physicalType": "float"}

EQUAL = [
    (column("x", "integer", minimum=1, maximum=9), column("x", "integer", exclusiveMinimum=0, exclusiveMaximum=10)),
    (column("x", "date", minimum="2026-01-01"), column("x", "date", exclusiveMinimum="2025-12-31")),
    (
        column("x", "integer", minimum=1, maximum=2),
        column(
            "x", "integer", quality=[{"metric": "invalidValues", "arguments": {"validValues": [2, 1]}, "mustBe": 0}]
        ),
    ),
    (column("x", "string", unique=True), column("x", "string", quality=[ZERO])),
    (column("x", "string", quality=[ZERO]), column("x", "string", quality=[{**ZERO, "unit": "percent"}])),
    (column("x", "string", quality=listing("a", "b")), column("x", "string", enum=[{"value": "b"}, {"value": "a"}])),
    (column("x", "string", quality=[{"metric": "nullValues", "mustBe": 0}]), column("x", "string", required=True)),
    (column("x", "string", minLength=0), column("x", "string")),
    (column("x", "string", pattern="^a+$"), column("x", "string", pattern="a+")),
    (column("x", "number", minimum=1), column("x", "number", minimum=1.0)),
    (column("x", "number", **FLOAT, minimum=0.1), column("x", "number", **FLOAT, minimum=0.10000000149011612)),
]
"""Two ways to write the same promise."""


@pytest.mark.parametrize(("old", "new"), EQUAL)
def test_another_way_to_write_the_same_promise_breaks_nothing(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert breaking_changes(contract(old), contract(new)) == []
    assert breaking_changes(contract(new), contract(old)) == []


def test_the_same_rules_on_the_table_break_nothing() -> None:
    columns = column("x", "string"), column("y", "string")
    pair, turned = ({**ZERO, "arguments": {"properties": names}} for names in (["x", "y"], ["y", "x"]))
    assert breaking_changes(contract(*columns, quality=(pair,)), contract(*columns, quality=(turned,))) == []
    one = {**ZERO, "arguments": {"properties": ["x"]}}
    assert breaking_changes(contract(column("x", "string", unique=True)), contract(columns[0], quality=(one,))) == []
    assert [str(c) for c in breaking_changes(contract(*columns, quality=(pair,)), contract(*columns))] == [
        "the dataset: duplicateValues was x, y, is none"
    ]


def test_integers_beyond_what_floating_point_holds_are_compared_exactly() -> None:
    old, new = (contract(column("x", "integer", maximum=2**53 + more)) for more in (0, 1))
    assert [change.promise for change in breaking_changes(old, new)] == ["maximum"]


@pytest.mark.parametrize(
    ("before", "after", "announced"),
    [("1.2.3", "2.0.0", True), ("1.2.3", "1.3.0", False), ("0.1.0", "0.2.0", True), ("0.1.0", "0.1.1", False)],
)
def test_a_major_version_announces_a_breaking_change(before: str, after: str, announced: bool) -> None:
    old = contract(column("x", "integer", required=True), version=before)
    new = contract(column("x", "integer"), version=after)
    assert (unannounced_changes(old, new, ()) == []) == announced
    assert next_major("1.2.3") == "2.0.0"


def test_a_wider_range_breaks_only_models_that_read_the_column() -> None:
    old, new = contract(column("x", "number", maximum=1)), contract(column("x", "number", maximum=2))
    assert unannounced_changes(old, new, ()) == []
    assert [change.promise for change in unannounced_changes(old, new, {"x"})] == ["maximum"]


@pytest.mark.parametrize(("old", "new", "promise"), BREAKING)
def test_a_weaker_promise_is_a_breaking_change(old: dict[str, Any], new: dict[str, Any], promise: str) -> None:
    changes = breaking_changes(contract(old), contract(new))
    assert [(change.column, change.promise) for change in changes] == [("x", promise)]
    assert str(changes[0]).startswith(f"x: {promise} was ")


@pytest.mark.parametrize(("old", "new"), KEEPING)
def test_a_stricter_promise_is_not_a_breaking_change(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert breaking_changes(contract(old), contract(new)) == []


@pytest.mark.parametrize("declared", [case[0] for case in BREAKING + KEEPING])
def test_an_unchanged_contract_or_a_new_column_is_not_a_breaking_change(declared: dict[str, Any]) -> None:
    old = contract(declared)
    assert breaking_changes(old, old) == []
    assert breaking_changes(old, contract(declared, column("more", "string"))) == []


def test_a_changed_primary_key_is_a_breaking_change() -> None:
    old = contract(column("a", "string", primaryKey=True), column("b", "string", required=True))
    new = contract(column("a", "string", primaryKey=True), column("b", "string", primaryKey=True))
    assert [str(change) for change in breaking_changes(old, new)] == ["the dataset: primaryKey was a, is a, b"]


def test_a_weaker_rule_on_the_table_is_a_breaking_change() -> None:
    old = contract(quality=({"metric": "rowCount", "mustBeGreaterThan": 10},))
    new = contract(quality=({"metric": "rowCount", "mustBeGreaterOrEqualTo": 10},))
    assert [change.promise for change in breaking_changes(old, new)] == ["rowCount"]
    assert breaking_changes(new, old) == []


def test_retiring_a_dataset_is_a_breaking_change() -> None:
    changes = breaking_changes(contract(), contract(status="retired"))
    assert [change.promise for change in changes] == ["status"]
