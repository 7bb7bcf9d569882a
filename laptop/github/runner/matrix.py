"""Expand the matrix of a job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from laptop.github.expressions.evaluator import EvaluationScope, render
from laptop.github.expressions.loose_values import equal, folded
from laptop.github.expressions.syntax import ExpressionError, Template
from laptop.github.workflow.definition import Strategy, Tree

MOST_LEGS = 256
"""Combinations of one matrix; GitHub's limit."""

_ABSENT = object()


def render_tree(tree: Tree, scope: EvaluationScope) -> Any:
    """Return a tree with its expressions evaluated."""
    if isinstance(tree, dict):
        return {name: render_tree(item, scope) for name, item in tree.items()}
    if isinstance(tree, list):
        return [render_tree(item, scope) for item in tree]
    return render(tree, scope) if isinstance(tree, Template) else tree


def legs(strategy: Strategy, scope: EvaluationScope) -> list[dict[str, Any]]:
    """Return the combinations of a matrix, in order: the product of the axes without `exclude`, then `include`.

    Raises:
        ExpressionError: the matrix has a wrong type, is empty, or has more than 256 combinations.
    """
    matrix = render(strategy.whole, scope) if strategy.whole is not None else None
    if matrix is None:
        matrix = render_tree(dict(strategy.axes), scope)
        include, exclude = render_tree(strategy.include, scope), render_tree(strategy.exclude, scope)
    elif isinstance(matrix, dict):
        include, exclude = matrix.get("include", []), matrix.get("exclude", [])
        matrix = {name: value for name, value in matrix.items() if name not in ("include", "exclude")}
    else:
        raise ExpressionError("matrix: the value of the expression is not an object")
    for name, value in {**matrix, "include": include, "exclude": exclude}.items():
        if not isinstance(value, list):
            raise ExpressionError(f"matrix.{name} is not a list")
    _check(matrix, include, exclude)
    combinations: list[dict[str, Any]] = [{}] if matrix else []
    for name, values in matrix.items():
        combinations = [{**combination, name: value} for combination in combinations for value in values]
    combinations = [each for each in combinations if not any(_fits(each, item) for item in exclude)]
    result = [dict(combination) for combination in combinations]
    added: list[dict[str, Any]] = []
    for item in include:
        filters = {name: value for name, value in item.items() if _find(matrix, name) is not _ABSENT}
        extra = {name: value for name, value in item.items() if name not in filters}
        fits = [at for at, combination in enumerate(combinations) if _fits(combination, filters)]
        for at in fits:
            result[at].update(extra)
        if not fits:
            added.append({**filters, **extra})
    result += added
    if len(result) > MOST_LEGS:
        raise ExpressionError(f"matrix: expected at most {MOST_LEGS} combinations, found {len(result)}")
    return result


def _check(matrix: Mapping[str, Sequence[Any]], include: Sequence[Any], exclude: Sequence[Any]) -> None:
    """Refuse what GitHub refuses. A matrix without combinations by mistake would skip its job, and the run be green.

    Raises:
        ExpressionError: in GitHub's words.
    """
    if not matrix and not include:
        raise ExpressionError("Matrix must define at least one vector")
    for name, values in matrix.items():
        if not values:
            raise ExpressionError(f"Matrix vector '{name}' does not contain any values")
    for name, items in (("include", include), ("exclude", exclude)):
        if not all(isinstance(item, dict) for item in items):
            raise ExpressionError(f"matrix.{name} is not a list of objects")
    if not all(include):
        raise ExpressionError("Matrix include mapping does not contain any values")
    if not all(exclude):
        raise ExpressionError("Matrix exclude filter must not be empty")
    for key in (key for item in exclude for key in item):
        if _find(matrix, key) is _ABSENT:
            raise ExpressionError(f"Matrix exclude key '{key}' does not match any key within the matrix")


def _fits(combination: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Return whether a combination has the values of a filter, leaf by leaf, by the `==` of expressions."""
    return all(equal(_follow(combination, path), value) for path, value in _leaves(filters, ()))


def _leaves(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _follow(value: Any, path: Sequence[str | int]) -> Any:
    """Return the value at a path; null if there is none."""
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = _find(value, step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return None if value is _ABSENT else value


def _find(mapping: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key, compared without case; `_ABSENT` if there is none."""
    return next((value for name, value in mapping.items() if folded(name) == folded(key)), _ABSENT)
