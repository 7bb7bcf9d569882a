"""The columns of a contract as the Glue catalogue writes them."""

from __future__ import annotations

from pipelines.declarations.contract import Column
from pipelines.declarations.errors import MlopsError

_BY_PHYSICAL_TYPE = {
    "string": "string",
    "varchar": "string",
    "text": "string",
    "int": "int",
    "integer": "int",
    "long": "bigint",
    "bigint": "bigint",
    "float": "float",
    "double": "double",
    "boolean": "boolean",
    "bool": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}
_BY_LOGICAL_TYPE = {
    "string": "string",
    "integer": "bigint",
    "number": "double",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}


def glue_type(column: Column) -> str:
    """The type of a column in the catalogue: Hive's names, which Glue turns into Iceberg's.

    Raises:
        MlopsError: the contract's physical type is none that Glue can make an Iceberg column of.
    """
    if column.physical_type is None:
        return _BY_LOGICAL_TYPE[column.logical_type]
    found = _BY_PHYSICAL_TYPE.get(column.physical_type.lower())
    if found is None:
        raise MlopsError(
            f"column {column.name!r}: Glue makes no Iceberg column of physicalType {column.physical_type!r}",
            fix=f"one of {', '.join(_BY_PHYSICAL_TYPE)}",
        )
    return found
