"""What is compared of Jobs, CronJobs, Deployments and other objects, without times and generated names."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from laptop.conformance.scenarios import (
    ConfigMap,
    CronJob,
    Deployment,
    Event,
    Job,
    Object,
    Pod,
    ReplicaSet,
    Stage,
    Summary,
    Watched,
)

HASH = "pod-template-hash"
VERSION = "version"
INDEX = "batch.kubernetes.io/job-completion-index"

_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_REVISION = "deployment.kubernetes.io/revision"
_BY_CRON = re.compile(r"-\d{8}$")
_POD = re.compile(r"pod (\S+)/(\S+)")
_INTERIM = ("SuccessCriteriaMet", "FailureTarget")  # how long before the end depends on the pods' finalizers
_TELLING = ("Job", "CronJob", "Deployment")
_BY_CHANCE = (
    "SawCompletedJob",  # not written if a Job ends before the status of its CronJob names it
    "MissingJob",  # written if a Job is removed at the limit of its history while the status still names it
)


def summarise(stage: Stage) -> Summary:
    """Return the summary of the workloads in a namespace."""
    sets, jobs = stage.find_all(ReplicaSet), stage.find_all(Job)
    for found in sets:
        labels = found["metadata"]["labels"]
        stage.names[labels.get(HASH, found["metadata"]["name"])] = labels.get(VERSION, "set")
    scheduled = sorted(job["metadata"]["name"] for job in jobs if _BY_CRON.search(job["metadata"]["name"]))
    for name in scheduled:
        if name not in stage.names:
            stage.names[name] = f"{_BY_CRON.sub('', name)}#{1 + sum('#' in known for known in stage.names.values())}"
    pods = stage.find_all(Pod)
    return {
        "jobs": {stage.known(job["metadata"]["name"]): _job(stage, job) for job in jobs},
        "crons": {item["metadata"]["name"]: _cron(stage, item) for item in stage.find_all(CronJob)},
        "deployments": {item["metadata"]["name"]: _deployment(stage, item) for item in stage.find_all(Deployment)},
        "sets": {stage.known(found["metadata"]["name"]): _set(found) for found in sets},
        "pods": dict(sorted(Counter(_pod(stage, pod) for pod in pods).items())),
        "maps": {item["metadata"]["name"]: _is_going(item) for item in stage.find_all(ConfigMap) if _is_ours(item)},
        "events": sorted(
            {
                f"{event['involvedObject']['kind']} {event['reason']}"
                for event in stage.find_all(Event)
                if event["involvedObject"]["kind"] in _TELLING and event["reason"] not in _BY_CHANCE
            }
        ),
    }


def _is_ours(item: Object) -> bool:
    return bool(item["metadata"]["name"] != "kube-root-ca.crt")


def _is_going(item: Object) -> str:
    return "deleted" if "deletionTimestamp" in item["metadata"] else "there"


def _conditions(stage: Stage, status: Object) -> dict[str, Any]:
    return {
        item["type"]: (item["status"], item.get("reason"), _POD.sub("pod …", stage.known(item.get("message", ""))))
        for item in sorted(status.get("conditions") or (), key=lambda item: str(item["type"]))
    }


def _job(stage: Stage, job: Object) -> dict[str, Any]:
    status = job.get("status") or {}
    counts = {key: status.get(key) or 0 for key in ("active", "succeeded", "failed", "terminating")}
    return {
        **counts,
        "indexes": status.get("completedIndexes", ""),
        "started": "startTime" in status,
        "completed": "completionTime" in status,
        "conditions": _conditions(stage, status),
        "zone": (job["metadata"].get("annotations") or {}).get(_SCHEDULED, "")[19:],
        "going": _is_going(job),
    }


def _cron(stage: Stage, cron: Object) -> dict[str, Any]:
    status = cron.get("status") or {}
    return {
        "active": sorted(stage.known(item["name"]) for item in status.get("active") or ()),
        "scheduled": "lastScheduleTime" in status,
        "successful": "lastSuccessfulTime" in status,
    }


def _deployment(stage: Stage, deployment: Object) -> dict[str, Any]:
    status = deployment.get("status") or {}
    keys = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    return {
        **{key: status.get(key) or 0 for key in keys},
        "observed": status.get("observedGeneration") == deployment["metadata"]["generation"],
        "revision": (deployment["metadata"].get("annotations") or {}).get(_REVISION),
        "conditions": _conditions(stage, status),
    }


def _set(found: Object) -> dict[str, Any]:
    status = found.get("status") or {}
    return {
        "revision": (found["metadata"].get("annotations") or {}).get(_REVISION),
        "wanted": found["spec"]["replicas"],
        "created": status.get("replicas") or 0,
        "available": status.get("availableReplicas") or 0,
        "owners": len(found["metadata"].get("ownerReferences") or ()),
    }


def _pod(stage: Stage, pod: Object) -> str:
    labels, metadata = pod["metadata"].get("labels") or {}, pod["metadata"]
    owner = labels.get("job-name") or labels.get(VERSION) or metadata["name"]
    index = f"[{labels[INDEX]}]" if INDEX in labels else ""
    orphan = "" if metadata.get("ownerReferences") else " orphan"
    limits = pod["spec"]["containers"][0].get("resources") or {}
    return f"{stage.known(owner)}{index} {(pod.get('status') or {}).get('phase')}{orphan}{_resources(limits)}"


def _resources(found: Object) -> str:
    parts = [
        f"{kind}.{key}={value}"
        for kind in ("requests", "limits")
        for key, value in sorted((found.get(kind) or {}).items())
    ]
    return f" {' '.join(parts)}" if parts else ""


def state(job: Object, stage: Stage) -> tuple[Any, ...]:
    """Return the part of a Job's state that makes its history: its name and whether it is suspended or has ended."""
    status = job.get("status") or {}
    types = [item["type"] for item in status.get("conditions") or () if item["status"] == "True"]
    return (stage.known(job["metadata"]["name"]), *(type_ for type_ in types if type_ not in _INTERIM))


WATCHED = Watched(Job, state)
