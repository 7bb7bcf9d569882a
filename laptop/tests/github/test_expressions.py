"""Expressions: each row is a sentence or an example of GitHub's documentation."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.github.expressions.builtin_functions import check_names
from laptop.github.expressions.evaluator import EvaluationScope, evaluate, render
from laptop.github.expressions.parser import parse, parse_condition, parse_template
from laptop.github.expressions.syntax import ExpressionError, calls_status_function

CONTEXTS: dict[str, Any] = {
    "github": {"event_name": "push", "ref": "refs/heads/main", "event": {"issue": {"labels": [{"name": "Bug"}, {}]}}},
    "env": {"A-b": "x", "NUMBER": "3"},
    "matrix": {"list": [1, 2, 3], "deep": {"scallions": {"parts": ["roots"]}, "beets": {"parts": ["stems", "leaves"]}}},
    "steps": {"one": {"outputs": {"ok": "true"}, "outcome": "success"}},
}
FUNCTIONS = {"success": lambda: True, "failure": lambda: False}


def value_of(text: str) -> Any:
    return evaluate(parse(text), EvaluationScope(CONTEXTS, FUNCTIONS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # literals
        ("null", None),
        ("true", True),
        ("711", 711),
        ("-9.2", -9.2),
        ("0xff", 255),
        ("-2.99e-2", -0.0299),
        ("'It''s open source!'", "It's open source!"),
        ("'}}'", "}}"),
        # operators and their precedence
        ("!true || true", True),
        ("true || false && false", True),
        ("(true || false) && false", False),
        ("1 < 2 == true", True),
        ("!false == true", True),
        ("'' || 'default'", "default"),
        ("'a' && 'b'", "b"),
        ("0 || null || ''", ""),
        ("false && 'never'", False),
        # loose comparison: both sides become numbers when their types differ
        ("null == 0", True),
        ("null == ''", True),
        ("true == 1", True),
        ("true == 'true'", False),
        ("'3' == 3", True),
        ("'0x10' == 16", True),
        ("'' == 0", True),
        ("' ' == 0", True),
        ("'x' == 0", False),
        ("env.NUMBER >= 3", True),
        ("'abc' < 'ABD'", True),
        ("'x' > 1", False),
        ("'x' <= 1", False),
        ("null >= null", True),
        # strings are compared without case
        ("'Push' == github.event_name", True),
        ("'straße' == 'STRASSE'", True),
        # objects and arrays are equal only to themselves
        ("matrix.list == matrix.list", True),
        ("fromJSON('[]') == fromJSON('[]')", False),
        # dereferencing
        ("github.event_name", "push"),
        ("github['event_name']", "push"),
        ("GitHub.Event_Name", "push"),
        ("env.A-b", "x"),
        ("github.nothing.below.it", None),
        ("matrix.list[1]", 2),
        ("matrix.list[1.9]", 2),
        ("matrix.list[9]", None),
        ("matrix.list['1']", 2),
        # the object filter
        ("github.event.issue.labels.*.name", ["Bug"]),
        ("join(matrix.deep.*.parts.*)", "roots,stems,leaves"),
        ("matrix.list.*", [1, 2, 3]),
        ("join(matrix.deep.*.parts[0], '+')", "roots+stems"),
        # functions
        ("contains('Hello world', 'LLO')", True),
        ("contains(github.event.issue.labels.*.name, 'bug')", True),
        ('contains(fromJSON(\'["push", "pull_request"]\'), github.event_name)', True),
        ("contains('12345', 34)", True),
        ("contains(matrix.list, '2')", True),
        ("contains(null, '')", True),
        ("startsWith('Hello world', 'he')", True),
        ("startsWith(github.ref, 'refs/tags/')", False),
        ("endsWith('Hello world', 'LD')", True),
        ("format('Hello {0} {1} {2}', 'Mona', 'the', 'Octocat')", "Hello Mona the Octocat"),
        ("format('{{Hello {0}!}}', 'Mona')", "{Hello Mona!}"),
        ("format('{0}{0}', true)", "truetrue"),
        ("join(matrix.list)", "1,2,3"),
        ("join('text', '-')", "text"),
        ("toJSON(matrix.list)", "[\n  1,\n  2,\n  3\n]"),
        ("toJSON(1)", "1"),
        ("fromJSON('{\"a\": [1]}').a[0]", 1),
        ("fromJSON('true') == true", True),
        ("case(github.ref == 'refs/heads/main', 'production', 'development')", "production"),
        ("case(false, fromJSON('broken'), 'default')", "default"),
        ("SUCCESS() && !failure()", True),
    ],
)
def test_an_expression_has_the_documented_value(text: str, expected: Any) -> None:
    found = value_of(text)
    assert found == expected
    assert isinstance(found, bool) == isinstance(expected, bool)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('"double"', '"double"'),
        ("a b", "'b'"),
        ("github.", "unexpected end"),
        ("1 ==", "unexpected end"),
        ("(1", "unexpected end"),
        ("github..ref", "'.'"),
        ("1abc", "1abc"),
        ("a = b", "'='"),
        ("a & b", "'&'"),
        ("'open", "'"),
        ("", "empty"),
        ("contains('a')", "contains(): expected 2"),
        ("toJSON()", "toJSON(): expected 1"),
        ("success(1)", "success(): expected 0"),
        ("case(true, 1)", "odd number"),
        ("(" * 60 + "1" + ")" * 60, "nested"),
        ("1" + " == 1" * 60, "nested"),
        ("!" * 60 + "1", "nested"),
        ("github" + ".x" * 60, "nested"),
        ("1" + " " * 30_000, "characters"),
    ],
)
def test_an_invalid_expression_is_an_error_with_a_reason(text: str, named: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nope(1)", "unknown function 'nope'"),
        ("gitub.ref", "unknown context 'gitub'"),
        ("secrets.KEY", "the context 'secrets' is not available here"),
        ("hashFiles('x')", "the function 'hashFiles' is not available here"),
    ],
)
def test_an_unknown_or_unavailable_name_is_an_error(text: str, named: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        check_names(parse(text), {"github", "env"}, {"success"})
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["fromJSON('{')", "format('{1}', 1)", "format('{')", "format('}')", "case(1, 2, 3)", "nope()", "nope.x"],
)
def test_a_function_rejects_invalid_arguments(text: str) -> None:
    with pytest.raises(ExpressionError):
        value_of(text)


def test_nested_formats_cannot_exhaust_memory() -> None:
    text = "format('{0}{0}{0}{0}{0}{0}{0}{0}', 'xxxxxxxxxxxxxxxx')"
    for _ in range(6):
        text = f"format('{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}{{0}}', {text})"
    with pytest.raises(ExpressionError, match="at most"):
        value_of(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("${{ 1 }}", 1),
        ("${{ true }}", True),
        ("a ${{ 1 }}b${{ null }}c ${{ true }}", "a 1bc true"),
        ("${{ '}}' }}", "}}"),
        ("${{ matrix.list }}!", "Array!"),
    ],
)
def test_a_template_of_one_expression_keeps_its_type(text: str, expected: Any) -> None:
    assert render(parse_template(text), EvaluationScope(CONTEXTS, {})) == expected


def test_an_unclosed_expression_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="not closed"):
        parse_template("echo ${{ github.ref }")


def test_text_around_an_expression_in_a_condition_is_an_error() -> None:
    with pytest.raises(ExpressionError, match="always true"):
        parse_condition("${{ github.ref }} == 'refs/heads/main'")


@pytest.mark.parametrize(
    ("text", "asks"),
    [("always()", True), ("${{ !cancelled() && true }}", True), ("github.ref == 'success()'", False), ("true", False)],
)
def test_success_is_implied_unless_a_status_function_is_called(text: str, asks: bool) -> None:
    assert calls_status_function(parse_condition(text)) is asks


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
@settings(max_examples=40)
def test_fromjson_reverses_tojson(value: Any) -> None:
    scope = EvaluationScope({"github": {"event": value}}, {})
    assert evaluate(parse("fromJSON(toJSON(github.event))"), scope) == value
    assert json.loads(evaluate(parse("toJSON(github.event)"), scope)) == value


@given(text=st.text(alphabet="abc01.'()[]!=<>&|*, -${}", max_size=24))
@settings(max_examples=150)
def test_any_text_parses_or_raises_an_expression_error(text: str) -> None:
    try:
        found = evaluate(parse(text), EvaluationScope({}, {}))
    except ExpressionError:
        return
    assert found is None or isinstance(found, str | int | float | list) or math.isnan(found)
