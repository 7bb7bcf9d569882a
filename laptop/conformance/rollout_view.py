"""What is compared of a rollout: its status, pods, traffic and analyses, without hashes and times."""

from __future__ import annotations

import json
import re
from typing import Any

from laptop.conformance.scenarios import (
    AnalysisRun,
    Ingress,
    Object,
    Pod,
    ReplicaSet,
    Service,
    Stage,
    Summary,
    Watched,
)
from pipelines.cluster.rollouts import Rollout

HASH = "rollouts-pod-template-hash"
VERSION = "version"
"""Label of the pods with the version that a scenario deploys."""

_NOT_PAUSED = ("Paused", "False")  # Argo writes it only if it looked at the rollout during a pause
_REVISION = "rollout.argoproj.io/revision"
_ACTION = "alb.ingress.kubernetes.io/actions."
_JOB = re.compile(r'Job\.batch "[^"]+".*|jobs? "[^"]+".*', re.DOTALL)  # the API servers' own words


def summarise(stage: Stage) -> Summary:
    """Return the summary of the rollout in a namespace, with all that belongs to it."""
    sets = stage.find_all(ReplicaSet)
    for found in sets:
        labels = found["metadata"]["labels"]
        stage.names[labels[HASH]] = labels[VERSION]
    rollouts = stage.find_all(Rollout)
    pods = [pod for pod in stage.find_all(Pod) if HASH in (pod["metadata"].get("labels") or {})]
    summary: Summary = {
        "exists": bool(rollouts),
        "pods": _count([pod["metadata"]["labels"][VERSION] for pod in pods]),
        "sets": {found["metadata"]["labels"][VERSION]: _set(found) for found in sets},
        "services": {item["metadata"]["name"]: _selected(stage, item) for item in stage.find_all(Service)},
        "traffic": {item["metadata"]["name"]: _weights(item) for item in stage.find_all(Ingress)},
        "runs": [_run(stage, run) for run in stage.find_all(AnalysisRun)],
    }
    for rollout in rollouts:
        summary |= _status(stage, rollout)
    return summary


def _count(versions: list[str]) -> dict[str, int]:
    return {version: versions.count(version) for version in sorted(set(versions))}


def _set(found: Object) -> dict[str, Any]:
    annotations, status = found["metadata"].get("annotations") or {}, found.get("status") or {}
    return {
        "revision": annotations.get(_REVISION),
        "wanted": found["spec"]["replicas"],
        "available": status.get("availableReplicas", 0),
        "waits": "scale-down-deadline" in annotations,
    }


def _selected(stage: Stage, service: Object) -> str:
    return stage.known((service["spec"].get("selector") or {}).get(HASH, ""))


def _weights(ingress: Object) -> dict[str, Any]:
    found = {}
    for key, text in (ingress["metadata"].get("annotations") or {}).items():
        if key.startswith(_ACTION):
            groups = json.loads(text)["ForwardConfig"]["TargetGroups"]
            found[key.removeprefix(_ACTION)] = {group["ServiceName"]: group["Weight"] for group in groups}
    return found


def _run(stage: Stage, run: Object) -> dict[str, Any]:
    status = run.get("status") or {}
    counts = ("phase", "count", "successful", "failed", "error", "inconclusive", "dryRun", "message")
    return {
        "name": stage.known(run["metadata"]["name"]),
        "step": run["metadata"]["labels"].get("step-index"),
        "phase": status.get("phase"),
        "message": _JOB.sub("refusal of a Job", status.get("message", "")),
        "metrics": {
            item["name"]: {key: _JOB.sub("refusal of a Job", str(item[key])) for key in counts if item.get(key)}
            for item in status.get("metricResults") or ()
        },
        "summary": status.get("runSummary") or {},
    }


def _status(stage: Stage, rollout: Object) -> Summary:
    status = rollout.get("status") or {}
    observed = str(status.get("observedGeneration")) == str(rollout["metadata"]["generation"])
    weights = (status.get("canary") or {}).get("weights") or {}
    return {
        "phase": status.get("phase") if observed else None,
        "message": _JOB.sub("refusal of a Job", stage.known(status.get("message", ""))),
        "step": status.get("currentStepIndex"),
        "current": stage.known(status.get("currentPodHash", "")),
        "stable": stage.known(status.get("stableRS", "")),
        "weight": (weights.get("canary") or {}).get("weight"),
        "weights": {
            role: {**item, "podTemplateHash": stage.known(item.get("podTemplateHash", ""))}
            for role, item in weights.items()
            if isinstance(item, dict)
        },
        "pauses": [item["reason"] for item in status.get("pauseConditions") or ()],
        "held": bool(status.get("controllerPause")),
        "aborted": bool(status.get("abort")),
        "ping": (status.get("canary") or {}).get("stablePingPong"),
        "restarted": bool(status.get("restartedAt")),
        "revision": (rollout["metadata"].get("annotations") or {}).get(_REVISION),
        "conditions": {
            item["type"]: (
                item["status"],
                item.get("reason"),
                _JOB.sub("refusal of a Job", stage.known(item.get("message", ""))),
            )
            for item in sorted(status.get("conditions") or (), key=lambda item: str(item["type"]))
            if (item["type"], item["status"]) != _NOT_PAUSED
        },
        "counts": {
            key: status.get(key, 0)
            for key in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "HPAReplicas")
        },
    }


def state(rollout: Object, stage: Stage) -> tuple[Any, ...] | None:
    """Return the part of a rollout's state that makes its history: phase, step, weight, versions, pauses.

    States are left out in which the controller has not seen the newest specification, or has written a pause before the
    phase that follows from it. When the steps are over, the weight follows the pods that happen to be ready, so it is
    left out until the rollout is healthy.
    """
    status = _status(stage, rollout)
    if status["phase"] is None or (status["phase"] == "Progressing" and status["pauses"]):
        return None
    steps = (rollout["spec"]["strategy"].get("canary") or {}).get("steps") or ()
    if status["phase"] == "Progressing" and status["step"] == len(steps):
        status["weight"] = None
    keys = ("phase", "step", "weight", "stable", "current")
    return (*(status[key] for key in keys), *status["pauses"], *(["aborted"] if status["aborted"] else []))


WATCHED = Watched(Rollout, state)
