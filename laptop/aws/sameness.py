"""When two values mean the same to AWS although they are spelled differently."""

from __future__ import annotations

import json
from typing import Any

# Elements of a policy that hold one value or a list of them, in any order.
_LISTS = {"action", "notaction", "resource", "notresource"}


def document(value: Any) -> Any:
    """A JSON document (text or structure) in one spelling: keys apart, lists of a policy in order."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return _spelled(value, "")


def _spelled(value: Any, key: str) -> Any:
    if key.lower() == "statement" and not isinstance(value, list):
        return [_spelled(value, "")]
    if isinstance(value, dict):
        inside = key.lower()
        return {
            name: _sorted(item)
            if inside in ("principal", "notprincipal", "condition/")
            else _spelled(item, _next(inside, name))
            for name, item in value.items()
        }
    if key.lower() in _LISTS:
        return _sorted(value)
    if isinstance(value, list):
        return [_spelled(item, "") for item in value]
    return value


def _next(inside: str, name: str) -> str:
    """Conditions have an operator between them and their keys."""
    return "condition/" if inside == "condition" else name


def _sorted(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return sorted(json.dumps(item) if not isinstance(item, str) else item for item in items)


def differences(old: Any, new: Any, at: str, unknown: Any) -> list[str]:
    """The property paths at which two values differ, such as `tags.owner` or `rules[0].status`.

    Args:
        unknown: the value that stands for "not known yet"; it differs from everything.
    """
    if new is unknown:
        return [at]
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(old.keys() | new.keys()):
            found += differences(old.get(key), new.get(key), f"{at}.{key}", unknown)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = []
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            found += differences(before, after, f"{at}[{index}]", unknown)
        return found
    return [] if old == new else [at]
