"""ReplicaSets: a number of pods of one template."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from laptop.cluster.admission_control import create_pod
from laptop.cluster.conditions import is_true, set_condition
from laptop.cluster.controller import Controller
from laptop.cluster.kinds import POD, REPLICA_SET, Kind
from laptop.cluster.objects import Object, ObjectStore, is_deleting, name_of, namespace_of, owner_reference
from laptop.cluster.refusals import StatusError

ROLLOUT_HASH = "rollouts-pod-template-hash"
DEPLOYMENT_HASH = "pod-template-hash"
_REFUSED_AGAIN = 1.0  # seconds


class ReplicaSets(Controller):
    """Controller of ReplicaSets: keeps `spec.replicas` pods."""

    kind = REPLICA_SET

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one ReplicaSet."""
        pods = [pod for pod in self._store.owned(POD, obj) if not is_deleting(pod)]
        for pod in pods:
            if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                self._store.delete(POD, namespace_of(pod), name_of(pod))
        pods = [pod for pod in pods if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]
        wanted = 0 if is_deleting(obj) else int(obj["spec"].get("replicas", 1))
        refused = ""
        for _ in range(wanted - len(pods)):
            try:
                pods.append(self._create(obj))
            except StatusError as refusal:
                refused = refusal.message
                break
        # Pods that are not ready go first, then the newest.
        by_use = sorted(enumerate(pods), key=lambda item: (is_true(item[1], "Ready"), -item[0]))
        for _, pod in by_use[: max(0, len(pods) - wanted)]:
            self._store.delete(POD, namespace_of(pod), name_of(pod))
            pods.remove(pod)
        waiting = self._report(obj, pods, refused)
        return _REFUSED_AGAIN if refused else waiting

    def _create(self, obj: Object) -> Object:
        template = obj["spec"]["template"]
        metadata = {key: dict(value) for key, value in (template.get("metadata") or {}).items() if value}
        metadata = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **metadata,
                "generateName": f"{name_of(obj)}-",
                "ownerReferences": [owner_reference(REPLICA_SET, obj)],
            },
            "spec": template["spec"],
        }
        return create_pod(self._store, namespace_of(obj), pod)

    def _report(self, obj: Object, pods: list[Object], refused: str) -> float | None:
        ready = [pod for pod in pods if is_true(pod, "Ready")]
        ages = [_seconds_ready(pod) for pod in ready]
        needed = int(obj["spec"].get("minReadySeconds") or 0)
        available = sum(age >= needed for age in ages)

        def change(target: Object) -> None:
            status: dict[str, Any] = target.setdefault("status", {})
            status |= {
                "replicas": len(pods),
                "fullyLabeledReplicas": len(pods),
                "readyReplicas": len(ready),
                "availableReplicas": available,
                "observedGeneration": target["metadata"]["generation"],
            }
            if refused or "conditions" in status:
                set_condition(status, "ReplicaFailure", bool(refused), "FailedCreate" if refused else "", refused)

        self._store.modify(REPLICA_SET, obj, change)
        young = [needed - age for age in ages if age < needed]
        return min(young) + 0.05 if young else None


def _seconds_ready(pod: Object) -> float:
    since = next(item["lastTransitionTime"] for item in pod["status"]["conditions"] if item["type"] == "Ready")
    return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()


def find_replica_set(store: ObjectStore, owner: Object, template_hash: str, label: str) -> Object | None:
    """Return the ReplicaSet of an owner for a template hash, or None."""
    for found in store.owned(REPLICA_SET, owner):
        if found["metadata"]["labels"].get(label) == template_hash:
            return found
    return None


def create_replica_set(
    store: ObjectStore, kind: Kind, owner: Object, template_hash: str, label: str, annotations: dict[str, str]
) -> Object:
    """Create the ReplicaSet of an owner for a template hash, with no pods."""
    template = owner["spec"]["template"]
    metadata = template.get("metadata") or {}
    labels = {**(metadata.get("labels") or {}), label: template_hash}
    selector = owner["spec"]["selector"]
    return store.create(
        REPLICA_SET,
        namespace_of(owner),
        {
            "metadata": {
                "name": f"{name_of(owner)}-{template_hash}",
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner_reference(kind, owner)],
            },
            "spec": {
                "replicas": 0,
                "minReadySeconds": owner["spec"].get("minReadySeconds") or 0,
                "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), label: template_hash}},
                "template": {**template, "metadata": {**metadata, "labels": labels}},
            },
        },
    )


def scale(store: ObjectStore, replica_set: Object, replicas: int) -> None:
    """Set the number of pods of a ReplicaSet."""

    def change(target: Object) -> None:
        target["spec"]["replicas"] = replicas

    store.modify(REPLICA_SET, replica_set, change)


def count(replica_set: Object | None, what: str) -> int:
    """Return a count of a ReplicaSet's status, such as `readyReplicas`; 0 if it is not set."""
    if replica_set is None:
        return 0
    return int((replica_set.get("status") or {}).get(what, 0))
