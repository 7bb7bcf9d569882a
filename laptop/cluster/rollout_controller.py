"""Argo Rollouts: shift traffic to a new version in the steps of its manifest, or abort.

`canary_steps` and `rollout_status` decide; this module gathers the facts and carries out the decisions, in the order of
Argo's controller. Control it as you would Argo: `status.abort`, `status.pauseConditions: null` (promote one step),
`status.promoteFull`, `spec.paused`, `spec.restartAt`.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from laptop.cluster.analysis import is_ended, start_analysis
from laptop.cluster.canary_steps import (
    FULL,
    CanaryFacts,
    PodCounts,
    is_complete,
    name_of_step,
    pod_counts,
    returning_from,
    traffic,
    weights_of,
    why_promote,
)
from laptop.cluster.conditions import condition_of, is_true, remove_condition, set_timed_condition
from laptop.cluster.controller import Controller
from laptop.cluster.durations import pause_seconds
from laptop.cluster.event_log import record
from laptop.cluster.kinds import ANALYSIS_RUN, ANALYSIS_TEMPLATE, INGRESS, POD, REPLICA_SET, ROLLOUT, SERVICE
from laptop.cluster.objects import (
    Object,
    ObjectEvent,
    ObjectStore,
    annotations_of,
    is_deleting,
    name_of,
    namespace_of,
    now,
    uid_of,
)
from laptop.cluster.replica_sets import ROLLOUT_HASH, count, create_replica_set, find_replica_set
from laptop.cluster.rollout_status import (
    ABORTED,
    CAN_PAUSE,
    INCONCLUSIVE,
    PAUSED,
    TIMED_OUT,
    has_progressed,
    is_completed,
    is_healthy,
    phase_of,
    seconds_to_deadline,
)
from laptop.cluster.rollout_validation import MANAGED_BY, named_objects, root_service, why_invalid
from laptop.cluster.routes import ACTIONS, forward_action
from laptop.cluster.selectors import selector_text
from laptop.cluster.surge import surge_and_unavailable
from laptop.cluster.templates import template_hash

REVISION = "rollout.argoproj.io/revision"
DESIRED = "rollout.argoproj.io/desired-replicas"
SCALE_DOWN_DEADLINE = "scale-down-deadline"
_MANAGED_ANNOTATIONS = "rollouts.argoproj.io/managed-alb-annotations"
_NOT_COPIED = (REVISION, DESIRED, "kubectl.kubernetes.io/last-applied-configuration")

_SCALE_DOWN_DELAY = 30.0  # seconds, Argo's default, also after an abort
_HISTORY = 10  # old ReplicaSets kept, Argo's default
_RUNS_KEPT = 5  # AnalysisRuns kept of each kind, successful or not, Argo's default
_RESTART_AGAIN = 30.0  # seconds until pods that could not be restarted are looked at again


@dataclass
class _Timers:
    """Ends of waits, on the event loop's clock. The status holds them too, but only to the second."""

    ends: dict[str, float] = field(default_factory=dict)

    def left(self, key: str, seconds: float, since: datetime) -> float:
        """Return the seconds left of a wait that began at `since`; the first call fixes its end."""
        clock = asyncio.get_running_loop().time()
        elapsed = (datetime.now(UTC) - since) / timedelta(seconds=1)
        end = self.ends.setdefault(key, clock + seconds - (elapsed if elapsed > 1.0 else 0.0))
        return end - clock


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
        self._ends: dict[str, _Timers] = {}

    def forget(self, obj: Object) -> None:
        """Drop the state of a deleted Rollout. Its Services select pods of every version again, and get all traffic."""
        self._ends.pop(uid_of(obj), None)
        for service in self._store.find_all(SERVICE, namespace_of(obj)):
            if annotations_of(service).get(MANAGED_BY) == name_of(obj):
                self._store.modify(SERVICE, service, _release)
        for ingress in self._store.find_all(INGRESS, namespace_of(obj)):
            if name_of(obj) in _managed(ingress):
                self._store.modify(INGRESS, ingress, functools.partial(_reset_traffic, rollout=name_of(obj)))

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the Rollouts that a change affects, including those that name a changed object."""
        if event.kind in (SERVICE, INGRESS, ANALYSIS_TEMPLATE):
            namespace = namespace_of(event.object)
            return [
                (namespace, name_of(rollout))
                for rollout in self._store.find_all(ROLLOUT, namespace)
                if (event.kind, name_of(event.object)) in named_objects(rollout)
            ]
        return super().concerns(event)

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Rollout."""
        if is_deleting(obj):
            return None
        timers = self._ends.setdefault(uid_of(obj), _Timers())
        return _Reconciliation(self._store, obj, timers, self._time_scale).run()


