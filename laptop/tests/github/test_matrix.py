"""The combinations of a matrix, by the examples of GitHub's documentation."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from laptop.github.expressions import ExpressionError, Scope
from laptop.github.matrix import legs
from laptop.github.reading import read_workflow


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
    return legs(strategy, Scope({"needs": needs or {}}, {}))


def test_axes_are_multiplied_in_order() -> None:
    assert combinations("{a: [1, 2], b: [x, y]}") == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_exclude_takes_out_whatever_matches_it_in_part() -> None:
    assert combinations("{a: [1, 2], b: [x, y], exclude: [{a: 1}, {a: 2, b: y}]}") == [{"a": 2, "b": "x"}]


def test_include_extends_what_it_fits_and_adds_the_rest() -> None:
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


def test_a_matrix_comes_from_an_output() -> None:
    needs = {"p": {"outputs": {"m": '{"include": [{"model": "a"}, {"model": "b"}]}'}}}
    assert combinations("${{ fromJSON(needs.p.outputs.m) }}", needs) == [{"model": "a"}, {"model": "b"}]
    axis = {"p": {"outputs": {"m": "[1, 2]"}}}
    assert combinations("{v: '${{ fromJSON(needs.p.outputs.m) }}'}", axis) == [{"v": 1}, {"v": 2}]


@pytest.mark.parametrize("output", ["[1]", '{"a": 1}', '{"include": [1]}', '{"a": ' + str(list(range(300))) + "}"])
def test_an_output_that_is_not_a_matrix_is_refused(output: str) -> None:
    with pytest.raises(ExpressionError):
        combinations("${{ fromJSON(needs.p.outputs.m) }}", {"p": {"outputs": {"m": output}}})
