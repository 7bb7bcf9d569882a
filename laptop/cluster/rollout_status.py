"""Status of a rollout: its phase and its conditions, as pure functions in Argo's words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from laptop.cluster.conditions import condition_of

ABORTED = "RolloutAborted"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "RolloutPaused"
CAN_PAUSE, INCONCLUSIVE = "CanaryPauseStep", "InconclusiveAnalysisRun"
"""Reasons of pauses."""

_PROGRESS_DEADLINE = 600  # seconds, Argo's default


def phase_of(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, str]:
    """Return the phase and its message.

    Args:
        spec: `spec` of the rollout.
        status: `status` of the rollout, with its conditions and counts.
    """
    for condition in status.get("conditions") or ():
        if condition["type"] == "InvalidSpec" or condition.get("reason") in (ABORTED, TIMED_OUT):
            reason = "InvalidSpec" if condition["type"] == "InvalidSpec" else condition["reason"]
            return "Degraded", f"{reason}: {condition['message']}"
    if spec.get("paused"):
        return "Paused", "manually paused"
    for pause in status.get("pauseConditions") or ():
        return "Paused", str(pause["reason"])
    if spec.get("restartAt") and spec["restartAt"] != status.get("restartedAt"):
        return "Progressing", "rollout is restarting"
    updated = int(status.get("updatedReplicas") or 0)
    if updated < int(spec.get("replicas", 1)):
        return "Progressing", "more replicas need to be updated"
    if int(status.get("availableReplicas") or 0) < updated:
        return "Progressing", "updated replicas are still becoming available"
    if not status.get("stableRS") or status["stableRS"] != status.get("currentPodHash"):
        return "Progressing", "waiting for all steps to complete"
    return "Healthy", ""


def is_healthy(rollout: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Return whether all pods are of the stable template, and available.

    Args:
        rollout: the rollout, with the status before this one.
        status: the new status.
    """
    spec, before = rollout["spec"], rollout.get("status") or {}
    replicas, steps = int(spec.get("replicas", 1)), len(spec["strategy"]["canary"].get("steps") or ())
    counts = {int(status.get(key) or 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
    return (
        counts == {replicas}
        and is_completed(status)
        and int(status.get("currentStepIndex", steps)) == steps
        and before.get("observedGeneration") == str(rollout["metadata"]["generation"])
    )


def is_completed(status: Mapping[str, Any]) -> bool:
    """Return whether the newest template is the stable one."""
    return bool(status.get("stableRS")) and status["stableRS"] == status.get("currentPodHash")


def has_progressed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether a status shows progress since another."""

    def count(status: Mapping[str, Any], key: str) -> int:
        return int(status.get(key) or 0)

    def old_pods(status: Mapping[str, Any]) -> int:
        return count(status, "replicas") - count(status, "updatedReplicas")

    steps = [status.get("currentStepIndex") for status in (before, after)]
    return (
        any(before.get(key, "") != after.get(key, "") for key in ("stableRS", "currentStepHash"))
        or (None not in steps and steps[0] != steps[1])
        or count(before, "updatedReplicas") != count(after, "updatedReplicas")
        or old_pods(after) < old_pods(before)
        or any(count(after, key) > count(before, key) for key in ("readyReplicas", "availableReplicas"))
    )


def seconds_to_deadline(spec: Mapping[str, Any], status: Mapping[str, Any], now: datetime) -> float | None:
    """Return the seconds left to show progress, negative if the time is over, or None if no time is running."""
    progressing = condition_of(status, "Progressing")
    if progressing is None or progressing.get("reason") in (ABORTED, PAUSED):
        return None
    if progressing.get("reason") == TIMED_OUT:
        return -1.0
    allowed = timedelta(seconds=int(spec.get("progressDeadlineSeconds") or _PROGRESS_DEADLINE))
    since = datetime.fromisoformat(progressing["lastUpdateTime"])
    return (since + allowed - now) / timedelta(seconds=1)
