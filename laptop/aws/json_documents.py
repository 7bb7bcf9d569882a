"""Normal form of JSON documents and IAM policies, for comparison by meaning."""

from __future__ import annotations

import json
from typing import Any

# Policy elements that hold one value or an unordered list.
_LISTS = {"action", "notaction", "resource", "notresource"}


def normalized(value: Any) -> Any:
    """Return the normal form of a JSON document, given as text or as a structure.

    Text that is not JSON is returned unchanged.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return _normalized(value, "")


def _normalized(value: Any, key: str) -> Any:
    if key.lower() == "statement" and not isinstance(value, list):
        return [_normalized(value, "")]
    if isinstance(value, dict):
        inside = key.lower()
        return {
            name: _sorted(item)
            if inside in ("principal", "notprincipal", "condition/")
            else _normalized(item, _next(inside, name))
            for name, item in value.items()
        }
    if key.lower() in _LISTS:
        return _sorted(value)
    if isinstance(value, list):
        return [_normalized(item, "") for item in value]
    return value


def _next(inside: str, name: str) -> str:
    """Return the context of a key. In a condition, an operator comes before the keys."""
    return "condition/" if inside == "condition" else name


def _sorted(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return sorted(json.dumps(item) if not isinstance(item, str) else item for item in items)
