"""Evaluate expressions and render templates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.github.expressions.builtin_functions import BUILT_IN, Function
from laptop.github.expressions.loose_values import Filtered, equal, is_ordered, kind_of, to_number, to_text, truthy
from laptop.github.expressions.syntax import (
    Compare,
    ContextName,
    ExpressionError,
    FunctionCall,
    Index,
    Literal,
    Node,
    Not,
    Template,
)


@dataclass(frozen=True)
class EvaluationScope:
    """Contexts and functions that an expression can use.

    Attributes:
        contexts: lower-case name → value.
        functions: lower-case name → function, in addition to the built-in ones (`success`, `hashfiles`, …).
    """

    contexts: Mapping[str, Any]
    functions: Mapping[str, Function]


def evaluate(node: Node, scope: EvaluationScope) -> Any:
    """Return the value of an expression: null, boolean, number, string, list or dict.

    Raises:
        ExpressionError: a context or function is unknown, or a function rejects its arguments.
    """
    if isinstance(node, Literal):
        return node.value
    if isinstance(node, ContextName):
        if node.name.lower() not in scope.contexts:
            raise ExpressionError(f"unknown context {node.name!r}")
        return scope.contexts[node.name.lower()]
    if isinstance(node, Index):
        return _index(node, scope)
    if isinstance(node, FunctionCall):
        return _call(node, scope)
    if isinstance(node, Not):
        return not truthy(evaluate(node.operand, scope))
    if isinstance(node, Compare):
        left, right = evaluate(node.left, scope), evaluate(node.right, scope)
        if node.operator in ("==", "!="):
            return equal(left, right) == (node.operator == "==")
        return is_ordered(left, node.operator, right)
    value = None
    for operand in node.operands:
        value = evaluate(operand, scope)
        if truthy(value) == (node.operator == "||"):
            break
    return value


def render(parsed: Template, scope: EvaluationScope) -> Any:
    """Return a template's value: the expression's value if the text is a single expression, otherwise a string."""
    if not parsed.parts:
        return parsed.text
    if len(parsed.parts) == 1 and not isinstance(parsed.parts[0], str):
        return evaluate(parsed.parts[0], scope)
    return "".join(part if isinstance(part, str) else to_text(evaluate(part, scope)) for part in parsed.parts)


def _index(node: Index, scope: EvaluationScope) -> Any:
    of = evaluate(node.of, scope)
    if node.index is None:
        return _elements(of)
    index = evaluate(node.index, scope)
    if isinstance(of, Filtered):
        found = (_property(element, index) for element in of)
        return Filtered(value for value in found if value is not _MISSING)
    value = _property(of, index)
    return None if value is _MISSING else value


def _elements(of: Any) -> Filtered:
    if isinstance(of, Filtered):
        return Filtered(element for item in of for element in _elements(item))
    if isinstance(of, list):
        return Filtered(of)
    return Filtered(of.values()) if isinstance(of, Mapping) else Filtered()


_MISSING = object()


def _property(of: Any, index: Any) -> Any:
    if isinstance(of, Mapping):
        if kind_of(index) == "collection":
            return _MISSING
        name = to_text(index)
        if name in of:
            return of[name]
        return next((value for key, value in of.items() if str(key).upper() == name.upper()), _MISSING)
    if isinstance(of, list):
        number = to_number(index)
        if not math.isnan(number) and not math.isinf(number) and 0 <= number < len(of):
            return of[math.floor(number)]
    return _MISSING


def _call(node: FunctionCall, scope: EvaluationScope) -> Any:
    name = node.name.lower()
    if name == "case":
        return _case(node.arguments, scope)
    function = scope.functions.get(name) or (BUILT_IN[name].function if name in BUILT_IN else None)
    if function is None:
        raise ExpressionError(f"unknown function {node.name!r}")
    return function(*(evaluate(argument, scope) for argument in node.arguments))


def _case(arguments: Sequence[Node], scope: EvaluationScope) -> Any:
    for at in range(0, len(arguments) - 1, 2):
        chosen = evaluate(arguments[at], scope)
        if not isinstance(chosen, bool):
            raise ExpressionError(f"case(): argument {at + 1}: expected a boolean, found {to_text(chosen)!r}")
        if chosen:
            return evaluate(arguments[at + 1], scope)
    return evaluate(arguments[-1], scope)
