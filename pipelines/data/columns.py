"""Column types of a contract, in DuckDB and in Iceberg."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.declarations.contract import Column, Contract
from pipelines.declarations.value_range import StoredType

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.types import PrimitiveType

SQL_TYPES: dict[StoredType, str] = {
    "string": "VARCHAR",
    "int": "INTEGER",
    "long": "BIGINT",
    "double": "DOUBLE",
    "float": "FLOAT",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
"""Stored type → DuckDB type."""


def iceberg_type(column: Column) -> PrimitiveType:
    """Return the stored type of a column as pyiceberg's object."""
    from pyiceberg import types

    kinds: dict[StoredType, PrimitiveType] = {
        "string": types.StringType(),
        "int": types.IntegerType(),
        "long": types.LongType(),
        "double": types.DoubleType(),
        "float": types.FloatType(),
        "boolean": types.BooleanType(),
        "date": types.DateType(),
        "timestamp": types.TimestampType(),
    }
    return kinds[column.stored_as]


def iceberg_schema(contract: Contract) -> Schema:
    """Build the Iceberg schema of a contract.

    No column is `required` in Iceberg: rows written before a contract adds a column have no value for it. Ingestion
    checks that required values are present.
    """
    from pyiceberg.schema import Schema
    from pyiceberg.types import NestedField

    fields = [
        NestedField(number, column.name, iceberg_type(column), required=False, doc=column.description)
        for number, column in enumerate(contract.columns.values(), 1)
    ]
    return Schema(*fields)