@dataclass
class _Pauses:
    """Changes of pauses and of the abort, which the end of a reconciliation writes."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    cleared: bool = False
    abort: str | None = None
    abort_removed: bool = False


class _Reconciliation:
    """One reconciliation of one rollout."""

    def __init__(self, store: ObjectStore, obj: Object, timers: _Timers, time_scale: float) -> None:
        self._store = store
        self._obj = obj
        self._timers = timers
        self._time_scale = time_scale
        self._time = datetime.now(UTC)
        self._waits: list[float] = []
        self._pauses = _Pauses()
        self._spec: dict[str, Any] = obj["spec"]
        self._canary: dict[str, Any] = obj["spec"]["strategy"]["canary"]
        self._steps: list[dict[str, Any]] = self._canary.get("steps") or []
        self._replicas = int(obj["spec"].get("replicas", 1))
        self._hash = template_hash(obj["spec"]["template"])
        self._step_hash = hashlib.sha256(json.dumps(self._steps, sort_keys=True).encode()).hexdigest()[:10]

    def run(self) -> float | None:
        """Reconcile, and return the seconds until the next call, or None."""
        problem = why_invalid(self._obj, lambda kind, name: self._store.find(kind, namespace_of(self._obj), name))
        if problem:
            self._report_invalid(problem)
            return None
        self._look()
        self._sync_revision()
        if self._is_promoted() and self._status.get("abort"):
            self._pauses.abort_removed = True
        self._report_pauses()
        if self._is_scaling():
            self._scale_only()
        else:
            self._take_step()
        return min(self._waits, default=None)

    # Facts

    @property
    def _status(self) -> dict[str, Any]:
        return self._obj.get("status") or {}

    def _look(self) -> None:
        """Read the ReplicaSets; create that of the newest template."""
        new = find_replica_set(self._store, self._obj, self._hash, ROLLOUT_HASH)
        self._new = new if new is not None else self._create_replica_set()
        self._all = self._store.owned(REPLICA_SET, self._obj)
        stable = str(self._status.get("stableRS") or "")
        self._stable = find_replica_set(self._store, self._obj, stable, ROLLOUT_HASH) if stable else None
        used = {uid_of(found) for found in (self._new, self._stable) if found is not None}
        self._others = [found for found in self._all if uid_of(found) not in used]
        self._weights = weights_of(self._status)

    def _facts(self) -> CanaryFacts:
        return CanaryFacts(
            canary=self._canary,
            replicas=self._replicas,
            new=_pods(self._new),
            stable=_pods(self._stable) if self._stable is not None else None,
            status=self._status,
            in_rollback_window=self._is_in_rollback_window(),
            aborted=self._is_aborted(),
        )

    def _is_aborted(self) -> bool:
        if self._pauses.abort_removed:
            return False
        return self._pauses.abort is not None or bool(self._status.get("abort"))

    def _is_promoted(self) -> bool:
        return bool(self._status.get("stableRS", "") == self._status.get("currentPodHash", ""))

    def _is_in_rollback_window(self) -> bool:
        """Return whether the template is an earlier one within `rollbackWindow.revisions` of the stable one.

        The order is that in which the ReplicaSets were created.
        """
        window = int((self._spec.get("rollbackWindow") or {}).get("revisions", 0))
        if not window or self._stable is None:
            return False
        order = [uid_of(found) for found in self._all]
        between = order.index(uid_of(self._stable)) - order.index(uid_of(self._new)) - 1
        return 0 <= between < window

    def _has_pause(self, reason: str) -> dict[str, Any] | None:
        conditions = self._status.get("pauseConditions") or ()
        return next((item for item in conditions if item["reason"] == reason), None)

    def _revision(self) -> int:
        return _revision_of(self._obj)

    # Revisions and invalid specifications

    def _create_replica_set(self) -> Object:
        revision = 1 + max((_revision_of(found) for found in self._store.owned(REPLICA_SET, self._obj)), default=0)
        annotations = {**self._copied_annotations(), REVISION: str(revision), DESIRED: str(self._replicas)}
        new = create_replica_set(self._store, ROLLOUT, self._obj, self._hash, ROLLOUT_HASH, annotations)
        self._event("NewReplicaSetCreated", f"Created ReplicaSet {name_of(new)} (revision {revision})")

        def note(target: Object) -> None:
            message = f'Created new replica set "{name_of(new)}"'
            status = target.setdefault("status", {})
            set_timed_condition(status, "Progressing", "True", "NewReplicaSetCreated", message, self._time)

        self._change(note)
        return new

    def _copied_annotations(self) -> dict[str, str]:
        annotations = annotations_of(self._obj)
        return {key: value for key, value in annotations.items() if key not in _NOT_COPIED}

    def _sync_revision(self) -> None:
        """Give the newest template the highest revision number, on an update and on a rollback."""
        others = (_revision_of(found) for found in self._all if uid_of(found) != uid_of(self._new))
        revision = max(_revision_of(self._new), 1 + max(others, default=0))
        annotations = {**self._copied_annotations(), REVISION: str(revision)}
        self._new = self._change_set(self._new, lambda target: _annotate(target, annotations))
        if self._revision() != revision:
            self._change(lambda target: _annotate(target, {REVISION: str(revision)}))
            self._event("RolloutUpdated", f"Rollout updated to revision {revision}")

    def _report_invalid(self, problem: str) -> None:
        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            old = condition_of(status, "InvalidSpec")
            again = old is not None and old["message"] != problem
            set_timed_condition(status, "InvalidSpec", "True", "InvalidSpec", problem, self._time, again=again)
            self._finish(target, status)

        self._change(change)

    def _report_pauses(self) -> None:
        """Set the conditions that say whether the rollout is paused, resumed or tried again."""
        progressing = condition_of(self._status, "Progressing") or {}
        paused = bool(self._status.get("pauseConditions")) or bool(self._spec.get("paused"))
        was_aborted = progressing.get("reason") == ABORTED
        noted: list[tuple[str, str, str, str]] = []
        if paused != (progressing.get("reason") == PAUSED) and not was_aborted and not is_completed(self._status):
            if paused:
                noted.append(("Progressing", "Unknown", PAUSED, "Rollout is paused"))
            else:
                noted.append(("Progressing", "Unknown", "RolloutResumed", "Rollout is resumed"))
        if not self._status.get("abort") and was_aborted:
            noted.append(("Progressing", "Unknown", "RolloutRetry", "Retrying Rollout after abort"))
        if paused != is_true(self._obj, "Paused") and not was_aborted:
            noted.append(("Paused", str(paused), PAUSED, "Rollout is paused"))
        if not noted:
            return

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            for type_, value, reason, message in noted:
                set_timed_condition(status, type_, value, reason, message, self._time)
            self._finish(target, status)

        self._change(change)

    # Scaling

    def _is_scaling(self) -> bool:
        """Return whether `spec.replicas` changed."""
        for found in (self._new, self._stable):
            desired = annotations_of(found).get(DESIRED) if found is not None else None
            if found is not None and found["spec"]["replicas"] and desired not in (None, str(self._replicas)):
                return True
        return False

    def _scale_only(self) -> None:
        """Scale to a changed `spec.replicas`, and leave steps, pauses and conditions for later."""
        self._scale_replica_sets()
        status = {**self._status, "availableReplicas": self._sum("availableReplicas")}
        status["HPAReplicas"] = self._sum("replicas")
        if not self._is_aborted():
            status.pop("abort", None)
            status.pop("abortedAt", None)
        self._write(status)

    def _scale_replica_sets(self) -> bool:
        """Scale the ReplicaSets one after another, and return whether one was scaled; the next call goes on."""
        if self._spec.get("paused") or self._has_pause(INCONCLUSIVE):
            return False
        if not self._keeps_canary_after_abort():
            self._set_deadline(self._new, None)
        if self._stable is not None:
            self._set_deadline(self._stable, None)
            if uid_of(self._stable) != uid_of(self._new):
                # With the weights of the last status: stable pods are removed one reconciliation after their traffic.
                _, wanted = pod_counts(self._facts(), weights_of(self._status))
                if self._scale(self._stable, wanted):
                    return True
        return self._scale_new() or self._scale_others()

    def _scale_new(self) -> bool:
        wanted, _ = pod_counts(self._facts(), self._weights)
        if self._keeps_canary_after_abort():
            left = self._seconds_to_scale_down(self._new)
            if left is None:
                if count(self._stable, "availableReplicas") == self._replicas:
                    self._set_deadline(self._new, self._abort_delay() or 0.0)
                return False
            if left > 0:
                self._waits.append(left)
                return False
            wanted = 0
        return self._scale(self._new, wanted)

    def _abort_delay(self) -> float | None:
        """Return the seconds until the canary is scaled down after an abort; None for never."""
        seconds = float(self._canary.get("abortScaleDownDelaySeconds", _SCALE_DOWN_DELAY))
        return seconds * self._time_scale if seconds else None

    def _keeps_canary_after_abort(self) -> bool:
        """Return whether the update is aborted and its pods stay until a delay is over."""
        if not self._is_aborted() or self._stable is None or self._abort_delay() is None:
            return False
        return not self._canary.get("dynamicStableScale") or "abortScaleDownDelaySeconds" in self._canary

    def _scale_others(self) -> bool:
        """Scale down the ReplicaSets that get no traffic, after the delay of the manifest."""
        others = [found for found in self._others if found["spec"]["replicas"]]
        scaled = False
        for number, found in enumerate(others):  # pods that are not available go at once
            available = count(found, "availableReplicas")
            if found["spec"]["replicas"] > available:
                scaled = self._scale(found, available) or scaled
                others[number] = self._newest(found)
        spare = self._sum("availableReplicas") - (self._replicas - self._most_unavailable())
        for found in sorted(others, key=_revision_of, reverse=True):
            replicas = found["spec"]["replicas"]
            if spare <= 0 or not replicas or self._is_referenced(found):
                continue
            wanted = self._wanted_of_other(found)
            if self._scale(found, wanted):
                spare -= replicas - wanted
                scaled = True
        return scaled

    def _most_unavailable(self) -> int:
        """Return how many pods may be missing: 0 unless the canary sets both limits, as Argo computes it."""
        surge, unavailable = self._canary.get("maxSurge"), self._canary.get("maxUnavailable")
        if surge is None or unavailable is None:
            return 0
        return min(surge_and_unavailable(surge, unavailable, self._replicas)[1], self._replicas)

    def _wanted_of_other(self, found: Object) -> int:
        left = self._seconds_to_scale_down(found)
        if self._canary.get("dynamicStableScale") or (left is None and not self._is_promoted()):
            return 0  # in the second case a version that was replaced in mid-update
        replicas = int(found["spec"]["replicas"])
        if left is None:
            delay = float(self._canary.get("scaleDownDelaySeconds", _SCALE_DOWN_DELAY)) * self._time_scale
            if delay:
                self._set_deadline(found, delay)
            return replicas
        if left <= 0:
            return 0
        self._waits.append(left)
        return replicas

    def _is_referenced(self, replica_set: Object) -> bool:
        """Return whether the status or a Service still names a ReplicaSet."""
        hash_ = replica_set["metadata"]["labels"][ROLLOUT_HASH]
        weights = (self._status.get("canary") or {}).get("weights") or {}
        named = {self._status.get("stableRS"), self._status.get("currentPodHash")}
        named |= {(weights.get(role) or {}).get("podTemplateHash") for role in ("canary", "stable")}
        for key in ("canaryService", "stableService"):
            service = self._store.find(SERVICE, namespace_of(self._obj), self._canary.get(key, ""))
            named.add(((service or {}).get("spec", {}).get("selector") or {}).get(ROLLOUT_HASH))
        return hash_ in named

    def _set_deadline(self, replica_set: Object, seconds: float | None) -> None:
        """Set, or remove, the time at which a ReplicaSet is scaled down."""
        key = f"scale down {uid_of(replica_set)}"
        if seconds is None:
            self._timers.ends.pop(key, None)
            if SCALE_DOWN_DEADLINE not in annotations_of(replica_set):
                return
        else:
            self._timers.ends[key] = asyncio.get_running_loop().time() + seconds
            self._waits.append(seconds)

        def change(target: Object) -> None:
            annotations = target["metadata"].setdefault("annotations", {})
            annotations.pop(SCALE_DOWN_DEADLINE, None)
            if seconds is not None:
                at = self._time + timedelta(seconds=seconds)
                annotations[SCALE_DOWN_DEADLINE] = at.strftime("%Y-%m-%dT%H:%M:%SZ")

        self._replace_set(replica_set, self._change_set(replica_set, change))

    def _seconds_to_scale_down(self, replica_set: Object) -> float | None:
        text = annotations_of(replica_set).get(SCALE_DOWN_DEADLINE)
        if not text:
            return None
        clock = asyncio.get_running_loop().time()
        left = (datetime.fromisoformat(text) - self._time) / timedelta(seconds=1)
        return self._timers.ends.setdefault(f"scale down {uid_of(replica_set)}", clock + left) - clock

    def _scale(self, replica_set: Object, replicas: int) -> bool:
        """Set the number of pods of a ReplicaSet, and return whether it changed."""
        before = replica_set["spec"]["replicas"]

        def change(target: Object) -> None:
            target["spec"]["replicas"] = replicas
            annotations = {DESIRED: str(self._replicas)}
            _annotate(target, annotations)
            if replicas == 0 and not self._keeps_canary_after_abort():
                target["metadata"]["annotations"].pop(SCALE_DOWN_DEADLINE, None)

        self._replace_set(replica_set, self._change_set(replica_set, change))
        if before == replicas:
            return False
        way = "up" if replicas > before else "down"
        what = f"{name_of(replica_set)} (revision {_revision_of(replica_set)}) from {before} to {replicas}"
        self._event("ScalingReplicaSet", f"Scaled {way} ReplicaSet {what}")
        return True

    def _replace_set(self, old: Object, new: Object) -> None:
        if uid_of(old) == uid_of(self._new):
            self._new = new
        if self._stable is not None and uid_of(old) == uid_of(self._stable):
            self._stable = new

    # One reconciliation of a canary

    def _take_step(self) -> None:
        if self._restart_update_if_changed():
            return
        status = self._base_status()
        if self._restart_pods(status):
            return
        self._trim_history()
        self._point_services()
        self._set_traffic(status)
        self._analyse(status)
        if not self._pauses.added and not self._scale_replica_sets():
            self._pause()
        self._end(status)

    def _restart_update_if_changed(self) -> bool:
        """Start an update if the template or the steps changed, and return whether one starts."""
        seen = self._status.get("currentPodHash")
        if self._status.get("currentStepHash") == self._step_hash and seen in (None, self._hash):
            return False
        status = self._base_status()
        self._pauses.cleared = self._pauses.abort_removed = True
        self._timers.ends.clear()
        status.pop("promoteFull", None)
        status.pop("restartedAt", None)
        if self._spec.get("restartAt"):
            status["restartedAt"] = self._spec["restartAt"]
        status.pop("currentStepIndex", None)
        if self._steps:
            status["currentStepIndex"] = 0
            if self._status.get("stableRS") == self._hash:
                self._event("SkipSteps", "Rollback to stable ReplicaSets")
                status["currentStepIndex"] = len(self._steps)
            elif self._is_in_rollback_window() and self._new["spec"]["replicas"]:
                self._event("SkipSteps", "Rollback to active ReplicaSets within RollbackWindow")
                status["currentStepIndex"] = len(self._steps)
        self._set_conditions(status)
        self._persist(status)
        return True

    def _end(self, status: dict[str, Any]) -> None:
        """Promote, abort or go to the next step, and write the status."""
        facts, last = self._facts(), len(self._steps)
        index = last if self._status.get("promoteFull") or facts.in_rollback_window else facts.index
        if index != facts.index or self._status.get("promoteFull"):
            facts = replace(facts, status={**self._status, "currentStepIndex": index})
        if self._status.get("promoteFull") or facts.in_rollback_window:
            self._pauses.cleared = self._pauses.abort_removed = True
            facts = replace(facts, aborted=False)
        if reason := why_promote(facts):
            self._promote(status, reason)
        elif facts.aborted:
            index = last if status.get("stableRS") == self._hash else 0
        elif not self._spec.get("paused") and is_complete(
            facts, self._weights, self._pause_left(), self._analysis_phase(status)
        ):
            index += 1
            status["canary"].pop("currentStepAnalysisRunStatus", None)
            step = name_of_step(self._steps[index - 1])
            self._event("RolloutStepCompleted", f"Rollout step {index}/{last} completed ({step})")
            self._pauses.removed.append(CAN_PAUSE)
        if last and not reason:
            status["currentStepIndex"] = index
        self._set_conditions(status)
        self._persist(status)

    def _promote(self, status: dict[str, Any], reason: str) -> None:
        self._pauses.cleared = self._pauses.abort_removed = True
        status.pop("promoteFull", None)
        if self._steps:
            status["currentStepIndex"] = len(self._steps)
        if status.get("stableRS") == self._hash:
            return
        if self._canary.get("pingPong"):
            was_ping = status["canary"].get("stablePingPong") == "ping"
            status["canary"]["stablePingPong"] = "pong" if was_ping else "ping"
        status["stableRS"] = self._hash
        what = f"revision {self._revision()} ({self._hash}): {reason}"
        self._event("RolloutCompleted", f"Rollout completed update to {what}")

    def _base_status(self) -> dict[str, Any]:
        before = self._status
        canary = {
            key: value for key, value in (before.get("canary") or {}).items() if key in ("weights", "stablePingPong")
        }
        kept = ("stableRS", "restartedAt", "promoteFull", "currentStepIndex")
        status: dict[str, Any] = {key: before[key] for key in kept if before.get(key) not in (None, "", False)}
        status |= {
            "blueGreen": {},
            "canary": canary,
            "conditions": list(before.get("conditions") or ()),
            "currentPodHash": self._hash,
            "currentStepHash": self._step_hash,
            "replicas": self._sum("replicas"),
            "readyReplicas": self._sum("readyReplicas"),
            "availableReplicas": self._sum("availableReplicas"),
            "HPAReplicas": self._sum("replicas"),
            "updatedReplicas": count(self._new, "replicas"),
            "selector": selector_text(self._spec["selector"]),
        }
        remove_condition(status, "InvalidSpec")
        return status

    def _sum(self, what: str) -> int:
        return sum(count(self._newest(found), what) for found in self._all)

    def _restart_pods(self, status: dict[str, Any]) -> bool:
        """Delete pods older than `spec.restartAt`, as many as may be missing; return whether any was deleted."""
        text = self._spec.get("restartAt")
        if not text or text == self._status.get("restartedAt"):
            return False
        at = datetime.fromisoformat(text)
        if at > self._time:
            self._waits.append((at - self._time) / timedelta(seconds=1))
            return False
        first = [uid_of(found) for found in (self._stable, self._new) if found is not None]
        sets = sorted(self._all, key=lambda found: first.index(uid_of(found)) if uid_of(found) in first else len(first))
        pods = [pod for found in sets for pod in self._store.owned(POD, found)]
        available = sum(is_true(pod, "Ready") and not is_deleting(pod) for pod in pods)
        wanted = max(self._replicas, sum(int(found["spec"]["replicas"]) for found in self._all))
        spare = available - (wanted - max(self._most_unavailable(), 1))
        old = [pod for pod in pods if datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) < at]
        chosen = [pod for pod in old if not is_deleting(pod)][: max(0, spare)]
        for pod in chosen:
            self._store.delete(POD, namespace_of(pod), name_of(pod))
        if len(chosen) == len(old):
            status["restartedAt"] = text
        else:
            self._waits.append(_RESTART_AGAIN)
        return bool(chosen)

    def _trim_history(self) -> None:
        """Delete the oldest ReplicaSets without pods beyond `revisionHistoryLimit`."""
        limit = self._spec.get("revisionHistoryLimit")
        excess = len(self._others) - (_HISTORY if limit is None else int(limit))
        for found in self._others[: max(0, excess)]:
            if not found["spec"]["replicas"] and not count(found, "replicas"):
                self._store.delete(REPLICA_SET, namespace_of(found), name_of(found))

    def _pause(self) -> None:
        """Begin the pause of the current step, or wait for its end."""
        step = self._facts().step
        if self._spec.get("paused") or self._status.get("promoteFull") or step is None or "pause" not in step:
            return
        if self._has_pause(CAN_PAUSE) is None:
            if not self._status.get("controllerPause"):
                self._pauses.added.append(CAN_PAUSE)
            return
        left = self._pause_left()
        if left is not None and left > 0:
            self._waits.append(left)

    def _pause_left(self) -> float | None:
        """Return the seconds left of the current pause, or None if it has no end or has not begun."""
        step, pause = self._facts().step, self._has_pause(CAN_PAUSE)
        if pause is None:
            return 0.0 if self._status.get("controllerPause") else None
        duration = ((step or {}).get("pause") or {}).get("duration")
        if duration is None:
            return None
        since = datetime.fromisoformat(pause["startTime"])
        key = f"pause {self._status.get('currentStepIndex')} {pause['startTime']}"
        return self._timers.left(key, pause_seconds(duration) * self._time_scale, since)

    # Services and traffic

    def _services(self) -> tuple[str, str]:
        """Return the names of the stable and of the canary Service."""
        pair = self._canary.get("pingPong")
        if not pair:
            return self._canary.get("stableService", ""), self._canary.get("canaryService", "")
        ping, pong = pair["pingService"], pair["pongService"]
        is_ping = (self._status.get("canary") or {}).get("stablePingPong") == "ping"
        return (ping, pong) if is_ping else (pong, ping)

    def _point_services(self) -> None:
        """Make the Services select the pods of their ReplicaSets, once those are available."""
        if self._canary.get("pingPong"):
            if not self._is_promoted():
                self._point(self._services()[1], self._new, check=False)
            return
        self._point(self._canary.get("stableService", ""), self._stable, check=True)
        if not self._is_aborted() and returning_from(self._facts()) is None:
            self._point(self._canary.get("canaryService", ""), self._new, check=True)

    def _point(self, name: str, replica_set: Object | None, *, check: bool) -> None:
        service = self._store.find(SERVICE, namespace_of(self._obj), name) if name else None
        if service is None or replica_set is None:
            return
        hash_ = replica_set["metadata"]["labels"][ROLLOUT_HASH]
        before = (service["spec"].get("selector") or {}).get(ROLLOUT_HASH, "")
        if before == hash_:
            return
        adopted = MANAGED_BY in annotations_of(service)
        available = count(replica_set, "availableReplicas")
        if check and (not available or (not adopted and available < max(1, replica_set["spec"]["replicas"]))):
            return

        def change(target: Object) -> None:
            target["spec"]["selector"] = {**(target["spec"].get("selector") or {}), ROLLOUT_HASH: hash_}
            _annotate(target, {MANAGED_BY: name_of(self._obj)})

        self._store.modify(SERVICE, service, change)
        self._event("SwitchService", f"Switched selector for service '{name}' from '{before}' to '{hash_}'")

    def _set_traffic(self, status: dict[str, Any]) -> None:
        facts = self._facts()
        wanted = traffic(facts)
        is_back = not facts.scales_stable or (wanted is not None and wanted.weight == 0)
        if is_back and facts.aborted and returning_from(facts) is None and not facts.is_promoted:
            self._point(self._canary.get("canaryService", ""), self._stable, check=False)
        if wanted is None or facts.stable is None:
            return
        self._annotate_ingress(wanted.weight)
        weights = {
            "canary": {"weight": wanted.weight, "podTemplateHash": wanted.hash},
            "stable": {"weight": FULL - wanted.weight, "podTemplateHash": facts.stable.hash},
        }
        for role in ("canary", "stable"):
            if self._canary.get(f"{role}Service"):
                weights[role]["serviceName"] = self._canary[f"{role}Service"]
        before = (self._status.get("canary") or {}).get("weights")
        if before != weights:
            way = f"to {wanted.weight}" if not before else f"from {before['canary']['weight']} to {wanted.weight}"
            self._event("TrafficWeightUpdated", f"Traffic weight updated {way}")
        status["canary"]["weights"] = weights
        self._weights = (wanted.weight, FULL - wanted.weight)

    def _annotate_ingress(self, weight: int) -> None:
        """Set the traffic weights, by the Ingress annotation that the load balancer's controller reads."""
        alb = self._canary["trafficRouting"]["alb"]
        ingress = self._store.find(INGRESS, namespace_of(self._obj), alb["ingress"])
        if ingress is None:
            return
        stable, canary = self._services()
        key = f"{ACTIONS}{root_service(self._canary)}"
        managed = {**_managed(ingress), name_of(self._obj): [key]}
        annotations = {
            key: forward_action(alb["servicePort"], {canary: weight, stable: FULL - weight}),
            _MANAGED_ANNOTATIONS: json.dumps(managed, separators=(",", ":")),
        }
        self._store.modify(INGRESS, ingress, lambda target: _annotate(target, annotations))

    # Analysis

    def _analyse(self, status: dict[str, Any]) -> None:
        """Run the analysis of the current step, and end all others."""
        named = (self._status.get("canary") or {}).get("currentStepAnalysisRunStatus") or {}
        runs = self._store.owned(ANALYSIS_RUN, self._obj)
        current = next((run for run in runs if name_of(run) == named.get("name")), None)
        facts = self._facts()
        skips = facts.aborted or self._status.get("promoteFull") or facts.in_rollback_window
        if skips or not self._status.get("stableRS") or self._seconds_to_scale_down(self._new) is not None:
            self._note_run(status, current)
            self._cancel(runs)
            return
        current = self._run_of_step(current)
        self._note_run(status, current)
        others = [run for run in runs if current is None or uid_of(run) != uid_of(current)]
        self._cancel(others)
        self._trim_runs(others)

    def _run_of_step(self, current: Object | None) -> Object | None:
        facts = self._facts()
        if self._status.get("pauseConditions") or self._status.get("abort"):
            return current
        step = facts.step
        label = current["metadata"]["labels"].get("step-index") if current is not None else None
        if step is None or "analysis" not in step or label not in (None, str(facts.index)):
            self._cancel([current] if current is not None else [])
            return None
        if current is None or self._needs_new_run(current):
            return self._start_run(step["analysis"], facts.index)
        phase, message = (current.get("status") or {}).get("phase"), (current.get("status") or {}).get("message")
        if phase == "Inconclusive":
            self._pauses.added.append(INCONCLUSIVE)
        elif phase in ("Failed", "Error"):
            self._pauses.abort = "Step-based analysis phase error/failed" + (f": {message}" if message else "")
        return current

    def _needs_new_run(self, current: Object) -> bool:
        if self._status.get("controllerPause") and self._has_pause(CAN_PAUSE) is None:
            return (current.get("status") or {}).get("phase") == "Inconclusive"
        return self._status.get("abortedAt") is not None

    def _start_run(self, analysis: dict[str, Any], index: int) -> Object:
        stable = str(self._status.get("stableRS"))
        return start_analysis(self._store, self._obj, analysis, index, self._hash, stable, self._revision())

    def _note_run(self, status: dict[str, Any], run: Object | None) -> None:
        status["canary"].pop("currentStepAnalysisRunStatus", None)
        if run is not None:
            found = run.get("status") or {}
            noted = {"name": name_of(run), "status": found.get("phase", ""), "message": found.get("message", "")}
            noted = {key: value for key, value in noted.items() if value or key == "status"}
            status["canary"]["currentStepAnalysisRunStatus"] = noted

    def _analysis_phase(self, status: dict[str, Any]) -> str:
        return str((status["canary"].get("currentStepAnalysisRunStatus") or {}).get("status", ""))

    def _cancel(self, runs: Sequence[Object]) -> None:
        for run in runs:
            if not is_ended(run) and not run["spec"].get("terminate"):
                self._store.modify(ANALYSIS_RUN, run, lambda target: target["spec"].update(terminate=True))

    def _trim_runs(self, runs: Sequence[Object]) -> None:
        """Delete old AnalysisRuns, and those of deleted ReplicaSets."""
        hashes = {found["metadata"]["labels"][ROLLOUT_HASH] for found in self._all}
        limits = self._spec.get("analysis") or {}
        kept = {True: 0, False: 0}
        most = {
            True: int(limits.get("successfulRunHistoryLimit", _RUNS_KEPT)),
            False: int(limits.get("unsuccessfulRunHistoryLimit", _RUNS_KEPT)),
        }
        for run in reversed(runs):
            is_success = (run.get("status") or {}).get("phase") == "Successful"
            if is_ended(run):
                kept[is_success] += 1
            orphan = run["metadata"]["labels"].get(ROLLOUT_HASH) not in hashes
            if orphan or (is_ended(run) and kept[is_success] > most[is_success]):
                self._store.delete(ANALYSIS_RUN, namespace_of(run), name_of(run))

    # Status

    def _set_conditions(self, status: dict[str, Any]) -> None:
        before = self._status
        paused = bool(before.get("pauseConditions")) or bool(self._spec.get("paused"))
        aborted, healthy = self._is_aborted(), is_healthy(self._obj, status)
        became_unhealthy = False
        if healthy and not paused:
            self._condition(status, "Healthy", True, "RolloutHealthy", "Rollout is healthy")
        elif condition_of(before, "Healthy") is not None:
            became_unhealthy = self._condition(status, "Healthy", False, "RolloutHealthy", "Rollout is not healthy")
        name = name_of(self._new)
        if aborted:
            message = f"Rollout aborted update to revision {self._revision()}"
            message += f": {self._pauses.abort}" if self._pauses.abort else ""
            if self._condition(status, "Progressing", False, ABORTED, message):
                self._event(ABORTED, message, warning=True)
        elif healthy:
            message = f'ReplicaSet "{name}" has successfully progressed.'
            self._condition(status, "Progressing", True, "NewReplicaSetAvailable", message)
        elif has_progressed(before, status) or became_unhealthy:
            reason, message = "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'
            if is_completed(status) and became_unhealthy:
                reason, message = "ReplicaSetNotAvailable", "Rollout does not have minimum availability"
            set_timed_condition(status, "Progressing", "True", reason, message, self._time, again=True)
        elif self._must_progress():
            self._check_deadline(status, name)
        available = self._sum("availableReplicas") >= self._replicas
        message = f"Rollout {'has' if available else 'does not have'} minimum availability"
        self._condition(status, "Available", available, "AvailableReason", message)
        self._report_failures(status)
        self._condition(status, "Completed", is_completed(status), "RolloutCompleted", "RolloutCompleted")

    def _must_progress(self) -> bool:
        """Return whether the progress deadline counts now."""
        step = self._facts().step or {}
        if "analysis" in step or "pause" in step or is_true(self._obj, "Paused"):
            return False
        return all(self._seconds_to_scale_down(self._newest(found)) is None for found in self._others)

    def _check_deadline(self, status: dict[str, Any], name: str) -> None:
        left = seconds_to_deadline(self._spec, status, self._time)
        if left is None:
            return
        if left > 0:
            self._waits.append(left + 0.01)
            return
        message = f'ReplicaSet "{name}" has timed out progressing.'
        changed = self._condition(status, "Progressing", False, TIMED_OUT, message)
        if self._spec.get("progressDeadlineAbort"):
            self._pauses.abort = message
            if changed:
                self._event(ABORTED, message, warning=True)

    def _report_failures(self, status: dict[str, Any]) -> None:
        """Copy the failure of a ReplicaSet to create pods, if there is one."""
        remove_condition(status, "ReplicaFailure")
        for found in (self._new, *self._all):
            failure = condition_of(self._newest(found).get("status") or {}, "ReplicaFailure")
            if failure is not None:
                copied = {**failure, "lastUpdateTime": failure["lastTransitionTime"]}
                status["conditions"] = [*status["conditions"], copied]
                return

    def _condition(self, status: dict[str, Any], type_: str, value: bool, reason: str, message: str) -> bool:
        return set_timed_condition(status, type_, str(value), reason, message, self._time)

    def _persist(self, status: dict[str, Any]) -> None:
        """Write a new status, with the pauses and the abort."""
        for key in ("abort", "abortedAt", "controllerPause", "pauseConditions"):
            status.pop(key, None)
        if self._is_aborted() or self._pauses.abort is not None:
            status |= {"abort": True, "abortedAt": self._status.get("abortedAt") or now()}
        elif not self._pauses.cleared:
            before = self._status.get("pauseConditions") or []
            kept = [item for item in before if item["reason"] not in self._pauses.removed]
            known = [item["reason"] for item in before]
            begun = [reason for reason in self._pauses.added if reason not in known]
            kept += [{"reason": reason, "startTime": now()} for reason in begun]
            if kept:
                status["pauseConditions"] = kept
                status["controllerPause"] = bool(begun) or bool(self._status.get("controllerPause"))
        self._report_state_change(status)
        self._write(status)

    def _write(self, status: dict[str, Any]) -> None:
        def change(target: Object) -> None:
            target["status"] = status
            self._finish(target, status)

        self._change(change)

    def _report_state_change(self, status: dict[str, Any]) -> None:
        was, is_now = bool(self._status.get("pauseConditions")), status.get("pauseConditions")
        if is_now and not was:
            self._event(PAUSED, f"Rollout is paused ({is_now[0]['reason']})")
        elif was and not is_now and not status.get("abort"):
            self._event("RolloutResumed", "Rollout is resumed")

    def _finish(self, target: Object, status: dict[str, Any]) -> None:
        status["observedGeneration"] = str(target["metadata"]["generation"])
        status["phase"], message = phase_of(target["spec"], status)
        status["message"] = message
        if not message:
            del status["message"]
        for key in [key for key, value in status.items() if key.lower().endswith("replicas") and not value]:
            del status[key]

    # Effects

    def _change(self, change: Any) -> None:
        self._obj = self._store.modify(ROLLOUT, self._obj, change) or self._obj

    def _change_set(self, replica_set: Object, change: Any) -> Object:
        return self._store.modify(REPLICA_SET, replica_set, change) or replica_set

    def _newest(self, replica_set: Object) -> Object:
        return self._store.find(REPLICA_SET, namespace_of(replica_set), name_of(replica_set)) or replica_set

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        record(self._store, ROLLOUT, self._obj, reason, message, warning=warning)


