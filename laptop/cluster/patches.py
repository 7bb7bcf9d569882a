"""The patch formats of the Kubernetes API, applied to plain JSON values.

Merge patch is RFC 7386. Strategic merge patch adds Kubernetes' rule that some lists are merged by a key of their items.
Server-side apply is read as a strategic merge without field ownership: a field that an applier stops naming stays.
"""

from __future__ import annotations

import copy
from typing import Any

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

# `patchMergeKey` in the Kubernetes API's own types, for the kinds kept here.
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
    """A JSON merge patch (RFC 7386); gives a new value."""
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
    """A strategic merge patch, with the `$patch: delete` and `$patch: replace` directives; gives a new value."""
    if isinstance(patch, dict):
        if patch.get("$patch") == "replace":
            return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
        result = dict(target) if isinstance(target, dict) else {}
        for name, value in patch.items():
            if value is None:
                result.pop(name, None)
            else:
                result[name] = strategic_merge(result.get(name), value, name)
        return result
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
