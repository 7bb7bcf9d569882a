"""The combinations of a job's matrix."""

from __future__ import annotations

from typing import Any

from laptop.github.expressions import ExpressionError, Scope, Template, render
from laptop.github.workflow import Strategy, Tree


def render_tree(tree: Tree, scope: Scope) -> Any:
    """A tree with its expressions evaluated."""
    if isinstance(tree, dict):
        return {name: render_tree(item, scope) for name, item in tree.items()}
    if isinstance(tree, list):
        return [render_tree(item, scope) for item in tree]
    return render(tree, scope) if isinstance(tree, Template) else tree


def legs(strategy: Strategy, scope: Scope) -> list[dict[str, Any]]:
    """The combinations of a matrix, in order: the axes' product less `exclude`, then what `include` adds or extends.

    Raises:
        ExpressionError: an expression yields something that is not a matrix, or more than 256 combinations.
    """
    matrix = render(strategy.whole, scope) if strategy.whole is not None else None
    if matrix is None:
        matrix = render_tree(dict(strategy.axes), scope)
        include, exclude = render_tree(strategy.include, scope), render_tree(strategy.exclude, scope)
    elif isinstance(matrix, dict):
        include, exclude = matrix.get("include", []), matrix.get("exclude", [])
        matrix = {name: value for name, value in matrix.items() if name not in ("include", "exclude")}
    else:
        raise ExpressionError("the matrix expression does not yield an object")
    for name, value in {**matrix, "include": include, "exclude": exclude}.items():
        if not isinstance(value, list):
            raise ExpressionError(f"matrix.{name} is not a list")
    combinations: list[dict[str, Any]] = [{}] if matrix else []
    for name, values in matrix.items():
        combinations = [{**combination, name: value} for combination in combinations for value in values]
    combinations = [
        combination
        for combination in combinations
        if not any(all(combination.get(k) == v for k, v in item.items()) for item in exclude)
    ]
    result = [dict(combination) for combination in combinations]
    added: list[dict[str, Any]] = []
    for item in include:
        if not isinstance(item, dict):
            raise ExpressionError("matrix.include is not a list of objects")
        fits = [
            at
            for at, combination in enumerate(combinations)
            if all(combination[name] == value for name, value in item.items() if name in combination)
        ]
        for at in fits:
            result[at].update(item)
        if not fits:
            added.append(dict(item))
    result += added
    if len(result) > 256:
        raise ExpressionError(f"a matrix has at most 256 combinations, found {len(result)}")
    return result
