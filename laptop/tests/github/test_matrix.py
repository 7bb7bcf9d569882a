"""Matrix combinations: the examples of GitHub's documentation."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from laptop.github.expressions.evaluator import EvaluationScope
from laptop.github.expressions.syntax import ExpressionError
from laptop.github.runner.matrix import legs
from laptop.github.workflow.workflow_file import read_workflow


def combinations(matrix: str, needs: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    job = {
        "runs-on": "ubuntu-latest",
        "needs": ["p"],
        "steps": [{"run": "x"}],
        "strategy": {"matrix": yaml.safe_load(matrix)},
    }
    first = {
        "runs-on": "ubuntu-latest",
        "steps": [{"id": "s", "run": "x"}],
        "outputs": {"m": "${{ steps.s.outputs.m }}"},
    }
    workflow = read_workflow(json.dumps({"on": "push", "jobs": {"p": first, "j": job}}).encode(), "x.yml")
    strategy = workflow.jobs["j"].strategy
    assert strategy is not None
    return legs(strategy, EvaluationScope({"needs": needs or {}}, {}))


def test_axes_multiply_in_order() -> None:
    assert combinations("{a: [1, 2], b: [x, y]}") == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_exclude_removes_partial_matches() -> None:
    assert combinations("{a: [1, 2], b: [x, y], exclude: [{a: 1}, {a: 2, b: y}]}") == [{"a": 2, "b": "x"}]


def test_include_extends_matching_combinations_and_adds_the_rest() -> None:
    found = combinations(
        """{fruit: [apple, pear], animal: [cat, dog], include: [{color: green}, {color: pink, animal: cat},
        {fruit: apple, shape: circle}, {fruit: banana}, {fruit: banana, animal: cat}]}"""
    )
    assert found == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ("{v: ['1', 2], exclude: [{v: 1}]}", [{"v": 2}]),
        ("{v: [true, 2], exclude: [{v: 'true'}]}", [{"v": True}, {"v": 2}]),
        ("{v: [null, 2], exclude: [{v: 0}]}", [{"v": 2}]),
        ("{v: [null, 2], exclude: [{v: ''}]}", [{"v": 2}]),
        ("{os: [Linux, macOS], exclude: [{OS: linux}]}", [{"os": "macOS"}]),
        ("{os: [Linux], include: [{os: linux, x: 1}]}", [{"os": "Linux", "x": 1}]),
        ("{v: [{a: 1, b: 2}, {a: 3, b: 2}], exclude: [{v: {a: 1}}]}", [{"v": {"a": 3, "b": 2}}]),
        ("{v: [[1, 2], [1, 3]], exclude: [{v: [1, 2]}]}", [{"v": [1, 3]}]),
        ("{v: [{a: 1}], include: [{v: {a: '1'}, x: 1}]}", [{"v": {"a": 1}, "x": 1}]),
        ("{v: [1], include: [{x: 1}, {x: 2}]}", [{"v": 1, "x": 2}]),
        ("{include: [{x: 1}, {y: 2}]}", [{"x": 1}, {"y": 2}]),
        ("{v: [1], exclude: [{v: 1}]}", []),
    ],
)
def test_filters_compare_leaf_by_leaf_as_expressions_do(matrix: str, expected: list[dict[str, Any]]) -> None:
    assert combinations(matrix) == expected


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ("{v: []}", "Matrix vector 'v' does not contain any values"),
        ("{v: [1], w: []}", "Matrix vector 'w' does not contain any values"),
        ("{include: []}", "Matrix must define at least one vector"),
        ("{v: [1], exclude: [{}]}", "Matrix exclude filter must not be empty"),
        ("{v: [1], exclude: [{w: 1}]}", "Matrix exclude key 'w' does not match any key within the matrix"),
        ("{v: [1], include: [{}]}", "Matrix include mapping does not contain any values"),
        ("{v: [1], exclude: [1]}", "matrix.exclude is not a list of objects"),
    ],
)
def test_a_matrix_that_is_a_mistake_fails_its_job(matrix: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        combinations(matrix)
    assert message in str(caught.value)


def test_a_matrix_can_come_from_an_output() -> None:
    needs = {"p": {"outputs": {"m": '{"include": [{"model": "a"}, {"model": "b"}]}'}}}
    assert combinations("${{ fromJSON(needs.p.outputs.m) }}", needs) == [{"model": "a"}, {"model": "b"}]
    axis = {"p": {"outputs": {"m": "[1, 2]"}}}
    assert combinations("{v: '${{ fromJSON(needs.p.outputs.m) }}'}", axis) == [{"v": 1}, {"v": 2}]


@pytest.mark.parametrize("output", ["[1]", '{"a": 1}', '{"include": [1]}', '{"a": ' + str(list(range(300))) + "}"])
def test_an_output_that_is_not_a_matrix_is_an_error(output: str) -> None:
    with pytest.raises(ExpressionError):
        combinations("${{ fromJSON(needs.p.outputs.m) }}", {"p": {"outputs": {"m": output}}})
