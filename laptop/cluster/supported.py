"""What a real cluster would run and the small one cannot: refused with the reason, never run differently in silence."""

from __future__ import annotations

from typing import Any

from laptop.cluster.kinds import ANALYSIS_RUN, ANALYSIS_TEMPLATE, CRON_JOB, INGRESS, JOB, ROLLOUT, Kind
from laptop.cluster.templates import pod_spec_of

NOT_ACTED_UPON = {
    "HorizontalPodAutoscaler": "nothing here measures load: the number of pods stays as it is",
    "NetworkPolicy": "the pods' processes share one network, which nothing divides",
    "PodDisruptionBudget": "there is one node, which is never drained",
}
"""Kinds of objects that are kept, and have no effect: why."""

_FIELD_REFS = {
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.serviceAccountName",
    "spec.nodeName",
    "status.podIP",
    "status.hostIP",
}
_JOB_FIELDS = ("successPolicy", "backoffLimitPerIndex", "maxFailedIndexes", "managedBy")


def unsupported(kind: Kind, obj: dict[str, Any]) -> list[str]:
    """What in a valid manifest the small cluster cannot run; [] when it can run all of it."""
    spec = obj.get("spec") or {}
    found: list[str] = []
    if kind == JOB:
        found += _job(spec)
    if kind == CRON_JOB:
        found += _job((spec.get("jobTemplate") or {}).get("spec") or {})
        found += _schedule(spec)
    if kind == ROLLOUT:
        found += _rollout(spec)
    if kind in (ANALYSIS_TEMPLATE, ANALYSIS_RUN):
        found += _analysis(spec)
    if kind == INGRESS and spec.get("tls"):
        found.append("spec.tls: the router speaks HTTP; on AWS name certificates in the ALB's annotations")
    pod = pod_spec_of(kind, obj)
    return found + (_pod(pod) if pod is not None else [])


def _job(spec: dict[str, Any]) -> list[str]:
    found = [f"spec.{field}: not supported" for field in _JOB_FIELDS if spec.get(field) is not None]
    if spec.get("completions", 1) != 1 or spec.get("parallelism", 1) != 1:
        found.append("spec.completions and spec.parallelism: only 1 is supported")
    if spec.get("completionMode", "NonIndexed") != "NonIndexed":
        found.append("spec.completionMode: only NonIndexed is supported")
    if spec.get("manualSelector"):
        found.append("spec.manualSelector: not supported")
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or ()
    if any(rule.get("onPodConditions") or rule.get("action") == "FailIndex" for rule in rules):
        found.append("spec.podFailurePolicy: only rules on exit codes that fail the job, count or ignore are supported")
    if rules and ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy") != "Never":
        found.append("spec.podFailurePolicy: needs the restartPolicy Never, in Kubernetes too")
    return found


def _analysis(spec: dict[str, Any]) -> list[str]:
    found = []
    for metric in spec["metrics"]:
        job = metric["provider"]["job"]["spec"]
        problems = _job(job) + _pod((job.get("template") or {}).get("spec") or {})
        found += [f"metric {metric['name']}: {what}" for what in problems]
    return found


def _schedule(spec: dict[str, Any]) -> list[str]:
    from laptop.cluster.schedules import ScheduleError, parse_schedule

    try:
        parse_schedule(str(spec.get("schedule", "")), spec.get("timeZone"))
    except ScheduleError as error:
        return [f"spec.schedule: {error}"]
    return []


def _rollout(spec: dict[str, Any]) -> list[str]:
    canary = spec["strategy"]["canary"]
    weighs = any("setWeight" in step for step in canary.get("steps") or ())
    found = []
    if weighs and not canary.get("trafficRouting"):
        found.append("spec.strategy.canary.steps: setWeight needs trafficRouting.alb; replica ratios are not supported")
    if canary.get("trafficRouting") and not (canary.get("canaryService") and canary.get("stableService")):
        found.append("spec.strategy.canary: trafficRouting needs canaryService and stableService")
    return found


def _pod(spec: dict[str, Any]) -> list[str]:
    containers = spec.get("containers") or []
    found = []
    if len(containers) != 1 or spec.get("initContainers"):
        found.append("containers: a pod runs exactly one container and no initContainers here")
    tmp = set()
    for volume in spec.get("volumes") or ():
        if "emptyDir" not in volume:
            found.append(f"volumes: {volume.get('name')!r} is not an emptyDir, the only volume there is here")
        else:
            tmp.add(volume.get("name"))
    for container in containers:
        found += [f"container {container.get('name')!r}: {what}" for what in _container(container, tmp)]
    return found


def _container(container: dict[str, Any], empty_dirs: set[Any]) -> list[str]:
    found = []
    if not container.get("command"):
        found.append("command: missing; no image is opened here, so its entry point is not known")
    if container.get("workingDir"):
        found.append("workingDir: leave it to the image, whose working directory holds its files")
    for mount in container.get("volumeMounts") or ():
        if mount.get("name") in empty_dirs and mount.get("mountPath") != "/tmp":  # noqa: S108  a pod's own
            found.append(f"volumeMounts: only /tmp can be mounted (it is the TMPDIR), not {mount.get('mountPath')}")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if container.get(probe) and "httpGet" not in container[probe]:
            found.append(f"{probe}: only httpGet is supported")
    lifecycle = container.get("lifecycle") or {}
    if lifecycle.get("postStart") or (lifecycle.get("preStop") and "sleep" not in lifecycle["preStop"]):
        found.append("lifecycle: only preStop.sleep is supported")
    found += _ports(container)
    for variable in container.get("env") or ():
        found += _variable(variable)
    return found


def _ports(container: dict[str, Any]) -> list[str]:
    ports = container.get("ports") or []
    if not ports:
        return []
    if len(ports) != 1 or ports[0].get("name") != "http":
        return ["ports: exactly one port, named `http`, is supported"]
    number = str(ports[0].get("containerPort"))
    values = [variable.get("value") for variable in container.get("env") or () if variable.get("name") == "PORT"]
    if values != [number]:
        return [f"env: PORT must be {number!r}, as the port named `http`: here many pods share one address, so that "
                "the value is replaced by a free port"]  # fmt: skip
    return []


def _variable(variable: dict[str, Any]) -> list[str]:
    source = variable.get("valueFrom") or {}
    name = variable.get("name")
    if "resourceFieldRef" in source:
        return [f"env {name}: resourceFieldRef is not supported; nothing limits a pod's resources here"]
    if "fileKeyRef" in source:
        return [f"env {name}: fileKeyRef is not supported"]
    path = (source.get("fieldRef") or {}).get("fieldPath")
    if path and path not in _FIELD_REFS and not path.startswith(("metadata.labels[", "metadata.annotations[")):
        return [f"env {name}: fieldRef {path} is not supported"]
    return []
