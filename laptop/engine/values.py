"""Property values as plain Python, with what is secret or unknown kept.

A property bag is a plain dict; which places of it are secret is a set of paths beside it. So everything that
compares or applies values works on plain ones, and nothing loses the marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

PropertyPath = tuple[str | int, ...]
"""Where a value stands in a property bag: keys and list indexes."""

NO_SECRETS: frozenset[PropertyPath] = frozenset()


class Unknown:
    """The type of `UNKNOWN`, a value that only an `up` will know."""

    _only: ClassVar[Unknown | None] = None

    def __new__(cls) -> Unknown:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "[unknown]"

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, memo: object) -> Unknown:
        return self


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Properties:
    """A property bag and the paths in it that are secret."""

    values: dict[str, Any]
    secrets: frozenset[PropertyPath] = NO_SECRETS


def has_unknown(value: Any) -> bool:
    """Whether `UNKNOWN` stands anywhere in a value."""
    if value is UNKNOWN:
        return True
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    return isinstance(value, list) and any(has_unknown(item) for item in value)


def known_only(properties: Properties) -> Properties:
    """The properties without those that have an unknown anywhere."""
    values = {key: value for key, value in properties.values.items() if not has_unknown(value)}
    return Properties(values, frozenset(path for path in properties.secrets if path[0] in values))


def leaves(value: Any, at: PropertyPath = ()) -> Iterator[tuple[PropertyPath, Any]]:
    """Every value below that is neither an object nor a list, with its path."""
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
    """What stands at a path, or the default."""
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
            value = value[part]
        else:
            return default
    return value


def is_at(value: Any, path: PropertyPath) -> bool:
    """Whether anything stands at a path."""
    return lookup(value, path, _MISSING) is not _MISSING


def still_secret(secrets: Iterable[PropertyPath], values: dict[str, Any]) -> frozenset[PropertyPath]:
    """Secret paths, as far as they stand in the values; one that moved makes its whole property secret."""
    kept: set[PropertyPath] = set()
    for path in secrets:
        if is_at(values, path):
            kept.add(path)
        elif path[0] in values:
            kept.add(path[:1])
    return frozenset(kept)


SHORTEST_TRACED_SECRET = 8
"""Characters a secret string needs before copies of it inside other strings are looked for."""


def secret_outputs(inputs: Properties, outputs: dict[str, Any], additional: Iterable[str]) -> frozenset[PropertyPath]:
    """Which outputs are secret: what was secret as input, copies of it, and what the program names.

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
