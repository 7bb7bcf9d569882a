"""What a column of a contract is in the table, and which values it can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.types import PrimitiveType

STORED_AS: dict[str, dict[str, str]] = {
    "string": {"string": "string", "varchar": "string", "text": "string"},
    "integer": {"int": "int", "integer": "int", "long": "long", "bigint": "long"},
    "number": {"double": "double", "float": "float"},
    "boolean": {"boolean": "boolean", "bool": "boolean"},
    "date": {"date": "date"},
    "timestamp": {"timestamp": "timestamp"},
}
"""Logical type → physical type as the contract may write it → Iceberg type. Timestamps are in UTC."""

UNLESS_SAID = {
    "string": "string",
    "integer": "long",
    "number": "double",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}
"""Logical type → Iceberg type where the contract says no physical type: the one that loses nothing."""

IN_SQL = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "long": "BIGINT",
    "double": "DOUBLE",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
"""Iceberg type → DuckDB type."""


def stored_as(column: Column) -> str:
    """The Iceberg type of a column.

    Raises:
        MlopsError: the contract's physical type is none that we store the logical type as.
    """
    if column.physical_type is None:
        return UNLESS_SAID[column.logical_type]
    known = STORED_AS[column.logical_type]
    stored = known.get(column.physical_type.lower())
    if stored is None:
        raise MlopsError(
            f"column {column.name!r}: physicalType {column.physical_type!r} cannot hold the logicalType "
            f"{column.logical_type!r}",
            fix=f"one of {', '.join(known)}",
        )
    return stored


def iceberg_type(column: Column) -> PrimitiveType:
    """The Iceberg type of a column, as pyiceberg's object."""
    from pyiceberg import types

    kinds: dict[str, PrimitiveType] = {
        "string": types.StringType(),
        "int": types.IntegerType(),
        "long": types.LongType(),
        "double": types.DoubleType(),
        "float": types.FloatType(),
        "boolean": types.BooleanType(),
        "date": types.DateType(),
        "timestamp": types.TimestampType(),
    }
    return kinds[stored_as(column)]


def iceberg_schema(contract: Contract) -> Schema:
    """The Iceberg schema of a contract.

    No column is `required` there: a column that a later contract adds has no value in the rows before it. That a value
    must be there is checked when data comes in.
    """
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    fields = [
        NestedField(number, column.name, iceberg_type(column), required=False, doc=column.description)
        for number, column in enumerate(contract.columns.values(), 1)
    ]
    return Schema(*fields)
