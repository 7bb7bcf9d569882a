"""Default values that Kubernetes sets on new objects, limited to those that clients and controllers read here."""

from __future__ import annotations

import base64
from typing import Any

from laptop.cluster.kinds import CRON_JOB, DEPLOYMENT, JOB, NAMESPACE, POD, ROLLOUT, SECRET, SERVICE, Kind
from laptop.cluster.objects import Object


def with_defaults(kind: Kind, obj: Object) -> Object:
    """Return a copy of a manifest with the defaults of its kind, and without a status, which clients cannot set."""
    obj = {**obj, "apiVersion": kind.api_version, "kind": kind.name}
    obj.pop("status", None)
    spec: dict[str, Any] = dict(obj.get("spec") or {})
    if kind in (DEPLOYMENT, ROLLOUT):
        spec.setdefault("replicas", 1)
    elif kind is JOB:
        if spec.get("completions") is None and spec.get("parallelism") is None:
            spec["completions"] = 1
        replaced = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
        spec = {"backoffLimit": 6, "completionMode": "NonIndexed", "parallelism": 1, "suspend": False, **spec}
        spec = {"podReplacementPolicy": replaced, **spec}
    elif kind is CRON_JOB:
        spec = {"concurrencyPolicy": "Allow", "suspend": False, **spec}
        spec = {"successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1, **spec}
    elif kind is SERVICE:
        spec = {"type": "ClusterIP", "clusterIP": "127.0.0.1", "sessionAffinity": "None", **spec}
        spec["ports"] = [{"protocol": "TCP", "targetPort": port["port"], **port} for port in spec.get("ports") or ()]
    elif kind is POD:
        spec = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, **spec}
    elif kind is NAMESPACE:
        obj["status"] = {"phase": "Active"}
        metadata = obj["metadata"]
        labels = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}
        obj["metadata"] = {**metadata, "labels": labels}
    elif kind is SECRET:
        plain = obj.pop("stringData", None) or {}
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        obj = {"type": "Opaque", **obj, "data": {**(obj.get("data") or {}), **encoded}}
    if spec or "spec" in obj:
        obj["spec"] = spec
    return obj
