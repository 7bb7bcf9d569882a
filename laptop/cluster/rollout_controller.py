"""Argo Rollouts: shift traffic to a new version in the steps of its manifest, or abort.

`canary` decides; this module gathers the facts and carries out the decision. Control it as you would Argo:
`status.abort`, `status.pauseConditions: null` (promote one step), `status.promoteFull`, `spec.paused`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from laptop.cluster.analysis import start_analysis
from laptop.cluster.canary_steps import CanaryDecision, CanaryFacts, decide
from laptop.cluster.conditions import set_condition
from laptop.cluster.controller import Controller
from laptop.cluster.event_log import record
from laptop.cluster.kinds import ANALYSIS_RUN, INGRESS, REPLICA_SET, ROLLOUT, SERVICE
from laptop.cluster.objects import (
    Object,
    ObjectEvent,
    ObjectStore,
    is_deleting,
    name_of,
    namespace_of,
    now,
    uid_of,
)
from laptop.cluster.replica_sets import ROLLOUT_HASH, count, replica_set_for, scale
from laptop.cluster.routes import ACTIONS, forward_action
from laptop.cluster.templates import template_hash

REVISION = "rollout.argoproj.io/revision"

_SCALE_DOWN_DELAY = 30.0  # seconds, Argo's default with a traffic router
_PROGRESS_DEADLINE = 600.0  # seconds, Argo's default
_HISTORY = 10  # old ReplicaSets kept, Argo's default
_RUNS_KEPT = 10  # finished AnalysisRuns


@dataclass
class _Memory:
    """State of the controller between reconciliations of one rollout. Times are of the event loop's clock."""

    pause_since: tuple[str, int, float] | None = None
    progress: tuple[Any, ...] = ()
    progress_at: float = 0.0


class Rollouts(Controller):
    """Controller of Rollouts: takes them through their steps.

    Args:
        store: objects of the cluster.
        time_scale: factor applied to declared pauses and scale-down delays.
    """

    kind = ROLLOUT

    def __init__(self, store: ObjectStore, time_scale: float) -> None:
        super().__init__(store)
        self._time_scale = time_scale
        self._memory: dict[str, _Memory] = {}
        self._scale_down_at: dict[str, float] = {}

    def forget(self, obj: Object) -> None:
        """Drop the state of a deleted Rollout."""
        self._memory.pop(uid_of(obj), None)

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the Rollouts that a change affects, including those that name a changed Service or Ingress."""
        if event.kind in (SERVICE, INGRESS):
            namespace = namespace_of(event.object)
            return [
                (namespace, name_of(rollout))
                for rollout in self._store.find_all(ROLLOUT, namespace)
                if name_of(event.object) in _named(rollout)
            ]
        return super().concerns(event)

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Rollout."""
        if is_deleting(obj):
            return None
        look = _Look(self._store, obj, self._memory.setdefault(uid_of(obj), _Memory()), self._time_scale)
        if look.template_changed():
            return 0.0
        decision = decide(look.facts())
        if (trouble := look.trouble()) is not None:
            look.report(decision, phase="Degraded", message=trouble)
            return None
        decision, left = look.in_time(decision)
        look.apply(decision)
        waits = [left, decision.wait, self._scale_down(look)]
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def _scale_down(self, look: _Look) -> float | None:
        """Scale down ReplicaSets without traffic, after the delay of the manifest."""
        clock = asyncio.get_running_loop().time()
        waits = []
        for replica_set in look.unused():
            uid = uid_of(replica_set)
            if not replica_set["spec"]["replicas"]:
                self._scale_down_at.pop(uid, None)
                continue
            delay = look.scale_down_delay()
            if delay is None:
                continue
            at = self._scale_down_at.setdefault(uid, clock + delay)
            if at <= clock:
                scale(self._store, replica_set, 0)
                self._scale_down_at.pop(uid, None)
            else:
                waits.append(at - clock)
        for replica_set in look.used():
            self._scale_down_at.pop(uid_of(replica_set), None)
        look.trim_history()
        return min(waits, default=None)


