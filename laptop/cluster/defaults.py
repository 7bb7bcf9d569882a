"""Default values that the Kubernetes API sets: those of the versioned types (`with_defaults`), before field ownership
is recorded, and those that it generates when an object is created (`with_generated`)."""

from __future__ import annotations

import base64
from typing import Any

from laptop.cluster.kinds import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    CRON_JOB,
    DEPLOYMENT,
    JOB,
    NAMESPACE,
    POD,
    RBAC,
    REPLICA_SET,
    ROLE,
    ROLE_BINDING,
    ROLLOUT,
    SECRET,
    SERVICE,
    Kind,
)

Object = dict[str, Any]

_MODE = 420  # 0644


def with_defaults(kind: Kind, obj: Object) -> Object:
    """Return a copy of a manifest with the defaults of its kind, and without a status, which clients cannot set."""
    obj = {**obj, "apiVersion": kind.api_version, "kind": kind.name}
    obj.pop("status", None)
    change = _BY_KIND.get(kind.name)
    if change is not None:
        change(obj)
    return obj


def with_generated(kind: Kind, obj: Object, old: Object | None = None) -> Object:
    """Return a copy with the values that the server generates for a new object, or keeps from the old one."""
    before = (old or {}).get("spec") or {}
    if kind is NAMESPACE:
        return {"status": {"phase": "Active"}, **obj, "spec": {"finalizers": ["kubernetes"]}}
    if kind is SERVICE:
        spec = dict(obj["spec"])
        if spec.get("type") != "ExternalName":
            spec.setdefault("clusterIP", before.get("clusterIP", "127.0.0.1"))
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
            if spec["clusterIP"] == "None" and not spec.get("selector"):
                spec.setdefault("ipFamilies", ["IPv4", "IPv6"])
                spec.setdefault("ipFamilyPolicy", "RequireDualStack")
            spec.setdefault("ipFamilies", ["IPv4"])
            spec.setdefault("ipFamilyPolicy", "SingleStack")
        obj = {**obj, "spec": spec}
    if old is None and kind.name in _FIRST_STATUS:
        return {**obj, "status": _FIRST_STATUS[kind.name]}
    return obj


_FIRST_STATUS: dict[str, Object] = {
    "CronJob": {},
    "Deployment": {},
    "HorizontalPodAutoscaler": {"currentMetrics": None, "desiredReplicas": 0},
    "Ingress": {"loadBalancer": {}},
    "Job": {},
    "PodDisruptionBudget": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
    "ReplicaSet": {"replicas": 0},
    "ResourceQuota": {},
    "Service": {"loadBalancer": {}},
}
"""Statuses of new objects, as the API writes them."""


def with_job_selector(job: Object, uid: str) -> Object:
    """Return a Job with the selector and the labels by which it finds its pods."""
    spec = dict(job["spec"])
    if spec.get("manualSelector"):
        return job
    name = str(job["metadata"]["name"])[:63].rstrip("-_.")
    own = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template = dict(spec["template"])
    metadata = dict(template.get("metadata") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **own}
    spec["template"] = {**template, "metadata": metadata}
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    job = {**job, "spec": spec}
    if not job["metadata"].get("labels"):
        job["metadata"] = {**job["metadata"], "labels": dict(metadata["labels"])}
    return job


def keep_secrets(obj: Object) -> Object:
    """Return a Secret whose `stringData` is in its `data`."""
    plain = obj.get("stringData")
    if not plain:
        return obj
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    rest = {key: value for key, value in obj.items() if key != "stringData"}
    return {**rest, "data": {**(obj.get("data") or {}), **encoded}}


# Values of structs that the API always writes, which no request creates: ownership starts below them.
_ALWAYS: dict[str, Object] = {
    "Deployment": {
        "spec": {"strategy": {}, "template": {"metadata": {}, "spec": {"containers": None}}, "selector": None}
    },
    "ReplicaSet": {"spec": {"template": {"metadata": {}, "spec": {"containers": None}}}},
    "Job": {"spec": {"template": {"metadata": {}, "spec": {"containers": None}}}},
    "CronJob": {
        "spec": {"jobTemplate": {"metadata": {}, "spec": {"template": {"metadata": {}, "spec": {"containers": None}}}}}
    },
    "Pod": {"spec": {"containers": None}},
    "Service": {"spec": {}, "status": {"loadBalancer": {}}},
    "Ingress": {"spec": {}, "status": {"loadBalancer": {}}},
    "HorizontalPodAutoscaler": {"spec": {"scaleTargetRef": {}}},
    "LimitRange": {"spec": {"limits": None}},
    "Role": {"rules": None},
    "ClusterRole": {"rules": None},
    "Event": {"involvedObject": {}, "source": {}},
}


def empty_object(kind: Kind) -> Object:
    """Return the object to which a new one is compared, to find the fields that its creator owns."""
    if kind.group == ROLLOUT.group:
        return {"metadata": {}}
    return {"metadata": {}, "spec": {}, "status": {}, **_ALWAYS.get(kind.name, {})}


