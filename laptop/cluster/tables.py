"""Tables that `kubectl get` prints (`meta.k8s.io/v1` Table), with the columns of Kubernetes' own printers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from laptop.cluster.conditions import is_true
from laptop.cluster.kinds import (
    ANALYSIS_RUN,
    CONFIG_MAP,
    CRON_JOB,
    DEPLOYMENT,
    ENDPOINTS,
    EVENT,
    INGRESS,
    JOB,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    ROLLOUT,
    SECRET,
    SERVICE,
    Kind,
)
from laptop.cluster.objects import Object, is_deleting

Cell = Callable[[Object], Any]

MEDIA_TYPE = "as=Table"
"""Part of the Accept header with which a client requests a table."""


def table(kind: Kind, objects: Sequence[Object], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a Table with a row for each object.

    Args:
        kind: kind of the objects.
        objects: rows.
        metadata: metadata of the list.
    """
    columns = _COLUMNS.get(kind, {"Name": _name, "Age": _age})
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": 0,
            }
            for name in columns
        ],
        "rows": [
            {
                "cells": [cell(obj) for cell in columns.values()],
                "object": {
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": obj["metadata"],
                },
            }
            for obj in objects
        ],
    }


def _duration(seconds: float) -> str:
    """Return a duration in the style of kubectl: `45s`, `12m`, `5h`, `3d`."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 2 * 3600:
        return f"{whole // 60}m"
    return f"{whole // 3600}h" if whole < 48 * 3600 else f"{whole // 86400}d"


def _since(time: str | None) -> str:
    return _duration((datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()) if time else "<none>"


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Object) -> str:
    return _since(obj["metadata"].get("creationTimestamp"))


def _status(key: str, default: Any = 0) -> Cell:
    return lambda obj: (obj.get("status") or {}).get(key, default)


def _spec(key: str, default: Any = "<none>") -> Cell:
    return lambda obj: (obj.get("spec") or {}).get(key, default)


def _statuses(pod: Object, key: str = "containerStatuses") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (pod.get("status") or {}).get(key) or []
    return found


def _pod_ready(pod: Object) -> str:
    statuses = _statuses(pod)
    return f"{sum(bool(item.get('ready')) for item in statuses)}/{len(pod['spec']['containers'])}"


def _pod_status(pod: Object) -> str:
    if is_deleting(pod):
        return "Terminating"
    status = pod.get("status") or {}
    if status.get("reason"):
        return str(status["reason"])
    initial = pod["spec"].get("initContainers") or ()
    done = [item for item in _statuses(pod, "initContainerStatuses") if item.get("ready")]
    if len(done) < len(initial):
        for item in _statuses(pod, "initContainerStatuses"):
            state = item.get("state") or {}
            for reason in ((state.get("waiting") or {}).get("reason"), (state.get("terminated") or {}).get("reason")):
                if reason and reason not in ("PodInitializing", "Completed"):
                    return f"Init:{reason}"
        return f"Init:{len(done)}/{len(initial)}"
    for item in _statuses(pod):
        state = item.get("state") or {}
        for part in ("waiting", "terminated"):
            if (state.get(part) or {}).get("reason"):
                return str(state[part]["reason"])
    return str(status.get("phase", "Pending"))


def _restarts(pod: Object) -> str:
    return str(sum(item.get("restartCount", 0) for item in _statuses(pod)))


def _ports(service: Object) -> str:
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in service["spec"].get("ports") or ())


def _endpoints(endpoints: Object) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in endpoints.get("subsets") or ()
        for address in subset.get("addresses") or ()
        for port in subset["ports"]
    ]
    return ",".join(found) or "<none>"


def _job_status(job: Object) -> str:
    for type_ in ("Complete", "Failed", "Suspended"):
        if is_true(job, type_):
            return type_
    return "Running"


def _job_duration(job: Object) -> str:
    status = job.get("status") or {}
    start, end = status.get("startTime"), status.get("completionTime")
    if not start:
        return ""
    return (
        _duration((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
        if end
        else _since(start)
    )


def _address(ingress: Object) -> str:
    balancer = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return ",".join(f"{item['ip']}:{port['port']}" for item in balancer for port in item.get("ports") or ())


def _hosts(ingress: Object) -> str:
    return ",".join(dict.fromkeys(rule.get("host") or "*" for rule in ingress["spec"].get("rules") or ())) or "*"


_WORKLOAD: dict[str, Cell] = {
    "Up-to-date": _status("updatedReplicas"),
    "Available": _status("availableReplicas"),
    "Age": _age,
}

_COLUMNS: dict[Kind, dict[str, Cell]] = {
    NAMESPACE: {"Name": _name, "Status": _status("phase", "Active"), "Age": _age},
    NODE: {
        "Name": _name,
        "Status": lambda node: "Ready" if is_true(node, "Ready") else "NotReady",
        "Age": _age,
        "Version": lambda node: node["status"]["nodeInfo"]["kubeletVersion"],
    },
    POD: {"Name": _name, "Ready": _pod_ready, "Status": _pod_status, "Restarts": _restarts, "Age": _age},
    SERVICE: {
        "Name": _name,
        "Type": _spec("type"),
        "Cluster-IP": _spec("clusterIP"),
        "External-IP": lambda service: "<none>",
        "Port(s)": _ports,
        "Age": _age,
    },
    CONFIG_MAP: {"Name": _name, "Data": lambda found: len(found.get("data") or {}), "Age": _age},
    SECRET: {
        "Name": _name,
        "Type": lambda secret: secret.get("type", "Opaque"),
        "Data": lambda secret: len(secret.get("data") or {}),
        "Age": _age,
    },
    ENDPOINTS: {"Name": _name, "Endpoints": _endpoints, "Age": _age},
    EVENT: {
        "Last Seen": lambda event: _since(event.get("lastTimestamp")),
        "Type": lambda event: event.get("type", ""),
        "Reason": lambda event: event.get("reason", ""),
        "Object": lambda event: f"{event['involvedObject']['kind'].lower()}/{event['involvedObject']['name']}",
        "Message": lambda event: event.get("message", ""),
    },
    JOB: {
        "Name": _name,
        "Status": _job_status,
        "Completions": lambda job: (
            f"{(job.get('status') or {}).get('succeeded', 0)}/{job['spec'].get('completions', 1)}"
        ),
        "Duration": _job_duration,
        "Age": _age,
    },
    CRON_JOB: {
        "Name": _name,
        "Schedule": _spec("schedule"),
        "Suspend": lambda cron_job: str(bool(cron_job["spec"].get("suspend"))),
        "Active": lambda cron_job: len((cron_job.get("status") or {}).get("active") or ()),
        "Last Schedule": lambda cron_job: _since((cron_job.get("status") or {}).get("lastScheduleTime")),
        "Age": _age,
    },
    DEPLOYMENT: {
        "Name": _name,
        "Ready": lambda found: (
            f"{(found.get('status') or {}).get('readyReplicas', 0)}/{found['spec'].get('replicas', 1)}"
        ),
        **_WORKLOAD,
    },
    REPLICA_SET: {
        "Name": _name,
        "Desired": _spec("replicas", 0),
        "Current": _status("replicas"),
        "Ready": _status("readyReplicas"),
        "Age": _age,
    },
    INGRESS: {
        "Name": _name,
        "Class": _spec("ingressClassName"),
        "Hosts": _hosts,
        "Address": _address,
        "Age": _age,
    },
    ROLLOUT: {
        "Name": _name,
        "Status": _status("phase", "Progressing"),
        "Desired": _spec("replicas", 1),
        "Current": _status("replicas"),
        **_WORKLOAD,
    },
    ANALYSIS_RUN: {"Name": _name, "Status": _status("phase", ""), "Age": _age},
}