class _Look:
    """One reconciliation of one rollout."""

    def __init__(self, store: ObjectStore, obj: Object, memory: _Memory, time_scale: float) -> None:
        self._store = store
        self._obj = obj
        self._memory = memory
        self._time_scale = time_scale
        self._spec: dict[str, Any] = obj["spec"]
        self._canary: dict[str, Any] = obj["spec"]["strategy"]["canary"]
        self._steps: list[dict[str, Any]] = self._canary.get("steps") or []
        self._status: dict[str, Any] = obj.get("status") or {}
        self._replicas = int(obj["spec"].get("replicas", 1))
        self._hash = template_hash(obj["spec"]["template"])
        new = replica_set_for(store, ROLLOUT, obj, self._hash, ROLLOUT_HASH, create=True)
        assert new is not None
        self._new = new
        self._stable_hash = str(self._status.get("stableRS") or "")
        self._stable = (
            replica_set_for(store, ROLLOUT, obj, self._stable_hash, ROLLOUT_HASH, create=False)
            if self._stable_hash
            else None
        )

    # Facts

    def template_changed(self) -> bool:
        """Record a new template or list of steps, and return whether there is one."""
        steps_hash = hashlib.sha256(json.dumps(self._steps, sort_keys=True).encode()).hexdigest()[:10]
        same_template = self._status.get("currentPodHash") == self._hash
        if same_template and self._status.get("currentStepHash") == steps_hash:
            return False
        settled = self._is_settled()
        skip = settled or (not same_template and self._is_in_rollback_window())
        if not same_template:
            self._number_revision()
            self._stop_analyses()
            if not settled:
                what = "Rolling back to" if skip else "Rolling out"
                record(self._store, ROLLOUT, self._obj, "RolloutUpdated", f"{what} {self._hash}")

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            status |= {"currentPodHash": self._hash, "currentStepHash": steps_hash}
            status["currentStepIndex"] = len(self._steps) if skip else 0
            if not same_template:
                for key in ("abort", "abortedAt", "promoteFull", "pauseConditions", "controllerPause"):
                    status.pop(key, None)
            status.setdefault("canary", {}).pop("currentStepAnalysisRunStatus", None)

        self._store.modify(ROLLOUT, self._obj, change)
        self._memory.pause_since = None
        return True

    def facts(self) -> CanaryFacts:
        """Return the facts for `canary.decide`."""
        index = min(int(self._status.get("currentStepIndex", 0)), len(self._steps))
        if self._status.get("promoteFull"):
            index = len(self._steps)
        elif self._was_promoted(index):
            index += 1
        pausing = None
        if self._memory.pause_since is not None and self._memory.pause_since[:2] == (self._hash, index):
            pausing = asyncio.get_running_loop().time() - self._memory.pause_since[2]
        return CanaryFacts(
            steps=self._steps,
            index=index,
            replicas=self._replicas,
            new_available=count(self._new, "availableReplicas"),
            stable_available=count(self._stable, "availableReplicas"),
            first=not self._stable_hash,
            settled=self._stable_hash == self._hash,
            aborted=bool(self._status.get("abort")),
            paused=bool(self._spec.get("paused")),
            pausing=pausing,
            time_scale=self._time_scale,
            analysis=self._analysis_phase(index),
        )

    def trouble(self) -> str | None:
        """Return Argo's message about a named object that does not exist; None if all exist."""
        namespace = namespace_of(self._obj)
        for key in ("canaryService", "stableService"):
            name = self._canary.get(key)
            if name and self._store.find(SERVICE, namespace, name) is None:
                return f'InvalidSpec: {key} "{name}" not found'
        alb = (self._canary.get("trafficRouting") or {}).get("alb")
        if alb:
            ingress = self._store.find(INGRESS, namespace, alb["ingress"])
            if ingress is None:
                return f'InvalidSpec: ingress "{alb["ingress"]}" not found'
            if not _routes(ingress, self._root_service()):
                return (
                    f"InvalidSpec: ingress `{alb['ingress']}` has no rules using service "
                    f"`{self._root_service()}` backend with port `use-annotation`"
                )
        return None

    def unused(self) -> list[Object]:
        """Return the ReplicaSets that get no traffic."""
        kept = {uid_of(found) for found in self.used()}
        return [found for found in self._store.owned(REPLICA_SET, self._obj) if uid_of(found) not in kept]

    def used(self) -> list[Object]:
        """Return the ReplicaSets that get traffic now or will."""
        newest = self._store.get(ROLLOUT, namespace_of(self._obj), name_of(self._obj))
        status = newest.get("status") or {}
        hashes = {status.get("stableRS")}
        if not status.get("abort"):
            hashes.add(self._hash)
        owned = self._store.owned(REPLICA_SET, self._obj)
        return [found for found in owned if found["metadata"]["labels"][ROLLOUT_HASH] in hashes]

    def scale_down_delay(self) -> float | None:
        """Return the seconds until an unused ReplicaSet is scaled down; None for never."""
        aborted = bool(self._status.get("abort"))
        key = "abortScaleDownDelaySeconds" if aborted else "scaleDownDelaySeconds"
        if key in self._canary:
            if aborted and self._canary[key] == 0:
                return None
            return float(self._canary[key]) * self._time_scale
        routed = bool(self._canary.get("trafficRouting"))
        return _SCALE_DOWN_DELAY * self._time_scale if routed else 0.0

    # Effects

    def apply(self, decision: CanaryDecision) -> None:
        """Carry out a decision: pods first, then traffic, then the status."""
        if self._status.get("abort"):
            self._stop_analyses()
        elif not decision.abort:
            scale(self._store, self._new, decision.new_replicas)
        if self._stable is not None and self._stable_hash != self._hash:
            scale(self._store, self._stable, decision.stable_replicas)
        self._point_services()
        if decision.weight is not None:
            self._set_weight(decision.weight)
        if not decision.pause:
            self._memory.pause_since = None
        elif self._memory.pause_since is None or self._memory.pause_since[:2] != (self._hash, decision.index):
            self._memory.pause_since = (self._hash, decision.index, asyncio.get_running_loop().time())
        if decision.analyse:
            self._start_analysis(decision.index)
        if decision.abort:
            self._abort(decision.abort)
            return
        self.report(decision)
        if decision.promote:
            self._promote()

    def in_time(self, decision: CanaryDecision) -> tuple[CanaryDecision, float | None]:
        """Apply the progress deadline to a decision, and return it with the seconds that are left."""
        fingerprint = (
            self._hash,
            decision.index,
            decision.new_replicas,
            count(self._new, "availableReplicas"),
            count(self._new, "readyReplicas"),
        )
        clock = asyncio.get_running_loop().time()
        waiting = decision.phase == "Progressing" and decision.message != "analysis step"
        if not waiting or fingerprint != self._memory.progress:
            self._memory.progress, self._memory.progress_at = fingerprint, clock
        if not waiting:
            return decision, None
        allowed = float(self._spec.get("progressDeadlineSeconds") or _PROGRESS_DEADLINE)
        left = self._memory.progress_at + allowed - clock
        if left > 0:
            return decision, left + 0.01
        why = f'ProgressDeadlineExceeded: ReplicaSet "{name_of(self._new)}" has timed out progressing.'
        abort = why if self._spec.get("progressDeadlineAbort") and not self._is_settled() else ""
        return replace(decision, phase="Degraded", message=why, abort=abort), None

    def report(self, decision: CanaryDecision, *, phase: str = "", message: str = "") -> None:
        """Write the status."""
        everything = self._store.owned(REPLICA_SET, self._obj)
        new = self._store.find(REPLICA_SET, namespace_of(self._new), name_of(self._new))
        phase = phase or decision.phase
        message = message or decision.message

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            if self._is_settled():  # nothing to abort
                status.pop("abort", None)
                status.pop("abortedAt", None)
            if status.get("abort"):
                revision = self._revision()
                if not str(status.get("message")).startswith("RolloutAborted"):
                    status["message"] = f"RolloutAborted: Rollout aborted update to revision {revision}"
            elif message:
                status["message"] = message
            else:
                status.pop("message", None)
            status |= {
                "phase": phase,
                "observedGeneration": str(target["metadata"]["generation"]),
                "currentStepIndex": decision.index,
                "replicas": sum(count(item, "replicas") for item in everything),
                "readyReplicas": sum(count(item, "readyReplicas") for item in everything),
                "availableReplicas": sum(count(item, "availableReplicas") for item in everything),
                "HPAReplicas": sum(count(item, "replicas") for item in everything),
                "updatedReplicas": count(new, "replicas"),
                "blueGreen": {},
            }
            if decision.pause and phase == "Paused":
                status["controllerPause"] = True
                conditions = status.get("pauseConditions") or []
                if [item["reason"] for item in conditions] != [decision.pause]:
                    status["pauseConditions"] = [{"reason": decision.pause, "startTime": now()}]
            else:
                status.pop("controllerPause", None)
                status.pop("pauseConditions", None)
            healthy = phase == "Healthy"
            available = count(self._stable or new, "availableReplicas") >= self._replicas
            set_condition(status, "Available", available, "AvailableReason")
            late = message.startswith("ProgressDeadlineExceeded")
            reason = "ProgressDeadlineExceeded" if late else "RolloutAborted" if status.get("abort") else ""
            progressing = "NewReplicaSetAvailable" if healthy else "ReplicaSetUpdated"
            set_condition(status, "Progressing", not reason, reason or progressing, message)
            set_condition(status, "Paused", phase == "Paused", "RolloutPaused" if phase == "Paused" else "")
            set_condition(status, "Healthy", healthy, "RolloutHealthy" if healthy else "RolloutNotHealthy")
            completed = status.get("stableRS") == self._hash
            set_condition(status, "Completed", completed, "RolloutCompleted" if completed else "")

        self._store.modify(ROLLOUT, self._obj, change)

    def trim_history(self) -> None:
        """Delete the oldest ReplicaSets without pods beyond `revisionHistoryLimit`, and old AnalysisRuns."""
        limit = self._spec.get("revisionHistoryLimit")
        kept = _HISTORY if limit is None else int(limit)
        idle = [found for found in self.unused() if not found["spec"]["replicas"] and not count(found, "replicas")]
        idle.sort(key=_revision_of)
        for found in idle[: max(0, len(idle) - kept)]:
            self._store.delete(REPLICA_SET, namespace_of(found), name_of(found))
        runs = [
            run
            for run in self._store.owned(ANALYSIS_RUN, self._obj)
            if (run.get("status") or {}).get("phase") not in (None, "Pending", "Running")
        ]
        for run in runs[: max(0, len(runs) - _RUNS_KEPT)]:
            self._store.delete(ANALYSIS_RUN, namespace_of(run), name_of(run))

    def _is_settled(self) -> bool:
        return self._stable_hash in ("", self._hash)

    def _was_promoted(self, index: int) -> bool:
        """Return whether a person ended the current pause by removing the pause conditions."""
        return bool(
            self._status.get("controllerPause")
            and not self._status.get("pauseConditions")
            and index < len(self._steps)
            and self._memory.pause_since is not None
        )

    def _analysis_phase(self, index: int) -> str:
        current = (self._status.get("canary") or {}).get("currentStepAnalysisRunStatus") or {}
        if index >= len(self._steps) or "analysis" not in self._steps[index] or not current:
            return ""
        run = self._store.find(ANALYSIS_RUN, namespace_of(self._obj), current["name"])
        if run is None or run["metadata"]["labels"].get("step-index") != str(index):
            return ""
        return str((run.get("status") or {}).get("phase") or "Pending")

    def _start_analysis(self, index: int) -> None:
        run, problem = start_analysis(
            self._store,
            self._obj,
            self._steps[index]["analysis"],
            index,
            self._hash,
            self._stable_hash,
            self._revision(),
        )
        if run is None:
            self._abort(f"Step-based analysis could not start: {problem}")
            return
        name = name_of(run)

        def change(target: Object) -> None:
            canary = target.setdefault("status", {}).setdefault("canary", {})
            canary["currentStepAnalysisRunStatus"] = {"name": name, "status": "Pending"}

        self._store.modify(ROLLOUT, self._obj, change)

    def _abort(self, why: str) -> None:
        current = (self._status.get("canary") or {}).get("currentStepAnalysisRunStatus") or {}
        run = self._store.find(ANALYSIS_RUN, namespace_of(self._obj), current.get("name", ""))
        detail = ((run.get("status") or {}).get("message") if run else "") or ""
        message = f"RolloutAborted: Rollout aborted update to revision {self._revision()}: {why}"
        message += f": {detail}" if detail and detail not in message else ""

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            status |= {"abort": True, "abortedAt": now(), "message": message}

        record(self._store, ROLLOUT, self._obj, "RolloutAborted", message, warning=True)
        self._store.modify(ROLLOUT, self._obj, change)
        self._set_weight(0)

    def _promote(self) -> None:
        """Make the newest template the stable one. Traffic follows without a gap."""

        def change(target: Object) -> None:
            status = target["status"]
            status["stableRS"] = self._hash
            for key in ("promoteFull", "abort", "abortedAt"):
                status.pop(key, None)

        self._store.modify(ROLLOUT, self._obj, change)
        record(self._store, ROLLOUT, self._obj, "RolloutCompleted", f"Rollout completed: {self._hash} is stable")
        self._stable_hash, self._stable = self._hash, self._new
        self._point_services()
        self._set_weight(0)

    def _point_services(self) -> None:
        """Make the stable and the canary Service select the pods of their ReplicaSets, once those are available."""
        for key, replica_set in (("stableService", self._stable), ("canaryService", self._new)):
            name = self._canary.get(key)
            service = self._store.find(SERVICE, namespace_of(self._obj), name) if name else None
            if service is None or replica_set is None:
                continue
            if not count(replica_set, "availableReplicas") and self._replicas:
                continue
            hash_ = replica_set["metadata"]["labels"][ROLLOUT_HASH]

            def change(target: Object, hash_: str = hash_) -> None:
                target["spec"].setdefault("selector", {})[ROLLOUT_HASH] = hash_

            self._store.modify(SERVICE, service, change)

    def _set_weight(self, weight: int) -> None:
        """Set the traffic weights, by the Ingress annotation that the load balancer's controller reads."""
        alb = (self._canary.get("trafficRouting") or {}).get("alb")
        if not alb:
            return
        canary, stable = self._canary["canaryService"], self._canary["stableService"]
        action = forward_action(alb["servicePort"], {canary: weight, stable: 100 - weight})
        ingress = self._store.find(INGRESS, namespace_of(self._obj), alb["ingress"])
        if ingress is None:
            return
        key = f"{ACTIONS}{self._root_service()}"

        def annotate(target: Object) -> None:
            annotations = target["metadata"].setdefault("annotations", {})
            annotations[key] = action

        def report(target: Object) -> None:
            status = target.setdefault("status", {})
            stable_hash = status.get("stableRS") or self._hash
            status.setdefault("canary", {})["weights"] = {
                "canary": {"weight": weight, "serviceName": canary, "podTemplateHash": self._hash},
                "stable": {"weight": 100 - weight, "serviceName": stable, "podTemplateHash": stable_hash},
                "verified": True,
            }

        self._store.modify(INGRESS, ingress, annotate)
        self._store.modify(ROLLOUT, self._obj, report)

    def _root_service(self) -> str:
        alb = self._canary["trafficRouting"]["alb"]
        return str(alb.get("rootService") or self._canary["stableService"])

    def _stop_analyses(self) -> None:
        for run in self._store.owned(ANALYSIS_RUN, self._obj):
            if (run.get("status") or {}).get("phase") in (None, "Pending", "Running"):
                self._store.modify(ANALYSIS_RUN, run, lambda target: target["spec"].update(terminate=True))

    def _revision(self) -> int:
        newest = self._store.find(REPLICA_SET, namespace_of(self._new), name_of(self._new)) or self._new
        return _revision_of(newest)

    def _number_revision(self) -> None:
        """Give the newest template the highest revision number, on an update and on a rollback."""
        newest = 1 + max((_revision_of(found) for found in self._store.owned(REPLICA_SET, self._obj)), default=0)

        def number(target: Object) -> None:
            target["metadata"].setdefault("annotations", {})[REVISION] = str(newest)

        self._store.modify(REPLICA_SET, self._new, number)
        self._store.modify(ROLLOUT, self._obj, number)

    def _is_in_rollback_window(self) -> bool:
        """Return whether the template is an earlier one within `rollbackWindow.revisions` of the stable one.

        The order is that in which the ReplicaSets were created, as in Argo.
        """
        window = int((self._spec.get("rollbackWindow") or {}).get("revisions", 0))
        order = [uid_of(found) for found in self._store.owned(REPLICA_SET, self._obj)]
        if not window or self._stable is None:
            return False
        between = order.index(uid_of(self._stable)) - order.index(uid_of(self._new)) - 1
        return 0 <= between < window


def _revision_of(replica_set: Object) -> int:
    return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, 0))


def _named(rollout: Object) -> set[str]:
    canary = rollout["spec"]["strategy"]["canary"]
    alb = (canary.get("trafficRouting") or {}).get("alb") or {}
    return {canary.get("canaryService"), canary.get("stableService"), alb.get("ingress")} - {None}


def _routes(ingress: Object, service: str) -> bool:
    for rule in ingress["spec"].get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            backend: dict[str, Any] = path["backend"].get("service") or {}
            if backend.get("name") == service and (backend.get("port") or {}).get("name") == "use-annotation":
                return True
    return False
