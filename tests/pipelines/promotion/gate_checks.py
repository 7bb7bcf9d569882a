"""Gates with one of their checks deleted: a test must notice each."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

Gates = Mapping[str, Callable[[Any], Any]]
"""Name → gate."""


def _refusals(tree: ast.Module, gate: str) -> list[ast.If]:
    """Return the `if` statements of a gate that refuse or are inconclusive."""
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == gate)
    return [node for node in ast.walk(function) if isinstance(node, ast.If) and _refuses(node.body[-1])]


def _refuses(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Return) else None
    called = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
    return called in ("failed", "inconclusive")


def without(gates: Gates, gate: str, number: int) -> Any:
    """Return a gate with one check deleted."""
    module = sys.modules[gates[gate].__module__]
    tree = ast.parse(inspect.getsource(module))
    _refusals(tree, gate)[number].test = ast.Constant(False)
    names: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(ast.fix_missing_locations(tree), f"{gate} without a check", "exec"), names)  # noqa: S102
    return names[gate]


def checks(gates: Gates) -> Iterator[Any]:
    """Yield every check of every gate, as parameters of a test: the gate's name and the check's number."""
    for gate, function in gates.items():
        found = _refusals(ast.parse(inspect.getsource(sys.modules[function.__module__])), gate)
        assert found, f"{gate} refuses nothing"
        for number, node in enumerate(found):
            yield pytest.param(gate, number, id=f"{gate}: {ast.unparse(node.test)}")
