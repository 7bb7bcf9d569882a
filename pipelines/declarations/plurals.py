"""Singular and plural in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 row`, `2 rows`, `2 deliveries`."""
    if number == 1:
        return f"{number} {noun}"
    is_regular = not noun.endswith("y") or noun[-2] in "aeiou"
    return f"{number} {noun}s" if is_regular else f"{number} {noun[:-1]}ies"
