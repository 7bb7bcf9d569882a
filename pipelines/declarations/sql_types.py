"""Physical types of a contract as SQL spells them: how the values are stored, and the bounds that the type sets."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipelines.declarations.value_range import StoredType

EXACT_DIGITS = 15
"""Decimal digits that a double holds exactly."""

_TYPE = re.compile(r"([a-z][a-z0-9_ ]*?) *(?:\( *([0-9]{1,9}) *(?:, *([0-9]{1,9}) *)?\))?( with(?:out)? time zone)?")

PLAIN_TYPES: dict[str, dict[str, StoredType]] = {
    "string": {"string": "string", "varchar": "string", "text": "string"},
    "integer": {"long": "long", "bigint": "long", "int": "int", "integer": "int", "int8": "long", "int4": "int"},
    "number": {
        "double": "double",
        "float": "float",
        "double precision": "double",
        "float8": "double",
        "real": "float",
        "float4": "float",
    },
    "boolean": {"boolean": "boolean", "bool": "boolean"},
    "date": {"date": "date"},
    "timestamp": {"timestamp": "timestamp", "datetime": "timestamp", "timestamptz": "timestamp"},
}
"""`logicalType` → type without parameters → stored type. The first of each is the default: it loses nothing."""

_CHARACTERS = ("varchar", "char", "character", "character varying", "nvarchar", "nchar", "varchar2", "string", "text")
_DECIMALS = ("decimal", "numeric", "number", "dec")
_SMALL = {"smallint": 15, "int2": 15, "tinyint": 7}
_SPELLINGS = {
    "string": "varchar(n), char(n)",
    "integer": "smallint, decimal(p) of at most 18 digits",
    "number": f"decimal(p, s) of at most {EXACT_DIGITS} digits",
    "timestamp": "timestamp(6), timestamp with time zone",
}


@dataclass(frozen=True)
class SqlType:
    """A physical type.

    Attributes:
        stored: the type of the column in the Iceberg table.
        bounds: attribute of `TypeOptions` → bound that the type sets.
        decimals: number of decimal digits after the point; None if the type does not limit them.
    """

    stored: StoredType
    bounds: dict[str, int]
    decimals: int | None = None


def default_type(logical: str) -> StoredType:
    """Return how values of a logical type are stored if the contract names no physical type."""
    return next(iter(PLAIN_TYPES[logical].values()))


def known_types(logical: str) -> str:
    """Return the physical types that a logical type can have, for people."""
    more = [_SPELLINGS[logical]] if logical in _SPELLINGS else []
    return ", ".join((*PLAIN_TYPES[logical], *more))


def sql_type(logical: str, physical: str) -> SqlType | None:
    """Return what a physical type means for a logical type; None if it cannot be stored without loss.

    Args:
        logical: the contract's logical type.
        physical: the contract's physical type, in upper or lower case.
    """
    written = _TYPE.fullmatch(" ".join(physical.lower().split()))
    if written is None:
        return None
    name, first, second, zone = written.groups()
    if zone and (name not in ("timestamp",) or logical != "timestamp"):
        return None
    size, scale = (int(each) if each is not None else None for each in (first, second))
    if size is None:
        plain = PLAIN_TYPES[logical].get(name)
        if plain is not None:
            return SqlType(plain, {})
        if logical == "integer" and name in _SMALL:
            return SqlType("int", {"minimum": -(2 ** _SMALL[name]), "maximum": 2 ** _SMALL[name] - 1})
        return None
    return _sized(logical, name, size, scale)


def _sized(logical: str, name: str, size: int, scale: int | None) -> SqlType | None:
    if logical == "string" and name in _CHARACTERS and size > 0 and scale is None:
        return SqlType("string", {"max_length": size})
    if logical == "timestamp" and name in ("timestamp", "datetime", "timestamptz") and size == 6 and scale is None:
        return SqlType("timestamp", {})
    if logical == "number" and name == "float" and scale is None and 1 <= size <= 53:
        return SqlType("float" if size <= 24 else "double", {})
    if name in _DECIMALS and size >= 1:
        limit = 10 ** (size - (scale or 0)) if (scale or 0) <= size else 0
        if logical == "integer" and size <= 18 and not scale:
            return SqlType("long", {"minimum": 1 - limit, "maximum": limit - 1})
        if logical == "number" and size <= EXACT_DIGITS and limit:
            return SqlType("double", {"exclusive_minimum": -limit, "exclusive_maximum": limit}, scale or 0)
    return None
