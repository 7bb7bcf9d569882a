"""Property values as plain Python.

A property bag is a plain dict. The paths of its secrets are kept next to it, so code that compares or applies
values works on plain ones and never loses the marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from infra.policies.resource_graph import UNKNOWN

PropertyPath = tuple[str | int, ...]
"""Location of a value in a property bag: keys and list indexes."""

NO_SECRETS: frozenset[PropertyPath] = frozenset()


@dataclass(frozen=True)
class Properties:
    """A property bag and the paths of its secrets."""

    values: dict[str, Any]
    secrets: frozenset[PropertyPath] = NO_SECRETS


def has_unknown(value: Any) -> bool:
    """Return True if a value contains `UNKNOWN`."""
    if value is UNKNOWN:
        return True
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    return isinstance(value, list) and any(has_unknown(item) for item in value)


def known_only(properties: Properties) -> Properties:
    """Drop the top-level properties that contain an unknown."""
    values = {key: value for key, value in properties.values.items() if not has_unknown(value)}
    return Properties(values, frozenset(path for path in properties.secrets if path[0] in values))


def leaves(value: Any, at: PropertyPath = ()) -> Iterator[tuple[PropertyPath, Any]]:
    """Yield every scalar in a value with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*at, index))
    else:
        yield at, value


_MISSING = object()


def lookup(value: Any, path: PropertyPath, default: Any = None) -> Any:
    """Return the value at a path, or the default."""
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
            value = value[part]
        else:
            return default
    return value


def is_at(value: Any, path: PropertyPath) -> bool:
    """Return True if a path exists in a value."""
    return lookup(value, path, _MISSING) is not _MISSING


def with_value(value: Any, path: PropertyPath, new: Any) -> Any:
    """Copy a value with a new item at a path, which must exist."""
    if not path:
        return new
    head, *rest = path
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[head] = with_value(value[head], tuple(rest), new)
    return copied


def still_secret(secrets: Iterable[PropertyPath], values: dict[str, Any]) -> frozenset[PropertyPath]:
    """Keep the secret paths that exist in the values.

    If a secret's path is gone but its top-level property remains, the whole property becomes secret.
    """
    kept: set[PropertyPath] = set()
    for path in secrets:
        if is_at(values, path):
            kept.add(path)
        elif path[0] in values:
            kept.add(path[:1])
    return frozenset(kept)


SHORTEST_TRACED_SECRET = 8
"""Minimum length in characters of a secret whose copies in other strings are marked secret too."""


def secret_outputs(inputs: Properties, outputs: dict[str, Any], additional: Iterable[str]) -> frozenset[PropertyPath]:
    """Return the paths of secret outputs: secret inputs, copies of them, and those the program names.

    Args:
        additional: top-level output names from `additionalSecretOutputs`.
    """
    secrets = set(still_secret(inputs.secrets, outputs))
    secrets |= {(name,) for name in additional if name in outputs}
    needles = {
        leaf
        for path in inputs.secrets
        for _, leaf in leaves(lookup(inputs.values, path))
        if isinstance(leaf, str) and len(leaf) >= SHORTEST_TRACED_SECRET
    }
    if needles:
        for path, leaf in leaves(outputs):
            if isinstance(leaf, str) and any(needle in leaf for needle in needles):
                secrets.add(path)
    return frozenset(secrets)
