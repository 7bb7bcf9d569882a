"""Fields that a manager owns by server-side apply, as `metadata.managedFields` lists them. Pure functions.

A set of fields has the form of `fieldsV1`: nested objects with the keys `f:<field>`, `k:<key of an item>`, `v:<item>`
and `i:<index>`. A key without content stands for the whole value; `.` stands for the object that holds the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def managers_of_field(resource: dict[str, Any], path: Sequence[str]) -> list[str]:
    """Return the managers that own a field by server-side apply.

    Args:
        resource: an object as the API returns it.
        path: names of fields, from the top.
    """
    found = []
    for entry in _applied(resource):
        node: Any = entry.get("fieldsV1") or {}
        for field in path:
            node = node.get(f"f:{field}") if isinstance(node, dict) else None
        if node is not None:
            found.append(str(entry.get("manager", "")))
    return found


def owned_by(resource: dict[str, Any], manager: str) -> dict[str, Any] | None:
    """Return what a manager applied to an object, to apply it again with changes; None if it applied nothing.

    Fields that other managers own are left out. The result names the object: apply it as `manager`, and the manager
    owns the same fields as before.

    Args:
        resource: an object as the API returns it.
        manager: name of the field manager.
    """
    entry = next((entry for entry in _applied(resource) if entry.get("manager") == manager), None)
    if entry is None:
        return None
    found: dict[str, Any] = _extract(resource, entry.get("fieldsV1") or {})
    metadata = resource["metadata"]
    names = {key: metadata[key] for key in ("name", "namespace") if key in metadata}
    return {
        **found,
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "metadata": {**(found.get("metadata") or {}), **names},
    }


def _applied(resource: dict[str, Any]) -> list[dict[str, Any]]:
    entries = resource["metadata"].get("managedFields") or []
    return [entry for entry in entries if entry.get("operation") == "Apply" and not entry.get("subresource")]


def _extract(value: Any, fields: dict[str, Any]) -> Any:
    if not fields:
        return value
    if isinstance(value, dict):
        found = {}
        for key, below in fields.items():
            name = key.removeprefix("f:")
            if key.startswith("f:") and name in value:
                found[name] = _extract(value[name], below)
        return found
    if isinstance(value, list):
        keys = [_key(item, index, fields) for index, item in enumerate(value)]
        return [_extract(item, fields[key]) for item, key in zip(value, keys, strict=True) if key is not None]
    return value


def _key(item: Any, index: int, fields: dict[str, Any]) -> str | None:
    """Return the key of a set that stands for an item of a list; None if the item is not in the set."""
    for key in fields:
        kind, _, text = key.partition(":")
        if kind == "k":
            wanted = json.loads(text)
            # A key has the default of a field that the item leaves out, such as the protocol of a port.
            if isinstance(item, dict) and all(item.get(name, value) == value for name, value in wanted.items()):
                return key
        elif (kind == "v" and json.loads(text) == item) or (kind == "i" and int(text) == index):
            return key
    return None
