"""Patch formats of the Kubernetes API, applied to plain JSON values.

Merge patch is RFC 7386. Strategic merge patch merges some lists by a key of their items, as the Kubernetes API
declares. Server-side apply is read as a strategic merge without field ownership: a field that an applier stops naming
stays.
"""

from __future__ import annotations

import copy
from typing import Any

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

_ORDER, _DELETE_FROM = "$setElementOrder/", "$deleteFromPrimitiveList/"

# `patchMergeKey` in the Kubernetes API's own types, for the kinds served here.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
    "ownerReferences": "uid",
    "conditions": "type",
    "topologySpreadConstraints": "topologyKey",
    "hostAliases": "ip",
}


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


def strategic_merge(target: Any, patch: Any, key: str = "") -> Any:
    """Apply a strategic merge patch and return a new value.

    The directives are `$patch: delete`, `$patch: replace`, `$retainKeys`, `$setElementOrder` and
    `$deleteFromPrimitiveList`.
    """
    if isinstance(patch, dict):
        return _merge_object(target, patch)
    merge_key = _merge_key(key, target, patch)
    if not merge_key:
        return copy.deepcopy(patch)
    items = {item[merge_key]: item for item in target or ()}
    for item in patch:
        if item.get("$patch") == "delete":
            items.pop(item[merge_key], None)
        else:
            items[item[merge_key]] = strategic_merge(items.get(item[merge_key]), item)
    return list(items.values())


def _merge_object(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        else:
            result[name] = strategic_merge(result.get(name), value, name)
    for name, value in patch.items():
        if name == "$retainKeys":
            result = {kept: result[kept] for kept in result if kept in value}
        elif name.startswith(_DELETE_FROM):
            field = name.removeprefix(_DELETE_FROM)
            result[field] = [item for item in result.get(field) or () if item not in value]
        elif name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            result[field] = _ordered(result.get(field) or [], value)
    return result


def _ordered(items: list[Any], order: list[Any]) -> list[Any]:
    """Return a list in the order of a `$setElementOrder` directive; items it does not name come last."""

    def place(item: Any) -> int:
        for index, wanted in enumerate(order):
            if wanted == item or (
                isinstance(wanted, dict) and isinstance(item, dict) and wanted.items() <= item.items()
            ):
                return index
        return len(order)

    return sorted(items, key=place)


def _merge_key(key: str, target: Any, patch: Any) -> str:
    candidates = [_MERGE_KEYS.get(key, "")]
    if key == "ports":  # of a Service by `port`, of a container by `containerPort`
        candidates = ["containerPort", "port"]
    if not isinstance(patch, list):
        return ""
    both = [*(target or ()), *patch]
    for candidate in candidates:
        if candidate and both and all(isinstance(item, dict) and candidate in item for item in both):
            return candidate
    return ""
