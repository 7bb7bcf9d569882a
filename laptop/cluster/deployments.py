"""Deployments: the new ReplicaSet becomes available in full, then the old ones are scaled down."""

from __future__ import annotations

from laptop.cluster.conditions import set_condition
from laptop.cluster.controller import Controller
from laptop.cluster.kinds import DEPLOYMENT, REPLICA_SET
from laptop.cluster.objects import Object, is_deleting, uid_of
from laptop.cluster.replica_sets import DEPLOYMENT_HASH, count, replica_set_for, scale
from laptop.cluster.templates import template_hash


class Deployments(Controller):
    """Controller of Deployments: replaces pods without a gap. maxSurge and maxUnavailable are not read."""

    kind = DEPLOYMENT

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Deployment."""
        if is_deleting(obj):
            return None
        new_hash = template_hash(obj["spec"]["template"])
        new = replica_set_for(self._store, DEPLOYMENT, obj, new_hash, DEPLOYMENT_HASH, create=True)
        assert new is not None
        wanted = int(obj["spec"].get("replicas", 1))
        scale(self._store, new, wanted)
        available = min(count(new, "availableReplicas"), wanted)
        old = [found for found in self._store.owned(REPLICA_SET, obj) if uid_of(found) != uid_of(new)]
        if available >= wanted:
            for replica_set in old:
                scale(self._store, replica_set, 0)
        everything = [new, *old]

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            status |= {
                "observedGeneration": target["metadata"]["generation"],
                "replicas": sum(count(item, "replicas") for item in everything),
                "updatedReplicas": count(new, "replicas"),
                "readyReplicas": sum(count(item, "readyReplicas") for item in everything),
                "availableReplicas": sum(count(item, "availableReplicas") for item in everything),
            }
            complete = available >= wanted
            set_condition(
                status, "Available", complete, "MinimumReplicas" + ("Available" if complete else "Unavailable")
            )
            set_condition(status, "Progressing", True, "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated")

        self._store.modify(DEPLOYMENT, obj, change)
        return None
