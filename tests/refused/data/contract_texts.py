"""Contracts that must be refused, with words that name what is wrong: YAML tricks, names, types, rules and sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

GOOD = """\
apiVersion: v3.1.0
kind: DataContract
id: urn:test:visits
name: visits
version: 1.0.0
status: active
schema:
  - name: visits
    properties:
      - {name: id, logicalType: integer, primaryKey: true}
      - {name: age, logicalType: integer}
"""
COLUMN = "      - {name: age, logicalType: integer}\n"


class Case(NamedTuple):
    """A contract.

    Attributes:
        name: what is wrong.
        content: the bytes of the file, or a function that makes them.
        words: part of the reason why it is refused.
    """

    name: str
    content: bytes | Callable[[], bytes]
    words: str

    def make(self) -> bytes:
        """Return the bytes of the file."""
        return self.content if isinstance(self.content, bytes) else self.content()


def _with(old: str, new: str) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new, 1).encode()


def _column(keys: str) -> bytes:
    return _with(COLUMN, f"      - {{name: age, {keys}}}\n")


def _rule(rule: str, kind: str = "integer") -> bytes:
    return _column(f"logicalType: {kind}, quality: [{{{rule}}}]")


def _option(option: str, kind: str = "integer") -> bytes:
    return _column(f"logicalType: {kind}, logicalTypeOptions: {{{option}}}")


def _laughs() -> bytes:
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    return "\n".join(lines).encode()


def yaml_tricks() -> Iterator[Case]:
    """What YAML parsers fall for."""
    yield Case("billion laughs", _laughs, "anchor")
    yield Case("an alias", _with("kind: DataContract", "kind: &k DataContract\ndomain: *k"), "anchor")
    yield Case("a merge key", _with("kind: DataContract", "<<: {kind: DataContract}"), "a merge")
    yield Case("a python object", _with("urn:test:visits", "!!python/object/apply:os.system [ls]"), "tag")
    yield Case("a tag of a plain type", _with("version: 1.0.0", "version: !!str 1.0.0"), "tag")
    yield Case("two documents", (GOOD + "---\n" + GOOD).encode(), "YAML document")
    yield Case("a duplicate key", (GOOD + "name: visits\n").encode(), "name")
    yield Case("deep nesting", b"[" * 5000 + b"]" * 5000, "levels")
    yield Case("deep flow mappings", b"{a: " * 5000 + b"}" * 5000, "levels")
    yield Case("2 MB", lambda: GOOD.encode() + b"# " + b"x" * (2 << 20), "at most")
    yield Case("an empty file", b"", "keys and values")
    yield Case("a list", b"- 1\n", "keys and values")
    yield Case("a scalar", b"visits", "keys and values")
    yield Case("latin-1", _with("urn:test:visits", "urn:é").replace("é".encode(), b"\xe9"), "UTF-8")
    yield Case("utf-16", GOOD.encode("utf-16"), "UTF-8")
    yield Case("a byte order mark", b"\xef\xbb\xbf" + GOOD.encode(), "byte order mark")
    yield Case("a zero byte", GOOD.encode().replace(b"urn:test", b"urn:\0est"), "YAML document")
    yield Case("a control character", GOOD.encode().replace(b"urn:test", b"urn:\x1best"), "YAML document")
    yield Case("tabs as indentation", GOOD.replace("    properties", "\tproperties").encode(), "YAML document")
    yield Case("an unclosed quote", (GOOD + 'domain: "x\n').encode(), "YAML document")
    yield Case("JSON with a comma too many", b'{"name": "visits",,}', "YAML document")
    yield Case("an html page", b"<!doctype html><html></html>", "keys and values")


def names() -> Iterator[Case]:
    """Names that lead elsewhere, or that look like others."""
    for name, found in {
        "a path": "../visits",
        "a slash": "a/b",
        "upper case": "Visits",
        "a space": "'vis its'",
        "a quote": '"vis\\"its"',
        "a semicolon": "'visits; drop'",
        "a look-alike": "vіsits",
        "one letter": "v",
        "41 letters": "v" * 41,
        "a leading hyphen": "'-visits'",
        "a line end": '"visits\\n"',
    }.items():
        yield Case(f"dataset with {name}", GOOD.replace("name: visits", f"name: {found}").encode(), "name: expected")
    for name, found in {
        "a quote": "'a\"b'",
        "a dot": "a.b",
        "a hyphen": "a-b",
        "a leading underscore": "_row",
        "upper case": "Age",
        "64 letters": "a" * 64,
        "nothing": "''",
        "a zero-width space": '"a\\u200bge"',
        "a reserved name": "file_row_number",
    }.items():
        yield Case(f"column with {name}", _with("name: age", f"name: {found}"), "properties[1].name: expected")
    yield Case("two columns of one name", _with("name: age", "name: id"), "a name that no other property has")


def rules() -> Iterator[Case]:
    """Types, bounds and quality rules that cannot be checked or kept."""
    yield Case("an unknown version of the standard", _with("v3.1.0", "v9.0.0"), "apiVersion")
    yield Case("a version that is not semantic", _with("1.0.0", "latest"), "version")
    yield Case("an unknown key", (GOOD + "columns: []\n").encode(), "columns")
    yield Case("two tables", (GOOD + GOOD[GOOD.index("  - name: visits") :]).encode(), "schema")
    yield Case("no primary key", _with(", primaryKey: true", ""), "primaryKey")
    yield Case("no columns", GOOD[: GOOD.index("    properties")].encode() + b"    properties: []\n", "properties")
    yield Case("an array", _column("logicalType: array, items: {logicalType: string}"), "logicalType")
    yield Case("a physical type of another type", _column("logicalType: integer, physicalType: text"), "physicalType")
    yield Case("a bound of another type", _option("minimum: '2026-01-01'"), "minimum")
    yield Case("bounds that no value keeps", _option("minimum: 5, maximum: 1"), "bounds that a value can keep")
    yield Case("an infinite bound", _option("minimum: .inf"), "minimum")
    yield Case("not a number as bound", _option("maximum: .nan", "number"), "maximum")
    yield Case("a huge bound", _option(f"maximum: {'9' * 5000}"), "digits")
    yield Case("a pattern on numbers", _option("pattern: '[0-9]+'"), "pattern")
    yield Case("a negative length", _option("minLength: -1", "string"), "minLength")
    yield Case("multipleOf", _option("multipleOf: 5"), "multipleOf")
    yield Case("an empty enum", _column("logicalType: string, enum: []"), "enum")
    yield Case("a rule without a bound", _rule("metric: nullValues"), "mustBe or another bound")
    yield Case("an unknown metric", _rule("metric: freshness, mustBe: 0"), "metric")
    yield Case("two bounds of text", _rule("metric: nullValues, mustBe: none"), "mustBe")
    yield Case("101 percent", _rule("metric: nullValues, mustBe: 101, unit: percent"), "can keep")
    yield Case("fewer than no rows", _rule("metric: nullValues, mustBeLessThan: 0"), "can keep")
    yield Case("a soda check", _rule("type: custom, engine: soda, implementation: x"), "engine")
    yield Case("sql without a query", _rule("type: sql, mustBe: 0"), "query")
    yield Case("sql of 1 MB", lambda: _rule(f"type: sql, query: SELECT {'1' * 100_000}, mustBe: 0"), "query")
    yield Case("a condition on tables", _rule("type: custom, engine: duckdb, implementation: '{object} > 1'"), "braces")
    yield Case("an unknown argument", _rule("metric: nullValues, arguments: {x: 1}, mustBe: 0"), "arguments")
    yield Case(
        "valid values of another type",
        _rule("metric: invalidValues, arguments: {validValues: [a]}, mustBe: 0"),
        "validValues",
    )
    yield Case(
        "a relation to a file", _column("logicalType: integer, relationships: [{to: /etc/passwd}]"), "relationships[0]"
    )
    yield Case(
        "a relation to a website",
        _column("logicalType: integer, relationships: [{to: 'https://x.example/a.yaml#a.b'}]"),
        "relationships[0]",
    )
    yield Case(
        "a frequency of text",
        (GOOD + "slaProperties: [{property: frequency, value: daily, unit: d}]\n").encode(),
        "frequency",
    )
    yield Case(
        "a bound on bad rows above 100",
        (GOOD + "customProperties: [{property: maximumQuarantinedPercent, value: 101}]\n").encode(),
        "percentage",
    )
    yield Case(
        "a monitor of text",
        (GOOD + "customProperties: [{property: monitoring, value: yes}]\n").encode(),
        "an object with",
    )


def cases() -> list[Case]:
    """Return every contract."""
    return [case for kind in (yaml_tricks, names, rules) for case in kind()]
