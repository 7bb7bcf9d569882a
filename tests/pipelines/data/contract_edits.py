"""Pairs of contracts that differ in one place. Needs the standard library only: other programs read them, too."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

Document = dict[str, Any]


class Edit(NamedTuple):
    """A difference between two contracts.

    Attributes:
        name: what differs.
        before, after: the two versions of the column `x`, without its name; None if the column is absent.
        table: quality rules of the table in the two versions.
    """

    name: str
    before: Document | None
    after: Document | None
    table: tuple[list[Document], list[Document]] = ([], [])


def _options(kind: str, **options: Any) -> Document:
    return {"logicalType": kind, "logicalTypeOptions": options}


def _rule(metric: str, kind: str = "string", **keys: Any) -> Document:
    return {"logicalType": kind, "quality": [{"id": "rule", "metric": metric, **keys}]}


def _table(metric: str, **keys: Any) -> list[Document]:
    return [{"id": "rule", "metric": metric, **keys}]


def _sql(query: str, **keys: Any) -> list[Document]:
    return [{"id": "rule", "type": "sql", "query": query, **keys}]


def _enum(*values: Any) -> Document:
    return {"logicalType": "string", "enum": [{"value": value} for value in values]}


_TEXT, _WHOLE, _NUMBER = {"logicalType": "string"}, {"logicalType": "integer"}, {"logicalType": "number"}
_COUNT = "SELECT count(*) FROM {object}"


def _both_ways(name: str, less: Document | None, more: Document | None) -> Iterator[Edit]:
    """Yield the edit from the weaker to the stricter version, and back."""
    yield Edit(f"{name} added", less, more)
    yield Edit(f"{name} removed", more, less)


def _stricter(name: str, loose: Document, strict: Document) -> Iterator[Edit]:
    yield Edit(f"{name} stricter", loose, strict)
    yield Edit(f"{name} looser", strict, loose)


def edits() -> list[Edit]:
    """Return every pair."""
    found = [
        Edit("nothing", _TEXT, _TEXT),
        Edit("description", _TEXT, {**_TEXT, "description": "Where."}),
        Edit("classification", _TEXT, {**_TEXT, "classification": "restricted"}),
        Edit("type", _TEXT, _WHOLE),
        Edit("pattern changed", _options("string", pattern="[a-z]+"), _options("string", pattern="[a-y]+")),
        *_both_ways("column", None, _TEXT),
        *_both_ways("required", _TEXT, {**_TEXT, "required": True}),
        *_both_ways("required false", _TEXT, {**_TEXT, "required": False}),
        *_both_ways("unique", _TEXT, {**_TEXT, "unique": True}),
        *_both_ways("pattern", _TEXT, _options("string", pattern="[a-z]+")),
        *_both_ways("minimum", _WHOLE, _options("integer", minimum=1)),
        *_both_ways("maximum", _NUMBER, _options("number", maximum=1.5)),
        *_both_ways("exclusiveMinimum", _NUMBER, _options("number", exclusiveMinimum=0)),
        *_both_ways("exclusiveMaximum", _WHOLE, _options("integer", exclusiveMaximum=10)),
        *_both_ways("minLength", _TEXT, _options("string", minLength=2)),
        *_both_ways("maxLength", _TEXT, _options("string", maxLength=2)),
        *_both_ways("enum", _TEXT, _enum("a", "b")),
        *_stricter("minimum", _options("integer", minimum=1), _options("integer", minimum=2)),
        *_stricter("maximum", _options("number", maximum=2), _options("number", maximum=1)),
        *_stricter("date", _options("date", minimum="2026-01-01"), _options("date", minimum="2026-02-01")),
        *_stricter("maxLength", _options("string", maxLength=3), _options("string", maxLength=2)),
        *_stricter("minLength", _options("string", minLength=2), _options("string", minLength=3)),
        *_stricter("bound excluded", _options("number", minimum=1), _options("number", exclusiveMinimum=1)),
        *_stricter("whole bound", _options("integer", minimum=1), _options("integer", exclusiveMinimum=0)),
        *_stricter("enum", _enum("a", "b"), _enum("a")),
        Edit("enum exchanged", _enum("a", "b"), _enum("a", "c")),
        Edit("enum reordered", _enum("a", "b"), _enum("b", "a")),
        *_both_ways("nullValues", _TEXT, _rule("nullValues", mustBe=0)),
        *_both_ways("invalidValues", _TEXT, _rule("invalidValues", arguments={"validValues": ["a"]}, mustBe=0)),
        *_both_ways("duplicateValues", _TEXT, _rule("duplicateValues", mustBe=0)),
        *_stricter("nullValues", _rule("nullValues", mustBeLessThan=10), _rule("nullValues", mustBeLessThan=5)),
        *_stricter(
            "percent",
            _rule("nullValues", mustBeLessThan=10, unit="percent"),
            _rule("nullValues", mustBeLessThan=5, unit="percent"),
        ),
        *_stricter("operator", _rule("nullValues", mustBeLessOrEqualTo=5), _rule("nullValues", mustBeLessThan=5)),
        *_stricter("between", _rule("nullValues", mustBeBetween=[1, 9]), _rule("nullValues", mustBeBetween=[2, 8])),
        *_stricter("mustNotBe", _rule("nullValues", mustBeLessThan=9), _rule("nullValues", mustBe=3)),
        *_stricter(
            "validValues",
            _rule("invalidValues", arguments={"validValues": ["a", "b"]}, mustBeLessThan=3),
            _rule("invalidValues", arguments={"validValues": ["a"]}, mustBeLessThan=3),
        ),
        *_stricter(
            "missingValues",
            _rule("missingValues", arguments={"missingValues": [None]}, mustBeLessThan=3),
            _rule("missingValues", arguments={"missingValues": [None, "N/A"]}, mustBeLessThan=3),
        ),
        Edit(
            "rule about pattern",
            _rule("invalidValues", arguments={"pattern": "a+"}, mustBe=0),
            _rule("invalidValues", arguments={"pattern": "b+"}, mustBe=0),
        ),
        Edit("unit", _rule("nullValues", mustBeLessThan=9), _rule("nullValues", mustBeLessThan=9, unit="percent")),
        *_both_ways(
            "warning",
            _rule("nullValues", mustBe=0, severity="warning"),
            _rule("nullValues", mustBe=0, severity="error"),
        ),
        Edit("text rule", _TEXT, {**_TEXT, "quality": [{"id": "rule", "type": "text", "description": "Fine."}]}),
        *_both_ways("foreign key", _TEXT, {**_TEXT, "relationships": [{"to": "wards.name"}]}),
        Edit(
            "foreign key changed",
            {**_TEXT, "relationships": [{"id": "ward", "to": "wards.name"}]},
            {**_TEXT, "relationships": [{"id": "ward", "to": "wards.code"}]},
        ),
    ]
    for name, loose, strict in (
        ("rowCount", [], _table("rowCount", mustBeGreaterThan=0)),
        ("rowCount bound", _table("rowCount", mustBeGreaterThan=0), _table("rowCount", mustBeGreaterThan=10)),
        ("rowCount between", _table("rowCount", mustBeBetween=[1, 99]), _table("rowCount", mustBeBetween=[10, 90])),
        ("sql", [], _sql(_COUNT, mustBeGreaterThan=0)),
        ("sql bound", _sql(_COUNT, mustBeGreaterThan=0), _sql(_COUNT, mustBeGreaterThan=10)),
        ("unique together", [], _table("duplicateValues", arguments={"properties": ["id", "x"]}, mustBe=0)),
        (
            "duplicates together",
            _table("duplicateValues", arguments={"properties": ["x"]}, mustBeLessThan=9),
            _table("duplicateValues", arguments={"properties": ["x"]}, mustBeLessThan=5),
        ),
    ):
        found.append(Edit(f"table: {name} stricter", _TEXT, _TEXT, (loose, strict)))
        found.append(Edit(f"table: {name} looser", _TEXT, _TEXT, (strict, loose)))
    other = "SELECT count(*) FROM {object} WHERE x = 'a'"
    found.append(Edit("table: query", _TEXT, _TEXT, (_sql(_COUNT, mustBe=1), _sql(other, mustBe=1))))
    return found


def documents(edit: Edit) -> tuple[Document, Document]:
    """Return the two contracts of an edit."""
    return _contract(edit.before, edit.table[0]), _contract(edit.after, edit.table[1])


def fingerprint(edit: Edit) -> str:
    """Return a digest of the two contracts, by which a record of verdicts is matched with them."""
    return hashlib.sha256(json.dumps(documents(edit), sort_keys=True).encode()).hexdigest()[:16]


def _contract(column: Document | None, rules: list[Document]) -> Document:
    properties: list[Document] = [{"name": "id", "logicalType": "integer", "primaryKey": True}]
    if column is not None:
        properties.append({"name": "x", **copy.deepcopy(column)})
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "urn:test:visits",
        "name": "visits",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "visits", "properties": properties, "quality": copy.deepcopy(rules)}],
    }
