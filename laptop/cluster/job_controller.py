"""Jobs: run pods until enough have succeeded, within limits on retries and time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from laptop.cluster.admission_control import create_pod
from laptop.cluster.conditions import is_true, set_condition
from laptop.cluster.controller import Controller
from laptop.cluster.event_log import record
from laptop.cluster.job_indexes import first_pending, format_indexes, parse_indexes
from laptop.cluster.kinds import JOB, POD
from laptop.cluster.objects import (
    Object,
    ObjectEvent,
    ObjectStore,
    annotations_of,
    is_deleting,
    name_of,
    namespace_of,
    now,
    owner_reference,
    uid_of,
)
from laptop.cluster.pod_failures import judge_failures
from laptop.cluster.refusals import StatusError

INDEX = "batch.kubernetes.io/job-completion-index"
"""Label and annotation of a pod with its index in an indexed Job."""

_BACKOFF_LIMIT = 6  # Kubernetes' default
_TRY_AGAIN_AFTER = (
    0.0,
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
)  # seconds, by failures before; Kubernetes waits 10 s, 20 s, ... 10 min
_REFUSED_AGAIN = 1.0  # seconds until a pod that was not admitted is tried again
_TARGETS = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}
"""Condition of a Job whose end is decided → condition once its pods have ended."""


@dataclass
class _Tally:
    """Pods of a Job that have ended, by uid, and those that are gone and not yet counted."""

    seen: set[str] = field(default_factory=set)
    gone: dict[str, Object] = field(default_factory=dict)
    failures: int = 0
    failed_at: float = 0.0


class Jobs(Controller):
    """Controller of Jobs: creates pods until enough have succeeded or a limit is reached."""

    kind = JOB

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._tallies: dict[str, _Tally] = {}
        self._finished_at: dict[str, float] = {}

    def forget(self, obj: Object) -> None:
        """Drop the state of a deleted Job."""
        self._tallies.pop(uid_of(obj), None)
        self._finished_at.pop(uid_of(obj), None)

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the Job of a pod. Remember pods that are gone until they are counted."""
        if event.kind is POD and event.type == "DELETED":
            for reference in event.object["metadata"].get("ownerReferences", ()):
                if (tally := self._tallies.get(reference["uid"])) is not None:
                    tally.gone[uid_of(event.object)] = event.object
        return super().concerns(event)

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Job."""
        if is_deleting(obj):
            return None
        if is_true(obj, "Complete") or is_true(obj, "Failed"):
            return self._expire(obj)
        tally = self._tallies.get(uid_of(obj))
        if tally is None:
            # After a restart of the controller, pods that the status counts must not be counted again.
            tally = self._tallies[uid_of(obj)] = _Tally()
            if obj.get("status"):
                tally.seen |= {uid_of(pod) for pod in self._store.owned(POD, obj) if _phase(pod) in _ENDED}
        work = _Work(self._store, obj, tally)
        wait = work.run()
        if work.has_finished:
            self._finished_at[uid_of(obj)] = asyncio.get_running_loop().time()
            return 0.0
        return wait

    def _expire(self, obj: Object) -> float | None:
        seconds = obj["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return None
        clock = asyncio.get_running_loop().time()
        ended = next(item for item in obj["status"]["conditions"] if item["type"] in _TARGETS.values())
        ago = (datetime.now(UTC) - datetime.fromisoformat(ended["lastTransitionTime"])) / timedelta(seconds=1)
        left = self._finished_at.setdefault(uid_of(obj), clock - ago) + float(seconds) - clock
        if left > 0:
            return left
        self._store.delete(JOB, namespace_of(obj), name_of(obj), propagation="Foreground")
        return None


_ENDED = ("Succeeded", "Failed")


class _Work:
    """One reconciliation of one Job that has not finished."""

    def __init__(self, store: ObjectStore, obj: Object, tally: _Tally) -> None:
        self._store = store
        self._obj = obj
        self._tally = tally
        self._spec: dict[str, Any] = obj["spec"]
        self._status: dict[str, Any] = {**(obj.get("status") or {})}
        self._indexed = self._spec.get("completionMode") == "Indexed"
        self._policy = self._spec.get("podFailurePolicy")
        replaced = "Failed" if self._policy else "TerminatingOrFailed"
        self._waits_for_end = self._spec.get("podReplacementPolicy", replaced) == "Failed"
        self._completions = self._spec.get("completions")
        self._parallelism = int(self._spec.get("parallelism", 1))
        self.has_finished = False

    def run(self) -> float | None:
        """Reconcile, and return the seconds until the next call, or None."""
        pods = self._store.owned(POD, self._obj)
        self._active = [pod for pod in pods if _phase(pod) not in _ENDED and not is_deleting(pod)]
        self._terminating = [pod for pod in pods if _phase(pod) not in _ENDED and is_deleting(pod)]
        self._done = parse_indexes(self._status.get("completedIndexes", ""))
        suspended = bool(self._spec.get("suspend"))
        if not suspended:
            self._status.setdefault("startTime", now())
        final = self._count([*pods, *self._tally.gone.values()])
        self._tally.gone.clear()
        wait: float | None = None
        decided = next((type_ for type_ in _TARGETS if is_true(self._obj, type_)), "")
        if not decided:
            decided, reason, message, wait = self._decide(pods, final, suspended)
            if decided:
                self._condition(decided, True, reason, message)
        if decided:
            self._count_failed(len(self._active))
            self._delete(self._active)
        else:
            wait = min((one for one in (wait, self._manage(suspended)) if one is not None), default=None)
            if self._is_complete():
                decided = "SuccessCriteriaMet"
                self._condition(decided, True, "CompletionsReached", "Reached expected number of succeeded pods")
            else:
                self._note_suspension(suspended)
        self._write(decided)
        return wait

    # Counting

    def _count(self, pods: Iterable[Object]) -> str:
        """Count the pods that have ended, and return why the Job has failed for good, or ""."""
        final = ""
        for pod in pods:
            uid, phase = uid_of(pod), _phase(pod)
            is_gone = uid in self._tally.gone
            failed = phase == "Failed" or is_gone or (is_deleting(pod) and not self._waits_for_end)
            if uid in self._tally.seen or not (phase == "Succeeded" or failed):
                continue
            self._tally.seen.add(uid)
            if phase == "Succeeded":
                self._tally.failures = 0
                self._count_succeeded(pod)
                continue
            verdict = judge_failures(self._policy, [pod])
            final = final or verdict.final
            self._count_failed(verdict.counted)
            self._tally.failures += 1
            self._tally.failed_at = asyncio.get_running_loop().time()
        return final

    def _count_succeeded(self, pod: Object) -> None:
        if self._indexed:
            self._done.add(_index_of(pod))
            self._status["succeeded"] = len(self._done)
            self._status["completedIndexes"] = format_indexes(self._done)
        else:
            self._status["succeeded"] = int(self._status.get("succeeded") or 0) + 1

    def _count_failed(self, number: int) -> None:
        self._status["failed"] = int(self._status.get("failed") or 0) + number

    # Decisions

    def _decide(self, pods: Sequence[Object], final: str, suspended: bool) -> tuple[str, str, str, float | None]:
        """Return the condition of a Job that has failed, with reason and message, and the seconds to its deadline."""
        if final:
            return "FailureTarget", "PodFailurePolicy", final, None
        limit = self._spec.get("backoffLimit")
        limit = _BACKOFF_LIMIT if limit is None else int(limit)
        if int(self._status.get("failed") or 0) > limit or self._restarts_exceed(pods, limit):
            return "FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit", None
        deadline = self._spec.get("activeDeadlineSeconds")
        if deadline is None or suspended:
            return "", "", "", None
        since = datetime.fromisoformat(self._status["startTime"])
        left = float(deadline) - (datetime.now(UTC) - since) / timedelta(seconds=1)
        if left <= 0:
            return "FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline", None
        return "", "", "", left

    def _restarts_exceed(self, pods: Sequence[Object], limit: int) -> bool:
        """Return whether the containers of pods with the restart policy OnFailure were restarted too often."""
        if self._spec["template"]["spec"].get("restartPolicy") != "OnFailure":
            return False
        restarts = sum(_restarts(pod) for pod in pods if _phase(pod) in ("Running", "Pending"))
        return restarts >= limit if limit else restarts > 0

    def _is_complete(self) -> bool:
        succeeded = int(self._status.get("succeeded") or 0)
        active = [
            pod for pod in self._store.owned(POD, self._obj) if _phase(pod) not in _ENDED and not is_deleting(pod)
        ]
        if active:
            return False
        return succeeded > 0 if self._completions is None else succeeded >= int(self._completions)

    def _manage(self, suspended: bool) -> float | None:
        """Create or delete pods, and return the seconds until the next try, or None."""
        if suspended:
            self._delete(self._active)
            return None
        succeeded = int(self._status.get("succeeded") or 0)
        if self._completions is None:
            wanted = len(self._active) if succeeded else self._parallelism
        else:
            wanted = max(0, min(int(self._completions) - succeeded, self._parallelism))
        if (excess := len(self._active) - wanted) > 0:
            unready_last = sorted(self._active, key=lambda pod: not is_true(pod, "Ready"))
            self._delete(unready_last[-excess:])
            return None
        missing = wanted - len(self._active) - (len(self._terminating) if self._waits_for_end else 0)
        if missing <= 0:
            return None
        if (left := self._backoff_left()) > 0:
            return left
        indexes: Sequence[int | None] = [None] * missing
        if self._indexed:
            taken = {_index_of(pod) for pod in self._active}
            taken |= {_index_of(pod) for pod in self._terminating} if self._waits_for_end else set()
            indexes = first_pending(self._done | taken, missing, int(self._completions or 0))
        for index in indexes:
            try:
                pod = create_pod(self._store, namespace_of(self._obj), _pod_of(self._obj, index))
            except StatusError as refusal:
                message = f"Error creating: {refusal.message}"
                record(self._store, JOB, self._obj, "FailedCreate", message, warning=True)
                return _REFUSED_AGAIN
            record(self._store, JOB, self._obj, "SuccessfulCreate", f"Created pod: {name_of(pod)}")
        return None

    def _backoff_left(self) -> float:
        if not self._tally.failures:
            return 0.0
        delay = _TRY_AGAIN_AFTER[min(self._tally.failures - 1, len(_TRY_AGAIN_AFTER) - 1)]
        return self._tally.failed_at + delay - asyncio.get_running_loop().time()

    # Effects

    def _delete(self, pods: Sequence[Object]) -> None:
        """Delete pods that do not count as failed by that."""
        for pod in pods:
            self._tally.seen.add(uid_of(pod))
            self._store.delete(POD, namespace_of(pod), name_of(pod))
            record(self._store, JOB, self._obj, "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")

    def _note_suspension(self, suspended: bool) -> None:
        was = next((item for item in self._status.get("conditions") or () if item["type"] == "Suspended"), None)
        if suspended and (was is None or was["status"] != "True"):
            self._condition("Suspended", True, "JobSuspended", "Job suspended")
            record(self._store, JOB, self._obj, "Suspended", "Job suspended")
        elif not suspended and was is not None and was["status"] == "True":
            self._condition("Suspended", False, "JobResumed", "Job resumed")
            record(self._store, JOB, self._obj, "Resumed", "Job resumed")
            self._status["startTime"] = now()

    def _condition(self, type_: str, value: bool, reason: str, message: str) -> None:
        self._status["conditions"] = [dict(item) for item in self._status.get("conditions") or ()]
        set_condition(self._status, type_, value, reason, message)

    def _write(self, decided: str) -> None:
        pods = self._store.owned(POD, self._obj)
        active = [pod for pod in pods if _phase(pod) not in _ENDED and not is_deleting(pod)]
        terminating = [pod for pod in pods if _phase(pod) not in _ENDED and is_deleting(pod)]
        status = self._status
        status["active"] = len(active)
        status["ready"] = sum(is_true(pod, "Ready") for pod in active)
        status["terminating"] = len(terminating)
        status["uncountedTerminatedPods"] = {}
        if decided and not active and not terminating:
            target = next(item for item in status["conditions"] if item["type"] == decided)
            self._condition(_TARGETS[decided], True, target["reason"], target["message"])
            if decided == "SuccessCriteriaMet":
                status["completionTime"] = now()
            done = (
                ("Completed", "Job completed")
                if decided == "SuccessCriteriaMet"
                else (target["reason"], target["message"])
            )
            record(self._store, JOB, self._obj, *done, warning=decided == "FailureTarget")
            self.has_finished = True
        for key in ("active", "succeeded", "failed"):
            if not status.get(key):
                status.pop(key, None)

        def change(target: Object) -> None:
            target["status"] = status

        self._store.modify(JOB, self._obj, change)


def _pod_of(obj: Object, index: int | None) -> Object:
    template: dict[str, Any] = obj["spec"]["template"]
    metadata = template.get("metadata") or {}
    labels = {
        **(metadata.get("labels") or {}),
        "job-name": name_of(obj),
        "batch.kubernetes.io/job-name": name_of(obj),
        "controller-uid": uid_of(obj),
        "batch.kubernetes.io/controller-uid": uid_of(obj),
    }
    annotations = dict(metadata.get("annotations") or {})
    spec, name = dict(template["spec"]), name_of(obj)
    if index is not None:
        labels[INDEX] = annotations[INDEX] = str(index)
        name = f"{name}-{index}"
        spec["hostname"] = name
        variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        spec["containers"] = [
            {**container, "env": [*(container.get("env") or ()), variable]} for container in spec["containers"]
        ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{name[:57]}-",
            "labels": {key: value[:63].rstrip("-_.") for key, value in labels.items()},
            **({"annotations": annotations} if annotations else {}),
            "ownerReferences": [owner_reference(JOB, obj)],
        },
        "spec": spec,
    }


def _index_of(pod: Object) -> int:
    return int(annotations_of(pod).get(INDEX, -1))


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _restarts(pod: Object) -> int:
    return sum(item.get("restartCount", 0) for item in (pod.get("status") or {}).get("containerStatuses") or ())
