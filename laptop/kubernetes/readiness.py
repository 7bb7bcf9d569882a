"""Readiness of a live object by the rules of pulumi-kubernetes. Pure functions.

Custom resources and objects with the annotation `pulumi.com/skipAwait` count as ready.
"""

from __future__ import annotations

from typing import Any

from laptop.cluster.kinds import DEPLOYMENT, INGRESS, JOB, POD, SERVICE, Kind
from pipelines.declarations.errors import MlopsError

Object = dict[str, Any]

SKIP = "pulumi.com/skipAwait"


def waiting_for(kind: Kind, obj: Object, pods: list[Object]) -> str:
    """Return what an object is waiting for; "" if it is ready.

    Args:
        kind: kind of the object.
        obj: live object.
        pods: live pods of its namespace; used for a Service.

    Raises:
        MlopsError: the object can never become ready.
    """
    if skips(obj):
        return ""
    status = obj.get("status") or {}
    if kind == JOB:
        return _job(obj, status)
    if kind == INGRESS:
        balancers = (status.get("loadBalancer") or {}).get("ingress")
        return "" if balancers else "the load balancer's address"
    if kind == DEPLOYMENT:
        wanted = obj["spec"].get("replicas", 1)
        seen = status.get("observedGeneration") == obj["metadata"]["generation"]
        done = seen and status.get("updatedReplicas", 0) >= wanted and status.get("availableReplicas", 0) >= wanted
        return "" if done else f"{wanted} available pods (found {status.get('availableReplicas', 0)})"
    if kind == SERVICE:
        selector = obj["spec"].get("selector") or {}
        if not selector or any(_is_ready(pod) and _selects(selector, pod) for pod in pods):
            return ""
        return "a ready pod that its selector matches"
    if kind == POD:
        return "" if _is_ready(obj) or status.get("phase") == "Succeeded" else "the pod to be ready"
    return ""


def skips(obj: Object) -> bool:
    """Return True if the object opts out of waiting."""
    return ((obj.get("metadata") or {}).get("annotations") or {}).get(SKIP) == "true"


def needs_pods(kind: Kind) -> bool:
    """Return True if `waiting_for` uses the pods of the namespace."""
    return kind == SERVICE


def _job(obj: Object, status: Object) -> str:
    if obj["spec"].get("suspend"):
        return ""
    for condition in status.get("conditions") or ():
        if condition["status"] == "True" and condition["type"] == "Complete":
            return ""
        if condition["status"] == "True" and condition["type"] == "Failed":
            name = obj["metadata"]["name"]
            raise MlopsError(
                f"the job {name} failed: {condition.get('reason')}: {condition.get('message')}",
                fix=f"read its log: kubectl -n {obj['metadata']['namespace']} logs job/{name}",
            )
    return "the job to complete"


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _selects(selector: dict[str, str], pod: Object) -> bool:
    return selector.items() <= (pod["metadata"].get("labels") or {}).items()