# By kind


def _deployment(obj: Object) -> None:
    spec = {"progressDeadlineSeconds": 600, "replicas": 1, "revisionHistoryLimit": 10, **_spec(obj)}
    strategy = {"type": "RollingUpdate", **(spec.get("strategy") or {})}
    if strategy["type"] == "RollingUpdate":
        rolling = {"maxSurge": "25%", "maxUnavailable": "25%", **(strategy.get("rollingUpdate") or {})}
        strategy["rollingUpdate"] = rolling
    spec["strategy"] = strategy
    obj["spec"] = _with_template(spec)


def _replica_set(obj: Object) -> None:
    spec = {"replicas": 1, **_spec(obj)}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    metadata = obj["metadata"]
    if labels and not metadata.get("labels"):
        obj["metadata"] = {**metadata, "labels": labels}
    obj["spec"] = _with_template(spec)


def _rollout(obj: Object) -> None:
    # A custom resource has the defaults of its schema only; this one is read by every client of Rollouts.
    obj["spec"] = {"replicas": 1, **_spec(obj)}


def _job(obj: Object) -> None:
    spec = _spec(obj)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    replacement = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    spec = {
        "backoffLimit": 2147483647 if spec.get("backoffLimitPerIndex") is not None else 6,
        "completionMode": "NonIndexed",
        "manualSelector": False,
        "parallelism": 1,
        "podReplacementPolicy": replacement,
        "suspend": False,
        **spec,
    }
    obj["spec"] = _with_template(spec)
    labels = ((obj["spec"].get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"] = {**obj["metadata"], "labels": labels}


def _cron_job(obj: Object) -> None:
    spec = {
        "concurrencyPolicy": "Allow",
        "failedJobsHistoryLimit": 1,
        "successfulJobsHistoryLimit": 3,
        "suspend": False,
        **_spec(obj),
    }
    template = spec.get("jobTemplate") or {}
    spec["jobTemplate"] = {"metadata": {}, **template, "spec": _with_template(dict(template.get("spec") or {}))}
    obj["spec"] = spec


def _pod(obj: Object) -> None:
    spec = _pod_spec(_spec(obj))
    spec.setdefault("enableServiceLinks", True)
    containers = [_with_requests(container) for container in spec.get("containers") or ()]
    if containers:
        spec["containers"] = containers
    obj["spec"] = spec


def _service(obj: Object) -> None:
    spec = {"sessionAffinity": "None", "type": "ClusterIP", **_spec(obj)}
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("LoadBalancer", "NodePort"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    if spec.get("ports"):
        spec["ports"] = [
            {"protocol": "TCP", **port, "targetPort": port.get("targetPort") or port.get("port")}
            for port in spec["ports"]
        ]
    obj["spec"] = spec


def _namespace(obj: Object) -> None:
    metadata = obj["metadata"]
    labels = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}
    obj["metadata"] = {**metadata, "labels": labels}


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")


def _binding(obj: Object) -> None:
    role = obj.get("roleRef")
    if isinstance(role, dict):
        obj["roleRef"] = {**role, "apiGroup": role.get("apiGroup") or RBAC}
    subjects = []
    for subject in obj.get("subjects") or ():
        group = RBAC if subject.get("kind") in ("User", "Group") else ""
        subjects.append({**({"apiGroup": group} if group and not subject.get("apiGroup") else {}), **subject})
    if subjects:
        obj["subjects"] = subjects


def _autoscaler(obj: Object) -> None:
    spec = {"minReplicas": 1, **_spec(obj)}
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    for direction, seconds in (("scaleUp", 0), ("scaleDown", None)):
        rules = (spec.get("behavior") or {}).get(direction)
        if rules is not None:
            new = {"selectPolicy": "Max", **rules}
            if direction == "scaleUp":
                new.setdefault("stabilizationWindowSeconds", seconds)
                pods = {"type": "Pods", "value": 4, "periodSeconds": 15}
                new.setdefault("policies", [pods, {"type": "Percent", "value": 100, "periodSeconds": 15}])
            new.setdefault("policies", [{"type": "Percent", "value": 100, "periodSeconds": 15}])
            spec["behavior"] = {**spec["behavior"], direction: new}
    obj["spec"] = spec


def _network_policy(obj: Object) -> None:
    spec = _spec(obj)
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    for direction in ("ingress", "egress"):
        rules = []
        for rule in spec.get(direction) or ():
            ports = [{"protocol": "TCP", **port} for port in rule.get("ports") or ()]
            rules.append({**rule, "ports": ports} if ports else rule)
        if rules:
            spec[direction] = rules
    obj["spec"] = spec


def _limit_range(obj: Object) -> None:
    spec = _spec(obj)
    items = []
    for item in spec.get("limits") or ():
        new = dict(item)
        if item.get("type") == "Container":
            new["default"] = {**(item.get("max") or {}), **(item.get("default") or {})}
            asked = {**new["default"], **(item.get("min") or {}), **(item.get("defaultRequest") or {})}
            asked |= {
                key: value for key, value in (item.get("default") or {}).items() if key not in (item.get("min") or {})
            }
            new["defaultRequest"] = {**asked, **(item.get("defaultRequest") or {})}
            new = {key: value for key, value in new.items() if value}
        items.append(new)
    if items:
        spec["limits"] = items
    obj["spec"] = spec


def _event(obj: Object) -> None:
    obj.setdefault("source", {})
    obj.setdefault("firstTimestamp", None)
    obj.setdefault("lastTimestamp", None)
    obj.setdefault("eventTime", None)
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")


def _role(obj: Object) -> None:
    obj.setdefault("rules", None)


_BY_KIND = {
    CLUSTER_ROLE.name: _role,
    CLUSTER_ROLE_BINDING.name: _binding,
    CRON_JOB.name: _cron_job,
    DEPLOYMENT.name: _deployment,
    "HorizontalPodAutoscaler": _autoscaler,
    JOB.name: _job,
    "LimitRange": _limit_range,
    NAMESPACE.name: _namespace,
    "NetworkPolicy": _network_policy,
    POD.name: _pod,
    REPLICA_SET.name: _replica_set,
    ROLE.name: _role,
    ROLE_BINDING.name: _binding,
    ROLLOUT.name: _rollout,
    SECRET.name: _secret,
    SERVICE.name: _service,
}


def _spec(obj: Object) -> dict[str, Any]:
    return dict(obj.get("spec") or {})


def _with_template(spec: dict[str, Any]) -> dict[str, Any]:
    template = spec.get("template") or {}
    spec["template"] = {"metadata": {}, **template, "spec": _pod_spec(dict(template.get("spec") or {}))}
    return spec


def _pod_spec(spec: dict[str, Any]) -> dict[str, Any]:
    result = {
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        **spec,
    }
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        result |= {"serviceAccountName": account, "serviceAccount": account}
    for key in ("initContainers", "containers"):
        if isinstance(spec.get(key), list):
            result[key] = [_container(item) for item in spec[key]]
    if spec.get("volumes"):
        result["volumes"] = [_volume(volume) for volume in spec["volumes"]]
    return result


def _container(container: dict[str, Any]) -> dict[str, Any]:
    image = str(container.get("image", ""))
    is_newest = "@" not in image and (image.rpartition("/")[2].partition(":")[2] or "latest") == "latest"
    result = {
        "imagePullPolicy": "Always" if is_newest else "IfNotPresent",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        **container,
    }
    if container.get("ports"):
        result["ports"] = [{**port, "protocol": port.get("protocol") or "TCP"} for port in container["ports"]]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if isinstance(container.get(name), dict):
            result[name] = _probe(container[name])
    lifecycle = container.get("lifecycle")
    if isinstance(lifecycle, dict):
        result["lifecycle"] = {key: _handler(value) for key, value in lifecycle.items()}
    if container.get("env"):
        result["env"] = [_variable(variable) for variable in container["env"]]
    return result


def _variable(variable: dict[str, Any]) -> dict[str, Any]:
    source = variable.get("valueFrom")
    if isinstance(source, dict) and isinstance(source.get("fieldRef"), dict):
        return {**variable, "valueFrom": {**source, "fieldRef": {"apiVersion": "v1", **source["fieldRef"]}}}
    if variable.get("value") == "":
        return {key: value for key, value in variable.items() if key != "value"}
    return variable


def _probe(probe: dict[str, Any]) -> dict[str, Any]:
    result = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1, **probe}
    return _handler({key: value for key, value in result.items() if not (key == "initialDelaySeconds" and value == 0)})


def _handler(handler: dict[str, Any]) -> dict[str, Any]:
    if isinstance(handler.get("httpGet"), dict):
        return {**handler, "httpGet": {"path": "/", "scheme": "HTTP", **handler["httpGet"]}}
    return handler


def _volume(volume: dict[str, Any]) -> dict[str, Any]:
    if set(volume) == {"name"}:
        return {**volume, "emptyDir": {}}
    for source in ("configMap", "secret", "projected", "downwardAPI"):
        if isinstance(volume.get(source), dict):
            return {**volume, source: {"defaultMode": _MODE, **volume[source]}}
    if isinstance(volume.get("hostPath"), dict):
        return {**volume, "hostPath": {"type": "", **volume["hostPath"]}}
    return volume


def _with_requests(container: dict[str, Any]) -> dict[str, Any]:
    """Return a container whose requests default to its limits."""
    resources = container.get("resources") or {}
    limits = resources.get("limits")
    if not limits:
        return container
    return {**container, "resources": {**resources, "requests": {**limits, **(resources.get("requests") or {})}}}
