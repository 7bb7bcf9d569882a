"""Column types of a contract, as the Glue catalogue names them."""

from __future__ import annotations

from pipelines.declarations.contract import Column


def glue_type(column: Column) -> str:
    """Return the Hive type name from which Glue makes the column's Iceberg type."""
    return "bigint" if column.stored_as == "long" else column.stored_as
