"""The fields of each kind that cannot be changed in place."""

from __future__ import annotations

from typing import Any

from laptop.cluster.kinds import DEPLOYMENT, JOB, POD, RBAC, REPLICA_SET, SECRET, SERVICE, Kind

_PATHS: dict[tuple[str, str], tuple[str, ...]] = {
    (JOB.group, JOB.name): ("spec.template", "spec.selector", "spec.completions", "spec.completionMode"),
    (SERVICE.group, SERVICE.name): ("spec.clusterIP",),
    (DEPLOYMENT.group, DEPLOYMENT.name): ("spec.selector",),
    (REPLICA_SET.group, REPLICA_SET.name): ("spec.selector",),
    (POD.group, POD.name): ("spec.containers", "spec.restartPolicy", "spec.serviceAccountName", "spec.volumes"),
    (SECRET.group, SECRET.name): ("type",),
    (RBAC, "RoleBinding"): ("roleRef",),
    (RBAC, "ClusterRoleBinding"): ("roleRef",),
}
_ALWAYS = ("apiVersion", "kind", "metadata.name", "metadata.namespace")


def immutable_paths(kind: Kind) -> tuple[str, ...]:
    """Dotted paths that cannot change, identity included; what is under such a path cannot change either."""
    return _ALWAYS + _PATHS.get((kind.group, kind.name), ())


def changed_immutables(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The immutable paths whose value would change. A value that was not set may be set, as defaults are."""
    found = []
    for path in immutable_paths(kind):
        before, after = _at(old, path), _at(new, path)
        if before is not None and after != before:
            found.append(path)
    return found


def _at(obj: Any, path: str) -> Any:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj
