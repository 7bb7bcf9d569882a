"""Durations in the formats of Argo Rollouts."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
_INT_32 = 2**31


def duration_seconds(text: str) -> float:
    """Return the seconds of a duration such as `30s`, `1h30m` or `1.5s`. Only `0` needs no unit.

    Raises:
        ValueError: it is not a duration; the message is that of Go's `time.ParseDuration`.
    """
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total, position = Decimal(0), 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            break
        number, unit = part.groups()
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += Decimal(number) * _UNITS[unit]
        position = part.end()
    if position < len(rest) or not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    return float(sign * total)


def pause_seconds(duration: int | str | None) -> int:
    """Return the seconds of a pause: a number, or a duration, which is rounded down. -1 if it is neither."""
    if duration is None or isinstance(duration, int):
        return duration or 0
    if re.fullmatch(r"[+-]?[0-9]+", duration) and -_INT_32 <= int(duration) < _INT_32:
        return int(duration)
    try:
        return int(duration_seconds(duration))
    except ValueError:
        return -1
