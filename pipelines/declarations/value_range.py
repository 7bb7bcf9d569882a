"""Values that a contract allows in a column: its bounds and listed values, in the stored type of the column."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from pipelines.declarations.datatypes import next_float32, to_float32

StoredType = Literal["string", "int", "long", "float", "double", "boolean", "date", "timestamp"]
"""Column types of the Iceberg table that we use. Timestamps are in UTC."""

Scalar = str | int | float | bool

Ordered = int | float
"""Position of a value in its type: the number itself, days of a date, microseconds of a timestamp."""

KINDS: dict[StoredType, str] = {
    "string": "text",
    "int": "an integer of 32 bits",
    "long": "an integer of 64 bits",
    "float": "a number",
    "double": "a number",
    "boolean": "true or false",
    "date": "a date in quotes ('2026-01-31')",
    "timestamp": "a timestamp in quotes ('2026-01-31T12:00:00Z')",
}
"""Stored type → what a value of it is, for people."""

OFFSET = r"(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00)"
"""Offset of a timestamp from UTC, as XML Schema limits it: no place on Earth is further away."""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMESTAMP = re.compile(_DATE.pattern + r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?" + OFFSET + "?)?")
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_FLOAT32_MAX = math.ldexp(2 - 2**-23, 127)


def parse_value(stored: StoredType, value: object) -> Scalar | date | datetime:
    """Return a bound or listed value in the stored type of its column.

    Decimals become the nearest value of the type; timestamps are converted to UTC.

    Raises:
        ValueError: it is not a value of that type; the message is what was expected.
    """
    parsed: Scalar | date | datetime | None = None
    if stored == "string" and isinstance(value, str):
        parsed = value
    elif stored == "boolean" and isinstance(value, bool):
        parsed = value
    elif stored in ("int", "long") and _is_number(value):
        parsed = _whole(stored, value)
    elif stored in ("float", "double") and _is_number(value):
        number = _decimal(stored, value)
        parsed = number if math.isfinite(number) else None
    elif stored in ("date", "timestamp") and isinstance(value, str):
        parsed = _moment(stored, value)
    if parsed is None:
        raise ValueError(KINDS[stored])
    return parsed


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(stored: StoredType, value: Any) -> int | None:
    low, high = _LIMITS[stored]
    return int(value) if _is_finite(value) and value == int(value) and low <= value <= high else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # a large integer has no float


def _decimal(stored: StoredType, value: Any) -> float:
    try:
        return to_float32(value) if stored == "float" else float(value)
    except OverflowError:
        return math.inf


def _moment(stored: StoredType, text: str) -> date | datetime | None:
    try:
        if stored == "date":
            return date.fromisoformat(text) if _DATE.fullmatch(text) else None
        if not _TIMESTAMP.fullmatch(text):
            return None
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is None else at.astimezone(UTC)).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def position(value: Any) -> Ordered:
    """Return the position of a number, date or timestamp in its type."""
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return value.toordinal() if isinstance(value, date) else value


_LIMITS: dict[StoredType, tuple[Ordered, Ordered]] = {
    "int": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
    "float": (-_FLOAT32_MAX, _FLOAT32_MAX),
    "double": (-sys.float_info.max, sys.float_info.max),
    "date": (position(date.min), position(date.max)),
    "timestamp": (position(datetime.min), position(datetime.max)),
}
"""Stored type → its least and greatest value that the table, its readers and Python can hold."""


def lower_limit(stored: StoredType, bound: Scalar, *, exclusive: bool) -> Ordered:
    """Return the least value of a type that keeps a lower bound.

    Raises:
        ValueError: the bound is not a value that the type can be compared with; the message is what was expected.
    """
    return _limit(stored, bound, exclusive=exclusive, up=True)


def upper_limit(stored: StoredType, bound: Scalar, *, exclusive: bool) -> Ordered:
    """Return the greatest value of a type that keeps an upper bound.

    Raises:
        ValueError: the bound is not a value that the type can be compared with; the message is what was expected.
    """
    return _limit(stored, bound, exclusive=exclusive, up=False)


def _limit(stored: StoredType, bound: Any, *, exclusive: bool, up: bool) -> Ordered:
    if stored in ("int", "long"):
        if not _is_number(bound) or not _is_finite(bound):
            raise ValueError("a number")
        if exclusive:
            return int(math.floor(bound) + 1 if up else math.ceil(bound) - 1)
        return int(math.ceil(bound) if up else math.floor(bound))
    value: Any = parse_value(stored, bound)
    if not exclusive:
        return position(value)
    if stored == "float":
        return next_float32(value, up=up)
    if stored == "double":
        return math.nextafter(value, math.inf if up else -math.inf)
    return position(value) + (1 if up else -1)


@dataclass(frozen=True)
class ValueRange:
    """Closed interval of the values of an ordered type.

    Attributes:
        low, high: positions of the least and the greatest value; there is none if `low > high`.
    """

    low: Ordered
    high: Ordered

    def __contains__(self, value: object) -> bool:
        return self.low <= position(value) <= self.high


def full_range(stored: StoredType) -> ValueRange | None:
    """Return the range of all values of a type; None if the type has no order for bounds."""
    limits = _LIMITS.get(stored)
    return ValueRange(*limits) if limits is not None else None


def in_sql(stored: StoredType, at: Ordered) -> str:
    """Write a position as an SQL literal of the stored type.

    Args:
        stored: the type.
        at: from `lower_limit` or `upper_limit`; beyond the type's range, the nearest value of the type.
    """
    low, high = _LIMITS[stored]
    at = min(max(at, low), high)
    if stored == "date":
        return f"DATE '{date.fromordinal(int(at)).isoformat()}'"
    if stored == "timestamp":
        return f"TIMESTAMP '{(_EPOCH + int(at) * _MICROSECOND).isoformat(sep=' ')}'"
    if stored in ("float", "double"):
        # Cast from text, because a decimal literal with many digits is rounded twice.
        return f"CAST('{float(at)!r}' AS {'FLOAT' if stored == 'float' else 'DOUBLE'})"
    return str(at)
