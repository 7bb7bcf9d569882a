"""Jobs: run pods until one succeeds, within limits on retries and time."""

from __future__ import annotations

import asyncio
from typing import Any

from laptop.cluster.admission_control import create_pod
from laptop.cluster.conditions import is_true, set_condition
from laptop.cluster.controller import Controller
from laptop.cluster.event_log import record
from laptop.cluster.kinds import JOB, POD
from laptop.cluster.objects import (
    Object,
    ObjectStore,
    is_deleting,
    name_of,
    namespace_of,
    now,
    owner_reference,
    uid_of,
)
from laptop.cluster.pod_failures import judge_failures
from laptop.cluster.refusals import StatusError

_BACKOFF_LIMIT = 6  # Kubernetes' default
_TRY_AGAIN_AFTER = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds, by failures before; Kubernetes waits 10 s, 20 s, ... 6 min


class Jobs(Controller):
    """Controller of Jobs: creates pods until one succeeds or a limit is reached."""

    kind = JOB

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self._started: dict[str, float] = {}
        self._failed_at: dict[str, tuple[int, float]] = {}
        self._finished_at: dict[str, float] = {}

    def forget(self, obj: Object) -> None:
        """Drop the state of a deleted Job."""
        uid = uid_of(obj)
        self._started.pop(uid, None)
        self._failed_at.pop(uid, None)
        self._finished_at.pop(uid, None)

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Job."""
        if is_deleting(obj):
            return None
        if is_true(obj, "Complete") or is_true(obj, "Failed"):
            return self._expire(obj)
        pods = self._store.owned(POD, obj)
        active = [pod for pod in pods if _phase(pod) not in ("Succeeded", "Failed") and not is_deleting(pod)]
        if obj["spec"].get("suspend"):
            for pod in active:
                self._store.delete(POD, namespace_of(pod), name_of(pod))
            self._started.pop(uid_of(obj), None)
            self._report(obj, active=0, suspended=True)
            return None
        uid, loop = uid_of(obj), asyncio.get_running_loop()
        started = self._started.setdefault(uid, loop.time())
        failed = [pod for pod in pods if _phase(pod) == "Failed"]
        failures = judge_failures(obj["spec"].get("podFailurePolicy"), failed)
        tries = failures.counted + sum(_restarts(pod) for pod in pods)
        limit = obj["spec"].get("backoffLimit")
        limit = _BACKOFF_LIMIT if limit is None else limit
        deadline = obj["spec"].get("activeDeadlineSeconds")
        left = None if deadline is None else started + deadline - loop.time()
        if any(_phase(pod) == "Succeeded" for pod in pods):
            self._finish(obj, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        elif left is not None and left <= 0:
            for pod in active:  # ended by their own deadline, which keeps their logs
                self._store.modify(POD, pod, lambda target: target["spec"].update(activeDeadlineSeconds=0))
            if any(_phase(pod) in ("Pending", "Running", "") for pod in active):
                return 0.1
            self._finish(obj, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
        elif failures.final:
            self._finish(obj, "Failed", "PodFailurePolicy", failures.final)
        elif tries > limit:
            for pod in active:
                self._store.delete(POD, namespace_of(pod), name_of(pod))
            self._finish(
                obj,
                "Failed",
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit" + _last_words(failed),
            )
        else:
            wait = self._make_pod(obj, active, len(failed))
            self._report(obj, active=1)
            return min((seconds for seconds in (wait, left) if seconds is not None), default=None)
        return 0.0

    def _make_pod(self, obj: Object, active: list[Object], failures: int) -> float | None:
        if active:
            return None
        loop = asyncio.get_running_loop()
        seen, at = self._failed_at.get(uid_of(obj), (0, 0.0))
        if failures != seen:
            at = loop.time()
            self._failed_at[uid_of(obj)] = (failures, at)
        wait = at + _TRY_AGAIN_AFTER[min(max(failures - 1, 0), len(_TRY_AGAIN_AFTER) - 1)] - loop.time()
        if failures and wait > 0:
            return wait
        try:
            create_pod(self._store, namespace_of(obj), _pod_of(obj))
        except StatusError as refusal:
            record(self._store, JOB, obj, "FailedCreate", refusal.message, warning=True)
            return 1.0
        return None

    def _report(self, obj: Object, *, active: int, suspended: bool = False) -> None:
        pods = self._store.owned(POD, obj)

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            if not suspended:
                status.setdefault("startTime", now())
            else:
                status.pop("startTime", None)
            status |= _counts(pods) | {"active": active}
            if suspended or any(item["type"] == "Suspended" for item in status.get("conditions", ())):
                reason = "JobSuspended" if suspended else "JobResumed"
                set_condition(status, "Suspended", suspended, reason, "")

        self._store.modify(JOB, obj, change)

    def _finish(self, obj: Object, type_: str, reason: str, message: str) -> None:
        pods = self._store.owned(POD, obj)

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            status.setdefault("startTime", now())
            status |= _counts(pods) | {"active": 0}
            if type_ == "Complete":
                status["completionTime"] = now()
            set_condition(status, type_, True, reason, message)

        self._finished_at[uid_of(obj)] = asyncio.get_running_loop().time()
        record(self._store, JOB, obj, reason, message, warning=type_ == "Failed")
        self._store.modify(JOB, obj, change)

    def _expire(self, obj: Object) -> float | None:
        seconds = obj["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            return None
        left = self._finished_at.get(uid_of(obj), 0.0) + float(seconds) - asyncio.get_running_loop().time()
        if left > 0:
            return left
        self._store.delete(JOB, namespace_of(obj), name_of(obj), propagation="Foreground")
        return None


def _pod_of(obj: Object) -> Object:
    template: dict[str, Any] = obj["spec"]["template"]
    metadata = template.get("metadata") or {}
    labels = {
        **(metadata.get("labels") or {}),
        "job-name": name_of(obj),
        "batch.kubernetes.io/job-name": name_of(obj),
        "controller-uid": uid_of(obj),
        "batch.kubernetes.io/controller-uid": uid_of(obj),
    }
    annotations = metadata.get("annotations")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{name_of(obj)[:57]}-",
            "labels": {key: value[:63].rstrip("-_.") for key, value in labels.items()},
            **({"annotations": dict(annotations)} if annotations else {}),
            "ownerReferences": [owner_reference(JOB, obj)],
        },
        "spec": dict(template["spec"]),
    }


def _counts(pods: list[Object]) -> dict[str, int]:
    return {
        "succeeded": sum(_phase(pod) == "Succeeded" for pod in pods),
        "failed": sum(_phase(pod) == "Failed" for pod in pods),
        "ready": sum(is_true(pod, "Ready") for pod in pods),
    }


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _restarts(pod: Object) -> int:
    return sum(item.get("restartCount", 0) for item in (pod.get("status") or {}).get("containerStatuses") or ())


def _last_words(failed: list[Object]) -> str:
    """Return how the last pod ended, which Kubernetes does not report."""
    for status in (failed[-1].get("status") or {}).get("containerStatuses") or () if failed else ():
        ended = (status.get("state") or {}).get("terminated")
        if ended:
            return (
                f" (the last pod ended with exit code {ended['exitCode']}: {ended.get('message') or ended['reason']})"
            )
    return ""
