"""Patch formats of the Kubernetes API, applied to plain JSON values.

Merge patch is RFC 7386. Strategic merge patch merges some lists by a key of their items, as the types of the Kubernetes
API declare. Server-side apply is in `field_ownership`, JSON patch (RFC 6902) in a library.
"""

from __future__ import annotations

import copy
from typing import Any

from laptop.cluster.typed_schemas import ANY, FieldType

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON = "application/json-patch+json"

_ORDER, _DELETE_FROM = "$setElementOrder/", "$deleteFromPrimitiveList/"


class PatchError(Exception):
    """A strategic merge patch cannot be applied."""


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386) and return a new value."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic_merge(type_: FieldType, target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch and return a new value.

    The directives are `$patch: delete`, `$patch: replace`, `$patch: merge`, `$retainKeys`, `$setElementOrder` and
    `$deleteFromPrimitiveList`.

    Raises:
        PatchError: an item of a list lacks the key by which it is found, or a directive is not known.
    """
    if isinstance(patch, dict):
        return _merge_object(type_, target, patch)
    if not (isinstance(patch, list) and type_.form == "list" and type_.merges):
        return copy.deepcopy(patch)
    element = type_.element or ANY
    if not type_.merge_key:  # a set of plain values
        return [*(target or ()), *(item for item in patch if item not in (target or ()))]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if item.get("$patch") != "replace"]
    items = {_key_of(type_, item): item for item in target or ()}
    for item in patch:
        key = _key_of(type_, item)
        if item.get("$patch") == "delete":
            items.pop(key, None)
        else:
            items[key] = strategic_merge(element, items.get(key), item)
    return list(items.values())


def _key_of(type_: FieldType, item: Any) -> Any:
    if not isinstance(item, dict) or type_.merge_key not in item:
        raise PatchError(f"map: {item} does not contain declared merge key: {type_.merge_key}")
    return item[type_.merge_key]


def _merge_object(type_: FieldType, target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError(f"unknown patch type {directive!r} in map")
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        else:
            result[name] = strategic_merge(_field(type_, name), result.get(name), value)
    for name, value in patch.items():
        if name == "$retainKeys":
            result = {kept: result[kept] for kept in result if kept in value}
        elif name.startswith(_DELETE_FROM):
            field = name.removeprefix(_DELETE_FROM)
            result[field] = [item for item in result.get(field) or () if item not in value]
        elif name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            if field in result:
                result[field] = _ordered(_field(type_, field), result[field], value)
    return result


def _field(type_: FieldType, name: str) -> FieldType:
    return (type_.field(name) if type_.form == "object" else None) or ANY


def _ordered(type_: FieldType, items: list[Any], order: list[Any]) -> list[Any]:
    """Return a list in the order of a `$setElementOrder` directive; items it does not name come last."""
    key = type_.merge_key

    def place(item: Any) -> int:
        for index, wanted in enumerate(order):
            if wanted == item or (
                key and isinstance(wanted, dict) and isinstance(item, dict) and wanted.get(key) == item.get(key)
            ):
                return index
        return len(order)

    return sorted(items, key=place)
