"""Immutable fields of each kind."""

from __future__ import annotations

from typing import Any

from laptop.cluster.kinds import DEPLOYMENT, JOB, POD, RBAC, REPLICA_SET, SECRET, SERVICE, Kind
from laptop.cluster.refusals import FORBIDDEN, INVALID, FieldProblem

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
IMMUTABLE = "field is immutable"
_POD_FIELDS = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_ALWAYS = ("apiVersion", "kind", "metadata.name", "metadata.namespace")


def immutable_paths(kind: Kind) -> tuple[str, ...]:
    """Return the dotted paths that cannot change, identity included. Nothing below such a path can change either."""
    return _ALWAYS + _PATHS.get((kind.group, kind.name), ())


def changed_immutables(kind: Kind, old: dict[str, Any], new: dict[str, Any]) -> list[FieldProblem]:
    """Return the immutable fields whose value would change. A value that was not set may be set."""
    found = []
    for path in immutable_paths(kind):
        before, after = _at(old, path), _at(new, path)
        if before is None or after == before:
            continue
        if kind == POD:
            found.append(FieldProblem(FORBIDDEN, "spec", detail=_POD_FIELDS))
            break
        found.append(FieldProblem(INVALID, path, after, "cannot change roleRef" if path == "roleRef" else IMMUTABLE))
    if old.get("immutable") is True:
        for path in ("immutable", "data", "binaryData"):
            if _at(old, path) != _at(new, path):
                found.append(FieldProblem(FORBIDDEN, path, detail="field is immutable when `immutable` is set"))
    return found


def _at(obj: Any, path: str) -> Any:
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj
