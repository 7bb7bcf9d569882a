"""Contracts: what the standard lets them say, and what each mistake is told as."""

# ruff: noqa: E501 - a mistake and what is told of it stand on one line

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from pipelines.declarations.contract import (
    Column,
    Contract,
    EnumValue,
    Table,
    TypeOptions,
)
from pipelines.declarations.custom_properties import CustomProperty
from pipelines.declarations.documents import parse
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.quality import Quality
from pipelines.declarations.relationships import Relationship
from tests.pipelines.data.contracts import column, contract

STANDARD: dict[str, Any] = json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text())

REFUSED = {
    "Column": {"properties", "items", "map"},  # columns hold single values
    "Quality": {"rule"},  # deprecated: metric
    "TypeOptions": {"multipleOf", "maxProperties", "minProperties", "required", "maxItems", "minItems", "uniqueItems"}
    | {"dimensions", "elementType", "distanceMetric", "embeddingModel", "embeddingModelVersion", "normalized"},
}
"""Keys of the standard that bind, and that we cannot check."""


def keys_of(*names: str) -> set[str]:
    """Return the keys that the standard's definitions allow."""
    return {key for name in names for key in STANDARD["$defs"][name].get("properties", {})}


def option_keys() -> set[str]:
    branches = [
        branch.get("then", {}).get("properties", {}) for branch in STANDARD["$defs"]["SchemaBaseProperty"]["allOf"]
    ]
    return {key for branch in branches for key in branch.get("logicalTypeOptions", {}).get("properties", {})}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (Contract, set(STANDARD["properties"])),
        (Table, keys_of("SchemaElement", "SchemaObject")),
        (Column, keys_of("SchemaElement", "SchemaBaseProperty")),
        (Quality, keys_of("DataQuality", "DataQualityLibrary", "DataQualitySql", "DataQualityCustom")),
        (Quality, {key for each in STANDARD["$defs"]["DataQualityOperators"]["oneOf"] for key in each["properties"]}),
        (Relationship, keys_of("RelationshipBase")),
        (EnumValue, keys_of("EnumValue")),
        (CustomProperty, keys_of("CustomProperty")),
        (TypeOptions, option_keys()),
    ],
)
def test_every_key_of_the_standard_is_read_or_refused_for_a_reason(kind: type[BaseModel], keys: set[str]) -> None:
    known = {field.alias or name for name, field in kind.model_fields.items()}
    assert keys - known - REFUSED.get(kind.__name__, set()) == set()
    assert len(keys) > 3


DESCRIBED: dict[str, Any] = {
    "authoritativeDefinitions": [{"url": "https://example.com/definition", "type": "businessDefinition"}],
    "businessName": "Ward",
    "classification": "restricted",
    "customProperties": [{"property": "key", "value": None, "vendor": "acme"}],
    "deprecated": False,
    "encryptedName": "ward_encrypted",
    "examples": ["east", None],
    "partitioned": False,
    "partitionKeyPosition": -1,
    "primaryKeyPosition": -1,
    "relationships": [{"to": "wards.name", "type": "foreignKey"}],
    "semanticType": "dimension",
    "synonyms": [{"synonym": "unit"}],
    "transformDescription": "upper case",
    "transformLogic": "upper(ward)",
    "transformSourceObjects": ["admissions"],
    "quality": [
        {"type": "text", "description": "Wards exist."},
        {
            "metric": "nullValues",
            "mustBe": 0,
            "method": "reconciliation",
            "schedule": "0 20 * * *",
            "scheduler": "cron",
            "tags": ["daily"],
            "customProperties": [{"property": "FIELD", "value": None}],
            "authoritativeDefinitions": [{"url": "https://example.com", "type": "rule"}],
        },
    ],
}


@pytest.mark.parametrize("version", ["v3.1.0", "v3.2.0"])
def test_keys_that_only_describe_are_accepted(version: str) -> None:
    declared = contract(column("ward", "string", **DESCRIBED), apiVersion=version, context="for people")
    assert [rule.metric for rule in declared.columns["ward"].rules] == ["nullValues"]


def problems(*columns: dict[str, Any], quality: tuple[dict[str, Any], ...] = (), **keys: Any) -> list[str]:
    """Return key, expectation and finding of each problem of a contract of these columns."""
    document = json.loads(contract().model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True))
    key = {"name": "id", "logicalType": "integer", "primaryKey": True}
    document["schema"] = [{"name": "visits", "properties": [key, *columns], "quality": list(quality)}]
    text = yaml.safe_dump({**document, **keys}, sort_keys=False)
    try:
        parse(text, Contract, Path("c.yaml"))
    except DeclarationError as error:
        found = error.problems
    else:
        return []
    assert all(problem.line is not None and problem.line > 1 for problem in found)
    return [f"{problem.key}: {problem.expected}: {problem.found}" for problem in found]


