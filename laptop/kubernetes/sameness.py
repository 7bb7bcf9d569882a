"""What differs between two manifests, and the patch that leads from one to the other."""

from __future__ import annotations

from typing import Any

from laptop.cluster.immutable import immutable_paths
from laptop.cluster.kinds import Kind
from laptop.engine.provider import Diff
from laptop.engine.values import UNKNOWN


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The paths (`spec.rules[0].host`) at which two JSON values differ. UNKNOWN differs from everything."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*old, *(key for key in new if key not in old)]:
            where = f"{path}.{key}" if path else key
            found += differences(old.get(key), new.get(key), where)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            where
            for index, (before, after) in enumerate(zip(old, new, strict=True))
            for where in differences(before, after, f"{path}[{index}]")
        ]
    same = new is not UNKNOWN and old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [path]


def diff(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> Diff:
    """What an update of an object of that kind would change, and what of it forces a replacement."""
    changed = differences(old, new)
    replace = [path for path in changed if _is_under(path, immutable_paths(kind))]
    same_place = all(
        (old.get("metadata") or {}).get(key) == (new.get("metadata") or {}).get(key) for key in ("name", "namespace")
    )
    return Diff(tuple(changed), tuple(replace), delete_before_replace=bool(replace) and same_place)


def merge_patch(old: Any, new: Any) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that leads from `old` to `new`.

    Applied to the live object it leaves alone what others have set beside it: the hash that Argo adds to a Service's
    selector, the weights that it writes on an Ingress.
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


def without_strangers(live: Any, *known: Any) -> Any:
    """A live object without the fields that were neither asked for nor there when it was last applied.

    They are the controllers' own (Argo's weights on an Ingress, its hash in a Service's selector): as with server-side
    apply, a program answers for the fields that it sets. What is whole by itself, like the status, stays.
    """
    manifests = [value for value in known if isinstance(value, dict)]
    if not isinstance(live, dict) or not manifests:
        return live
    kept = {}
    for key, value in live.items():
        there = [manifest[key] for manifest in manifests if key in manifest]
        if there:
            kept[key] = value if key == "status" else without_strangers(value, *there)
    return kept


def _is_under(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith((f"{top}.", f"{top}[")) or top.startswith(f"{path}.") for top in tops)
