"""Read IAM policy documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from infra.policies.resource_graph import UNKNOWN

ANYONE = "*"


def statements(document: Any) -> list[dict[str, Any]] | None:
    """Return the statements of a policy document, given as JSON text or as a mapping; None if it is unknown.

    Invalid JSON is treated as a statement that allows everything, so every document is checked.
    """
    if document is UNKNOWN:
        return None
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            return [{"Effect": "Allow", "Principal": ANYONE, "Action": ANYONE, "Resource": ANYONE}]
    if not isinstance(document, dict):
        return []
    found = document.get("Statement", [])
    return [statement for statement in many(found) if isinstance(statement, dict)]


def many(value: Any) -> list[Any]:
    """Return a value or a list of values as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def principals(statement: dict[str, Any], kind: str | None = None) -> list[str]:
    """Return the principals of a statement, of one kind (`AWS`, `Service`, `Federated`) or of all."""
    principal = statement.get("Principal")
    if isinstance(principal, str):
        return [principal] if kind in (None, "AWS") else []
    if not isinstance(principal, dict):
        return []
    return [str(name) for key, names in principal.items() if kind in (None, key) for name in many(names)]


def conditions(statement: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the conditions of a statement as (operator, key in lower case, value)."""
    return [
        (operator, str(key).lower(), str(value).lower() if isinstance(value, bool) else str(value))
        for operator, keys in (statement.get("Condition") or {}).items()
        for key, values in keys.items()
        for value in many(values)
    ]


def grants(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each action that a policy allows, with the statement that allows it."""
    for statement in statements(document) or ():
        if statement.get("Effect") == "Allow":
            for action in many(statement.get("Action")):
                yield str(action), statement


def covers(pattern: str, action: str) -> bool:
    """Return True if an action pattern (`s3:Get*`) matches an action."""
    return fnmatchcase(action.lower(), pattern.lower())