X, OPTIONS = "schema[0].properties[1]", "schema[0].properties[1].logicalTypeOptions"


def listing(*values: Any) -> list[dict[str, Any]]:
    return [{"metric": "invalidValues", "arguments": {"validValues": list(values)}, "mustBe": 0}]


VALUES = f"{X}.quality[0].arguments.validValues"

RULE, RELATION = f"{X}.quality[0]", f"{X}.relationships[0]"


def quality(**rule: Any) -> dict[str, Any]:
    return column("x", "string", quality=[rule])


def relation(**keys: Any) -> dict[str, Any]:
    return column("x", "string", relationships=[keys])


MISTAKES = [
    (quality(type="sql", mustBe=0), f"{RULE}: a query for a rule of the type sql: none"),
    (quality(type="sql", query="SELECT 1"), f"{RULE}: mustBe or another bound: none"),
    (quality(type="sql", query="SELECT 1", metric="rowCount", mustBe=0), f"{RULE}: a query without metric and arguments: one with them"),
    (quality(type="sql", query="SELECT 1", mustBe=5, mustNotBe=5), f"{RULE}: bounds that any number can keep: bounds that none can"),
    (quality(query="SELECT 1", metric="nullValues", mustBe=0), f"{RULE}: type: sql for a rule with a query: type: library"),
    (quality(type="custom", engine="soda", implementation="x"), f"{RULE}.engine: duckdb, the only engine that runs here (implementation is a condition that each row keeps): 'soda'"),
    (quality(type="custom", engine="duckdb", implementation={"a": 1}), f"{RULE}.implementation: a SQL condition that each row must keep: none"),
    (quality(type="custom", engine="duckdb", implementation="{object} > 1"), f"{RULE}.implementation: a condition on the columns of one row, without braces: object"),
    (quality(type="custom", engine="duckdb", implementation="x > 1", mustBe=0), f"{RULE}: a condition without metric, arguments and bounds: one with them"),
    (quality(metric="nullValues", mustBeBetween=[5, 1]), f"{RULE}: two bounds, the smaller one first: 5 and 1"),
    (quality(metric="nullValues", mustBeBetween=[-5, 0]), f"{RULE}: bounds that a figure from 0 to any number of rows can keep: bounds that none can"),
    (quality(metric="nullValues", mustBe=0, unit="kg"), f"{RULE}.unit: rows or percent: 'kg'"),
    (quality(metric="nullValues", mustBe=True), None),
    (quality(metric="nullValues", mustBe=0, arguments={"missingValues": ["x"]}), f"{RULE}.arguments.missingValues: missingValues for the metric missingValues only: nullValues"),
    (quality(metric="invalidValues", mustBe=0), f"{RULE}: arguments.validValues or arguments.pattern for the metric invalidValues: none"),
    (column("x", "integer", quality=[{"metric": "invalidValues", "mustBe": 0, "arguments": {"pattern": "[0-9]+"}}]), f"{RULE}.arguments.pattern: a pattern on columns of type string only: it on integer"),
    (column("x", "integer", quality=[{"metric": "missingValues", "mustBe": 0, "arguments": {"missingValues": [None, "", "N/A"]}}]), f"{RULE}.arguments.missingValues[2]: an integer of 64 bits, null or the empty text: 'N/A'"),
    (relation(to="wards"), f"{RELATION}: <dataset>.<column> of a contract in data-contracts/, or the custom property enforced with the value false: 'wards'"),
    (relation(to="other.odcs.yaml#wards.name"), None),
    (relation(to="wards.name", **{"from": "visits.x"}), f"{RELATION}: no `from` in the relationship of a column: one"),
    (relation(to=["wards.name", "wards.floor"]), f"{RELATION}: as many columns as it refers to (2): 1"),
    (relation(to=["wards.name", "floors.number"]), f"{RELATION}: columns of one dataset: floors, wards"),
    (relation(to="wards.name", customProperties=[{"property": "enforced", "value": "no"}]), f"{RELATION}: true or false as value of enforced: 'no'"),
    (column("x", "integer", physicalType="int", quality=listing("1")), f"{VALUES}[0]: an integer of 32 bits: '1'"),
    (column("x", "integer", quality=listing(True)), f"{VALUES}[0]: an integer of 64 bits: True"),
    (column("x", "integer", quality=listing(1.5)), f"{VALUES}[0]: an integer of 64 bits: 1.5"),
    (column("x", "integer", physicalType="int", quality=listing(2**31)), f"{VALUES}[0]: an integer of 32 bits: {2**31}"),
    (column("x", "string", quality=listing([2])), f"{VALUES}[0]: string or integer or number or boolean: a list of 1"),
    (column("x", "integer", minimum=5, quality=listing(1)), f"{VALUES}: a value that the column's other rules allow: none"),
    (column("x", "integer", enum=[{"value": "a"}]), f"{X}.enum[0]: an integer of 64 bits: 'a'"),
    (column("x", "date", minimum="2026-02-30"), f"{OPTIONS}.minimum: a date in quotes ('2026-01-31'): '2026-02-30'"),
    (column("x", "date", minimum=5), f"{OPTIONS}.minimum: a date in quotes ('2026-01-31'): 5"),
    (column("x", "timestamp", maximum="2026-01-01T00:00:00+25:00"), None),
    (column("x", "integer", minimum=2, maximum=1), f"{OPTIONS}: bounds that a value can keep: minimum 2 and maximum 1"),
    (column("x", "integer", exclusiveMinimum=1, exclusiveMaximum=2), None),
    (column("x", "integer", minimum=10**400), None),
    (column("x", "number", minimum=10**400), f"{OPTIONS}.minimum: a number: 1{76 * '0'}…"),
    (column("x", "integer", quality=listing(10**400)), None),
    (column("x", "integer", physicalType="int", minimum=2**31), None),
    (column("x", "number", exclusiveMinimum=1, maximum=1), None),
    (column("x", "string", minLength=3, maxLength=2), f"{OPTIONS}.minLength: at most maxLength (2): 3"),
    (column("x", "string", minimum=1), f"{OPTIONS}.minimum: minimum on columns of type integer, number, date or timestamp only: it on string"),
    (column("file_row_number", "integer"), f"{X}.name: a name that the query engine does not reserve: 'file_row_number'"),
    (column("x", "date", partitioned=True), f"{X}.partitioned: partitioned: false, because tables are not partitioned: true"),
    (column("x", "number", physicalType="decimal(38,2)"), f"{X}.physicalType: one of double, float, double precision, float8, real, float4, decimal(p, s) of at most 15 digits (logicalType is number): 'decimal(38,2)'"),
    (column("x", "string", physicalType="uuid"), f"{X}.physicalType: one of string, varchar, text, varchar(n), char(n) (logicalType is string): 'uuid'"),
    (column("x", "string", physicalType="varchar(2)", minLength=3), f"{OPTIONS}.minLength: at most maxLength (2): 3"),
    (column("x", "string", quality=[{"metric": "nullValues", "unit": "percent", "mustBe": 150}]), None),
    (column("x", "string", quality=[{"type": "text", "metric": "nullValues", "mustBe": 0}]), None),
    (column("x", "string", quality=[{"metric": "rowCount", "mustBe": 1}]), None),
    (column("x", "string", requird=True), None),
    ({"nam": "x", "logicalType": "string"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "told"), MISTAKES)
def test_a_mistake_in_a_column_is_told_once_at_its_key(declared: dict[str, Any], told: str | None) -> None:
    found = problems(declared)
    assert len(found) == 1
    assert found[0].startswith(X)
    assert told is None or found == [told]


def test_mistakes_in_rules_of_the_table_are_told_at_their_keys() -> None:
    rules = (
        {"metric": "nullValues", "mustBe": 0},
        {"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["id", "y"]}},
    )
    assert [
        text.partition(":")[0] for text in problems(column("x", "string"), column("x", "string"), quality=rules)
    ] == [
        "schema[0].properties[2].name",
        "schema[0].quality[0].metric",
        "schema[0].quality[1].arguments.properties[1]",
    ]


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"property": "maximumQuarantinedPercent", "value": 101}, "value"),
        ({"property": "maximumQuarantinedPercent", "value": "5"}, "value"),
        ({"property": "maxQuarantinedPercent", "value": 5}, "property"),
    ],
)
def test_the_bound_on_bad_rows_is_a_percentage_and_no_typo(entry: dict[str, Any], key: str) -> None:
    (found,) = problems(customProperties=[entry])
    assert found.startswith(f"customProperties[0].{key}: ")


def test_the_default_bound_on_bad_rows_is_20_percent() -> None:
    assert contract(customProperties=[]).maximum_quarantined == 20


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
option = st.sampled_from(sorted(option_keys()))
columns = st.fixed_dictionaries(
    {
        "name": st.just("x") | anything,
        "logicalType": st.sampled_from(["string", "integer", "number", "date", "timestamp"]),
    },
    optional={
        "physicalType": st.sampled_from(["int", "float", "text", "?"]),
        "logicalTypeOptions": st.dictionaries(option, st.integers() | st.floats() | st.text(max_size=12), max_size=3),
        "enum": st.lists(st.fixed_dictionaries({"value": anything}), max_size=3),
        "quality": st.lists(anything, max_size=2),
        "examples": anything,
    },
)


@settings(max_examples=150)
@given(declared=columns)
def test_any_column_is_accepted_or_refused_with_its_place(declared: dict[str, Any]) -> None:
    problems(declared)
