"""Built-in functions of the expression language."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from laptop.github.expressions.loose_values import equal, folded, kind_of, to_text
from laptop.github.expressions.syntax import (
    CONTEXTS,
    STATUS_FUNCTIONS,
    ContextName,
    ExpressionError,
    FunctionCall,
    Node,
    walk,
)

LARGEST_TEXT = 1 << 20
"""Characters of a text that format() or join() returns. Nested calls would grow without bound otherwise."""

Function = Callable[..., Any]


def _contains(search: Any, item: Any) -> bool:
    if isinstance(search, list):
        return any(equal(element, item) for element in search)
    if isinstance(search, Mapping) or kind_of(item) == "collection":
        return False
    return to_text(item).lower() in to_text(search).lower()


def _starts_with(text: Any, start: Any) -> bool:
    if "collection" in (kind_of(text), kind_of(start)):
        return False
    return folded(to_text(text)).startswith(folded(to_text(start)))


def _ends_with(text: Any, end: Any) -> bool:
    if "collection" in (kind_of(text), kind_of(end)):
        return False
    return folded(to_text(text)).endswith(folded(to_text(end)))


_FORMAT = re.compile(r"\{\{|\}\}|\{(\d+)\}|[{}]")


def _format(pattern: Any, *values: Any) -> str:
    text = to_text(pattern)

    def replace(match: re.Match[str]) -> str:
        if match.group() in ("{{", "}}"):
            return match.group()[0]
        if match.group(1) is None:
            raise ExpressionError(f"format(): unescaped brace in {text!r}")
        if int(match.group(1)) >= len(values):
            raise ExpressionError(f"format(): {text!r} refers to a value that is not passed")
        return to_text(values[int(match.group(1))])

    return _limited(_FORMAT.sub(replace, text))


def _limited(text: str) -> str:
    if len(text) > LARGEST_TEXT:
        raise ExpressionError(f"text of an expression: expected at most {LARGEST_TEXT} characters, found {len(text)}")
    return text


def _join(values: Any, separator: Any = ",") -> str:
    if isinstance(values, list):
        between = "," if kind_of(separator) == "collection" else to_text(separator)
        return _limited(between.join(to_text(value) for value in values))
    return "" if isinstance(values, Mapping) else to_text(values)


def _to_json(value: Any) -> str:
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    whole = isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15
    return int(value) if whole else value


def _from_json(value: Any) -> Any:
    text = to_text(value)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"fromJSON(): invalid JSON {text[:80]!r}: {error}") from None


@dataclass(frozen=True)
class _BuiltIn:
    fewest: int
    most: int
    function: Function | None


BUILT_IN: Mapping[str, _BuiltIn] = {
    "contains": _BuiltIn(2, 2, _contains),
    "startswith": _BuiltIn(2, 2, _starts_with),
    "endswith": _BuiltIn(2, 2, _ends_with),
    "format": _BuiltIn(1, 255, _format),
    "join": _BuiltIn(1, 2, _join),
    "tojson": _BuiltIn(1, 1, _to_json),
    "fromjson": _BuiltIn(1, 1, _from_json),
    "case": _BuiltIn(3, 255, None),  # evaluates its arguments lazily, see `evaluator._case`
}
_OTHER_ARITIES = {**dict.fromkeys(STATUS_FUNCTIONS, (0, 0)), "hashfiles": (1, 255)}


def check_arity(call: FunctionCall) -> None:
    """Check the number of arguments of a call of a known function.

    Raises:
        ExpressionError: the number is wrong.
    """
    name = call.name.lower()
    if name in BUILT_IN:
        fewest, most = BUILT_IN[name].fewest, BUILT_IN[name].most
    elif name in _OTHER_ARITIES:
        fewest, most = _OTHER_ARITIES[name]
    else:
        return
    found = len(call.arguments)
    if not fewest <= found <= most or (name == "case" and found % 2 == 0):
        expected = "an odd number of" if name == "case" else (str(fewest) if fewest == most else f"{fewest} to {most}")
        raise ExpressionError(f"{call.name}(): expected {expected} arguments, found {found}")


def check_names(node: Node, contexts: Collection[str], functions: Collection[str]) -> None:
    """Check that all contexts and functions exist and are available.

    Args:
        node: the expression.
        contexts: available contexts.
        functions: lower-case names of available functions, in addition to the built-in ones.

    Raises:
        ExpressionError: a context or function is unknown or not available.
    """
    for inner in walk(node):
        if isinstance(inner, ContextName) and inner.name.lower() not in contexts:
            known = inner.name.lower() in CONTEXTS
            what = f"the context {inner.name!r} is not available here" if known else f"unknown context {inner.name!r}"
            raise ExpressionError(what, fix=f"use one of: {', '.join(sorted(contexts)) or 'none'}")
        if (
            isinstance(inner, FunctionCall)
            and inner.name.lower() not in BUILT_IN
            and inner.name.lower() not in functions
        ):
            known = inner.name.lower() in STATUS_FUNCTIONS or inner.name.lower() == "hashfiles"
            what = f"the function {inner.name!r} is not available here" if known else f"unknown function {inner.name!r}"
            raise ExpressionError(what, fix=f"use one of: {', '.join(sorted({*BUILT_IN, *functions}))}")
