"""Values of expressions: truth, text, numbers and loose comparison.

Semantics: "Evaluate expressions in workflows and actions" of GitHub's documentation. Operands of different types are
compared as numbers, strings are compared without case, and an object or array equals only itself.
"""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


class Filtered(list[Any]):
    """Result of the filter `*`: a further `.name` takes that property of each element."""


def truthy(value: Any) -> bool:
    """Return the truthiness of a value: false, 0, NaN, '' and null are false, all others true, even an empty list."""
    if isinstance(value, bool) or value is None:
        return bool(value)
    if isinstance(value, int | float):
        return value != 0 and not math.isnan(value)
    return value != "" if isinstance(value, str) else True


def to_text(value: Any) -> str:
    """Return a value as text: null is empty, a list or an object is 'Array' or 'Object'."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number_text(value)
    if isinstance(value, str):
        return value
    return "Array" if isinstance(value, list) else "Object"


def _number_text(value: float) -> str:
    if isinstance(value, float) and (math.isnan(value) or math.isinf(value)):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return format(value, ".15g").replace("e", "E")


def to_number(value: Any) -> float:
    """Return a value as a number; NaN if it is not one."""
    if value is None:
        return 0.0
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str):
        return math.nan
    text = value.strip()
    if text == "":
        return 0.0
    if text in ("Infinity", "+Infinity", "-Infinity"):
        return -math.inf if text[0] == "-" else math.inf
    if re.fullmatch(r"0x[0-9a-fA-F]+", text):
        return int(text, 16)
    if re.fullmatch(r"0o[0-7]+", text):
        return int(text, 8)
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def kind_of(value: Any) -> str:
    """Return null, boolean, number, string or collection."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "collection"


def _alike(left: Any, right: Any) -> tuple[Any, Any, str]:
    """Return both values converted to one kind, and the kind; "" if they cannot be compared."""
    kinds = (kind_of(left), kind_of(right))
    if kinds[0] == kinds[1]:
        return left, right, kinds[0]
    if "collection" in kinds:
        return left, right, ""
    return to_number(left), to_number(right), "number"


def folded(text: str) -> str:
    """Return text for a comparison without case. As on GitHub, the dotless i differs from I."""
    return "\u0131".join(part.upper() for part in text.split("\u0131"))


def equal(left: Any, right: Any) -> bool:
    """Return whether two values are equal by `==`."""
    left, right, kind = _alike(left, right)
    if kind == "":
        return False
    if kind == "collection":
        return left is right
    if kind == "string":
        return folded(left) == folded(right)
    return bool(left == right)


def is_ordered(left: Any, operator: str, right: Any) -> bool:
    """Return whether `left operator right` holds, for `<`, `<=`, `>` and `>=`."""
    left, right, kind = _alike(left, right)
    if kind in ("", "collection", "null"):
        return kind == "null" and operator in ("<=", ">=")
    if kind == "string":
        left, right = folded(left), folded(right)
    return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[operator])
