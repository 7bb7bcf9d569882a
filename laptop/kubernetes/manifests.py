"""Comparison of manifests, and patches between them."""

from __future__ import annotations

from typing import Any

from laptop.cluster.immutable import immutable_paths
from laptop.cluster.kinds import Kind
from laptop.engine.paths import changed_paths, write_path
from laptop.engine.provider import Diff


def diff(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> Diff:
    """Return the changes of an update, and those that force a replacement."""
    changed = [write_path(path) for path in changed_paths(old, new)]
    replace = [path for path in changed if _is_under(path, immutable_paths(kind))]
    same_place = all(
        (old.get("metadata") or {}).get(key) == (new.get("metadata") or {}).get(key) for key in ("name", "namespace")
    )
    return Diff(tuple(changed), tuple(replace), delete_before_replace=bool(replace) and same_place)


def merge_patch(old: Any, new: Any) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7386) from `old` to `new`.

    Applied to the live object, it keeps the fields of other controllers, such as the hash that Argo adds to a Service's
    selector or the weights that it writes to an Ingress.
    """
    patch: dict[str, Any] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            patch[key] = None
        elif key not in old:
            patch[key] = new[key]
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            if nested := merge_patch(old[key], new[key]):
                patch[key] = nested
        elif old[key] != new[key]:
            patch[key] = new[key]
    return patch


def without_foreign_fields(live: Any, *known: Any) -> Any:
    """Remove the fields that no known manifest has; the status stays whole.

    Those fields belong to controllers (Argo's weights on an Ingress, its hash in a Service's selector). As with
    server-side apply, a program owns only the fields that it sets.

    Args:
        known: the inputs, and the outputs of the last step.
    """
    manifests = [value for value in known if isinstance(value, dict)]
    if not isinstance(live, dict) or not manifests:
        return live
    kept = {}
    for key, value in live.items():
        there = [manifest[key] for manifest in manifests if key in manifest]
        if there:
            kept[key] = value if key == "status" else without_foreign_fields(value, *there)
    return kept


def _is_under(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith((f"{top}.", f"{top}[")) or top.startswith(f"{path}.") for top in tops)
