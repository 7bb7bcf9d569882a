"""Short constructors of contracts for tests."""

from __future__ import annotations

import json
from typing import Any

from pipelines.declarations.contract import Contract


def contract(
    *columns: dict[str, Any],
    quality: tuple[dict[str, Any], ...] = (),
    table_relationships: tuple[dict[str, Any], ...] = (),
    most_bad: float = 100,
    name: str = "visits",
    **keys: Any,
) -> Contract:
    """Make a contract, of the dataset `visits` by default; a primary key `id` is added unless a column is one.

    Any share of the rows may be quarantined, unless `most_bad` is less than 100 percent.
    """
    properties = list(columns)
    if not any(column.get("primaryKey") for column in properties):
        properties.insert(0, {"name": "id", "logicalType": "integer", "primaryKey": True})
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": f"urn:test:{name}",
        "name": name,
        "version": "1.0.0",
        "status": "active",
        "schema": [
            {
                "name": name,
                "properties": properties,
                "quality": list(quality),
                "relationships": list(table_relationships),
            }
        ],
        "customProperties": [{"property": "maximumQuarantinedPercent", "value": most_bad}],
        **keys,
    }
    return Contract.model_validate_json(json.dumps(document))


def column(name: str, kind: str, **keys: Any) -> dict[str, Any]:
    """Make a column; accepts the keys of `logicalTypeOptions` directly."""
    options = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength", "pattern"}
    of_type = {key: keys.pop(key) for key in options & keys.keys()}
    return {"name": name, "logicalType": kind, **keys, **({"logicalTypeOptions": of_type} if of_type else {})}
