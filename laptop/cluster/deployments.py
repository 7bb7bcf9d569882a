"""Deployments: replace pods in steps of maxSurge and maxUnavailable, as kube-controller-manager does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from laptop.cluster.conditions import condition_of, is_true, remove_condition, set_timed_condition
from laptop.cluster.controller import Controller
from laptop.cluster.event_log import record
from laptop.cluster.kinds import DEPLOYMENT, POD, REPLICA_SET
from laptop.cluster.objects import (
    Object,
    ObjectEvent,
    ObjectStore,
    annotations_of,
    is_deleting,
    name_of,
    namespace_of,
    uid_of,
)
from laptop.cluster.replica_sets import DEPLOYMENT_HASH, count, create_replica_set, find_replica_set
from laptop.cluster.surge import proportional_sizes, surge_and_unavailable
from laptop.cluster.templates import template_hash

REVISION = "deployment.kubernetes.io/revision"
_DESIRED = "deployment.kubernetes.io/desired-replicas"
_MOST = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = (REVISION, _DESIRED, _MOST, "kubectl.kubernetes.io/last-applied-configuration")
_AVAILABLE, _TIMED_OUT = "NewReplicaSetAvailable", "ProgressDeadlineExceeded"
_PAUSED = "DeploymentPaused"
_COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")


class Deployments(Controller):
    """Controller of Deployments: rolling updates, recreation, pauses and progress deadlines."""

    kind = DEPLOYMENT

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the Deployments that a change affects; the end of an old pod lets a recreation go on."""
        if event.kind is POD and event.type == "DELETED":
            return [
                (namespace_of(found), reference["name"])
                for owner in event.object["metadata"].get("ownerReferences", ())
                if (found := self._store.find(REPLICA_SET, namespace_of(event.object), owner["name"])) is not None
                for reference in found["metadata"].get("ownerReferences", ())
                if reference["kind"] == DEPLOYMENT.name
            ]
        return super().concerns(event)

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Deployment."""
        if is_deleting(obj):
            return None
        return _Update(self._store, obj).run()


class _Update:
    """One reconciliation of one Deployment."""

    def __init__(self, store: ObjectStore, obj: Object) -> None:
        self._store = store
        self._obj = obj
        self._spec: dict[str, Any] = obj["spec"]
        self._time = datetime.now(UTC)
        self._replicas = int(obj["spec"].get("replicas", 1))
        strategy = obj["spec"].get("strategy") or {}
        self._recreates = strategy.get("type") == "Recreate"
        limits = strategy.get("rollingUpdate") or {}
        surge, unavailable = limits.get("maxSurge", "25%"), limits.get("maxUnavailable", "25%")
        self._surge, self._unavailable = surge_and_unavailable(surge, unavailable, self._replicas)
        if self._recreates:
            self._surge, self._unavailable = 0, 0
        self._deadline = float(obj["spec"].get("progressDeadlineSeconds") or 600)

    def run(self) -> float | None:
        """Reconcile, and return the seconds until the next call, or None."""
        self._report_pause()
        self._all = self._store.owned(REPLICA_SET, self._obj)
        self._hash = template_hash(self._spec["template"])
        self._new = find_replica_set(self._store, self._obj, self._hash, DEPLOYMENT_HASH)
        self._old = [found for found in self._all if self._new is None or uid_of(found) != uid_of(self._new)]
        if self._new is not None:
            self._sync_revision(self._new)
        if self._spec.get("paused") or self._is_scaling():
            self._scale_all()
            return self._report(estimate=False)
        if self._recreates:
            self._recreate()
        else:
            self._roll()
        return self._report(estimate=True)

    # Revisions

    def _sync_revision(self, new: Object) -> None:
        revision = max(_revision_of(new), 1 + max((_revision_of(found) for found in self._old), default=0))
        self._new = self._change_set(new, lambda target: self._annotate(target, revision))
        self._set_revision(revision)

    def _set_revision(self, revision: int) -> None:
        if _revision_of(self._obj) != revision:

            def change(target: Object) -> None:
                annotations = annotations_of(target)
                target["metadata"]["annotations"] = {**annotations, REVISION: str(revision)}

            self._change(change)

    def _annotate(self, target: Object, revision: int) -> None:
        own = annotations_of(self._obj)
        copied = {key: value for key, value in own.items() if key not in _NOT_COPIED}
        annotations = annotations_of(target)
        target["metadata"]["annotations"] = {**annotations, **copied, REVISION: str(revision)}

    def _create_new(self) -> Object:
        revision = 1 + max((_revision_of(found) for found in self._old), default=0)
        new = create_replica_set(self._store, DEPLOYMENT, self._obj, self._hash, DEPLOYMENT_HASH, self._sizes())
        new = self._change_set(new, lambda target: self._annotate(target, revision))
        self._new, self._all = new, [*self._all, new]
        self._set_revision(revision)
        message = f'Created new replica set "{name_of(new)}"'

        def note(target: Object) -> None:
            status = target.setdefault("status", {})
            set_timed_condition(status, "Progressing", "True", "NewReplicaSetCreated", message, self._time)

        self._change(note)
        return new

    def _sizes(self) -> dict[str, str]:
        return {_DESIRED: str(self._replicas), _MOST: str(self._replicas + self._surge)}

    # Updates

    def _roll(self) -> None:
        new = self._new or self._create_new()
        wanted = int(new["spec"]["replicas"])
        if wanted > self._replicas:
            self._scale(new, self._replicas)
            return
        room = self._replicas + self._surge - self._wanted(self._all)
        grown = min(self._replicas, wanted + max(room, 0))
        if grown > wanted:
            self._scale(new, grown)
            return
        if not self._shrink_old(new):
            self._trim_history()

    def _shrink_old(self, new: Object) -> bool:
        old = [found for found in self._old if found["spec"]["replicas"]]
        least = self._replicas - self._unavailable
        waiting = int(new["spec"]["replicas"]) - count(new, "availableReplicas")
        spare = self._wanted(self._all) - least - waiting
        if not old or spare <= 0:
            return False
        scaled = False
        for number, found in enumerate(old):  # pods that are not available go first
            replicas = int(found["spec"]["replicas"])
            gone = min(spare, replicas - count(found, "availableReplicas"))
            if gone > 0:
                old[number] = self._scale(found, replicas - gone)
                spare -= gone
                scaled = True
        left = sum(count(found, "availableReplicas") for found in [*old, new]) - least
        for found in old:
            replicas = int(found["spec"]["replicas"])
            gone = min(replicas, left)
            if gone > 0:
                self._scale(found, replicas - gone)
                left -= gone
                scaled = True
        return scaled

    def _recreate(self) -> None:
        scaled = [self._scale(found, 0) for found in self._old if found["spec"]["replicas"]]
        if scaled or any(
            (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            for found in self._old
            for pod in self._store.owned(POD, found)
        ):
            return
        new = self._new or self._create_new()
        self._scale(new, self._replicas)
        self._trim_history()

    def _is_scaling(self) -> bool:
        """Return whether `spec.replicas` changed."""
        active = [found for found in self._all if found["spec"]["replicas"]]
        desired = [annotations_of(found).get(_DESIRED) for found in active]
        return any(text not in (None, str(self._replicas)) for text in desired)

    def _scale_all(self) -> None:
        """Scale without an update: in proportion if pods of several templates run."""
        active = [found for found in self._all if found["spec"]["replicas"]]
        if len(active) <= 1:
            chosen = active[0] if active else self._new or (self._old[-1] if self._old else None)
            if chosen is not None:
                self._scale(chosen, self._replicas)
            return
        if self._new is not None and count(self._new, "availableReplicas") == self._replicas == self._wanted(
            [self._new]
        ):
            for found in self._old:
                self._scale(found, 0)
            return
        most = self._replicas + self._surge if self._replicas else 0
        change = most - self._wanted(active)
        newest_first = sorted(active, key=self._all.index, reverse=change > 0)
        ordered = sorted(newest_first, key=lambda found: -int(found["spec"]["replicas"]))
        before = [int(found["spec"]["replicas"]) for found in ordered]
        bases = [int(annotations_of(found).get(_MOST, 0)) or sum(before) for found in ordered]
        for found, size in zip(ordered, proportional_sizes(before, bases, most), strict=True):
            self._scale(found, size)

    def _scale(self, replica_set: Object, replicas: int) -> Object:
        before = int(replica_set["spec"]["replicas"])

        def change(target: Object) -> None:
            target["spec"]["replicas"] = replicas
            target["metadata"]["annotations"] = {**annotations_of(target), **self._sizes()}

        scaled = self._change_set(replica_set, change)
        if before != replicas:
            way = "up" if replicas > before else "down"
            message = f"Scaled {way} replica set {name_of(replica_set)} from {before} to {replicas}"
            record(self._store, DEPLOYMENT, self._obj, "ScalingReplicaSet", message)
        return scaled

    def _trim_history(self) -> None:
        limit = self._spec.get("revisionHistoryLimit")
        old = sorted(self._old, key=_revision_of)
        for found in old[: max(0, len(old) - (10 if limit is None else int(limit)))]:
            if not found["spec"]["replicas"] and not count(found, "replicas"):
                self._store.delete(REPLICA_SET, namespace_of(found), name_of(found))

    # Status

    def _report_pause(self) -> None:
        progressing = condition_of(self._obj.get("status") or {}, "Progressing") or {}
        was, is_now = progressing.get("reason") == _PAUSED, bool(self._spec.get("paused"))
        if progressing.get("reason") == _TIMED_OUT or was == is_now:
            return
        reason, message = (
            (_PAUSED, "Deployment is paused") if is_now else ("DeploymentResumed", "Deployment is resumed")
        )

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            set_timed_condition(status, "Progressing", "Unknown", reason, message, self._time)

        self._change(change)

    def _report(self, *, estimate: bool) -> float | None:
        before: dict[str, Any] = self._obj.get("status") or {}
        everything = [self._newest(found) for found in self._store.owned(REPLICA_SET, self._obj)]
        new = self._newest(self._new) if self._new is not None else None
        available = sum(count(found, "availableReplicas") for found in everything)
        status: dict[str, Any] = {
            "observedGeneration": self._obj["metadata"]["generation"],
            "replicas": sum(count(found, "replicas") for found in everything),
            "updatedReplicas": count(new, "replicas"),
            "readyReplicas": sum(count(found, "readyReplicas") for found in everything),
            "availableReplicas": available,
            "unavailableReplicas": max(0, self._wanted(everything) - available),
            "conditions": list(before.get("conditions") or ()),
        }
        enough = available >= self._replicas - self._unavailable
        reason = "MinimumReplicas" + ("Available" if enough else "Unavailable")
        message = f"Deployment {'has' if enough else 'does not have'} minimum availability."
        set_timed_condition(status, "Available", str(enough), reason, message, self._time)
        left = self._estimate(before, status, new) if estimate else None
        if estimate:
            self._copy_failure(status, [*([new] if new else []), *everything])
        for key in _COUNTS:
            if not status[key]:
                del status[key]

        def change(target: Object) -> None:
            target["status"] = status

        self._change(change)
        return left

    def _estimate(self, before: dict[str, Any], status: dict[str, Any], new: Object | None) -> float | None:
        """Set the condition `Progressing`, and return the seconds until the deadline, or None."""
        current = condition_of(before, "Progressing") or {}
        if status["replicas"] == status["updatedReplicas"] and current.get("reason") == _AVAILABLE:
            return None
        name = f'ReplicaSet "{name_of(new)}"' if new is not None else f'Deployment "{name_of(self._obj)}"'
        if status["updatedReplicas"] == status["replicas"] == status["availableReplicas"] == self._replicas:
            text = f"{name} has successfully progressed."
            set_timed_condition(status, "Progressing", "True", _AVAILABLE, text, self._time)
            return None
        if _has_progressed(before, status):
            text = f"{name} is progressing."
            set_timed_condition(status, "Progressing", "True", "ReplicaSetUpdated", text, self._time, again=True)
            return self._deadline + 0.01
        progressing = condition_of(status, "Progressing")
        if progressing is None or progressing.get("reason") in (_AVAILABLE, _TIMED_OUT):
            return None
        since = datetime.fromisoformat(progressing["lastUpdateTime"])
        left = self._deadline - (self._time - since) / timedelta(seconds=1)
        if left > 0:
            return left + 0.01
        text = f"{name} has timed out progressing."
        set_timed_condition(status, "Progressing", "False", _TIMED_OUT, text, self._time)
        return None

    def _copy_failure(self, status: dict[str, Any], sets: Sequence[Object]) -> None:
        remove_condition(status, "ReplicaFailure")
        for found in sets:
            if is_true(found, "ReplicaFailure"):
                failure = condition_of(found["status"], "ReplicaFailure") or {}
                copied = {**failure, "lastUpdateTime": failure["lastTransitionTime"]}
                status["conditions"] = [*status["conditions"], copied]
                return

    # Effects

    def _wanted(self, sets: Sequence[Object]) -> int:
        return sum(int(self._newest(found)["spec"]["replicas"]) for found in sets)

    def _change(self, change: Callable[[Object], None]) -> None:
        self._obj = self._store.modify(DEPLOYMENT, self._obj, change) or self._obj

    def _change_set(self, replica_set: Object, change: Callable[[Object], None]) -> Object:
        return self._store.modify(REPLICA_SET, replica_set, change) or replica_set

    def _newest(self, replica_set: Object) -> Object:
        return self._store.find(REPLICA_SET, namespace_of(replica_set), name_of(replica_set)) or replica_set


def _has_progressed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    def number(status: dict[str, Any], key: str) -> int:
        return int(status.get(key) or 0)

    def old_pods(status: dict[str, Any]) -> int:
        return number(status, "replicas") - number(status, "updatedReplicas")

    grows = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return old_pods(after) < old_pods(before) or any(number(after, key) > number(before, key) for key in grows)


def _revision_of(obj: Object) -> int:
    return int(annotations_of(obj).get(REVISION, 0))