def _managed(ingress: Object) -> dict[str, list[str]]:
    """Return rollout → annotations of an Ingress that the rollout manages."""
    found: dict[str, list[str]] = json.loads(annotations_of(ingress).get(_MANAGED_ANNOTATIONS) or "{}")
    return found


def _reset_traffic(ingress: Object, rollout: str) -> None:
    annotations, managed = ingress["metadata"]["annotations"], _managed(ingress)
    for key in managed.pop(rollout):
        service = key.partition(ACTIONS)[2]
        groups = json.loads(annotations[key])["ForwardConfig"]["TargetGroups"]
        port = int(groups[0]["ServicePort"])  # all groups have the port of the rollout
        annotations[key] = forward_action(port, {service: FULL})
    del annotations[_MANAGED_ANNOTATIONS]
    if managed:
        annotations[_MANAGED_ANNOTATIONS] = json.dumps(managed, separators=(",", ":"))


def _release(service: Object) -> None:
    del service["metadata"]["annotations"][MANAGED_BY]
    (service["spec"].get("selector") or {}).pop(ROLLOUT_HASH, None)


def _pods(replica_set: Object) -> PodCounts:
    return PodCounts(
        hash=replica_set["metadata"]["labels"][ROLLOUT_HASH],
        wanted=int(replica_set["spec"]["replicas"]),
        created=count(replica_set, "replicas"),
        available=count(replica_set, "availableReplicas"),
    )


def _annotate(target: Object, annotations: dict[str, str]) -> None:
    target["metadata"]["annotations"] = {**annotations_of(target), **annotations}


def _revision_of(obj: Object) -> int:
    return int(annotations_of(obj).get(REVISION, 0))
