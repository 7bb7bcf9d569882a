"""Features of valid manifests that this cluster cannot run. It refuses them with the reason.

What it accepts runs as on Kubernetes; there are no silent differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from laptop.cluster.kinds import (
    ANALYSIS_RUN,
    ANALYSIS_TEMPLATE,
    CRON_JOB,
    JOB,
    NAMESPACE,
    RESOURCE_QUOTA,
    ROLLOUT,
    VOLUME_CLAIM,
    Kind,
)
from laptop.cluster.pod_security import ENFORCE
from laptop.cluster.quotas import ENFORCED
from laptop.cluster.templates import pod_spec_of
from laptop.cluster.volumes import SCRATCH, mentions

NOT_ACTED_UPON = {
    "HorizontalPodAutoscaler": "nothing measures load: the number of pods stays the same",
    "NetworkPolicy": "the processes of pods share one network; only a realistic laptop judges requests for Services",
    "PodDisruptionBudget": "there is one node, which is never drained",
}
"""Kinds of objects that are stored without effect, with the reason."""

_FIELD_REFS = {
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.serviceAccountName",
    "spec.nodeName",
    "status.podIP",
    "status.hostIP",
}
_NOT_ENFORCED = ("LimitRange",)
_JOB_FIELDS = ("successPolicy", "backoffLimitPerIndex", "maxFailedIndexes", "managedBy")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_VOLUMES = ("emptyDir", "configMap", "secret")


def unsupported(kind: Kind, obj: dict[str, Any]) -> list[str]:
    """Return the unsupported features of a valid manifest; [] if there are none."""
    spec = obj.get("spec") or {}
    if kind.name in _NOT_ENFORCED:
        return [f"{kind.name}: not supported; nothing limits what a namespace uses"]
    found: list[str] = []
    if kind == NAMESPACE:
        found += _namespace(obj["metadata"].get("labels") or {})
    if kind == RESOURCE_QUOTA:
        found += _quota(spec)
    if kind == JOB:
        found += _job(spec)
    if kind == CRON_JOB:
        found += _job((spec.get("jobTemplate") or {}).get("spec") or {})
        found += _schedule(spec)
    if kind == ROLLOUT:
        found += _rollout(spec)
    if kind in (ANALYSIS_TEMPLATE, ANALYSIS_RUN):
        found += _analysis(spec)
    if kind == VOLUME_CLAIM:
        found.append("spec: not supported; nothing provides volumes that outlive a pod")
    pod = pod_spec_of(kind, obj)
    return found + (list(_pod(pod)) if pod is not None else [])


def _namespace(labels: dict[str, str]) -> list[str]:
    level = labels.get(ENFORCE, "privileged")
    if level not in ("privileged", "restricted"):
        return [f"metadata.labels: {ENFORCE}: {level} is not supported; expected restricted or privileged"]
    return []


def _quota(spec: dict[str, Any]) -> Iterator[str]:
    for name in spec.get("hard") or {}:
        if name not in ENFORCED:
            yield f"spec.hard[{name}]: not supported; expected one of {', '.join(ENFORCED)}"
    for field in ("scopes", "scopeSelector"):
        if spec.get(field):
            yield f"spec.{field}: not supported"


def _job(spec: dict[str, Any]) -> list[str]:
    found = [f"spec.{field}: not supported" for field in _JOB_FIELDS if spec.get(field) is not None]
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
        problems = [*_job(job), *_pod((job.get("template") or {}).get("spec") or {})]
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
    if not canary.get("trafficRouting"):
        return ["spec.strategy.canary.trafficRouting: missing; replica ratios are not supported"]
    return []


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    containers, initial = spec.get("containers") or [], spec.get("initContainers") or []
    if len(containers) != 1:
        yield f"containers: expected one container, found {len(containers)}; sidecars are not supported"
    for volume in spec.get("volumes") or ():
        kinds = [key for key in volume if key != "name"]
        if kinds and kinds[0] not in _VOLUMES:
            yield f"volumes: {volume.get('name')!r} is a {kinds[0]}; expected one of {', '.join(_VOLUMES)}"
    for container in initial:
        name = f"init container {container.get('name')!r}"
        if container.get("restartPolicy"):
            yield f"{name}: restartPolicy: sidecars are not supported"
        yield from (f"{name}: {what}" for what in _container(container))
    for container in containers:
        yield from (f"container {container.get('name')!r}: {what}" for what in _container(container))


def _container(container: dict[str, Any]) -> Iterator[str]:
    if not container.get("command"):
        yield "command: missing; images are not opened, so their entry point is not known"
    if container.get("workingDir"):
        yield "workingDir: not supported; the working directory is the image's, which holds its files"
    for mount in container.get("volumeMounts") or ():
        yield from _mount(mount, container)
    for probe in _PROBES:
        if container.get(probe) and not {"httpGet", "tcpSocket"} & container[probe].keys():
            yield f"{probe}: only httpGet and tcpSocket are supported"
        if ((container.get(probe) or {}).get("httpGet") or {}).get("scheme", "HTTP") != "HTTP":
            yield f"{probe}: only the scheme HTTP is supported"
    lifecycle = container.get("lifecycle") or {}
    if lifecycle.get("postStart") or (lifecycle.get("preStop") and "sleep" not in lifecycle["preStop"]):
        yield "lifecycle: only preStop.sleep is supported"
    for variable in container.get("env") or ():
        yield from _variable(variable)


def _mount(mount: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    path = str(mount.get("mountPath"))
    if mount.get("subPath") or mount.get("subPathExpr"):
        yield f"volumeMounts: {path}: subPath is not supported"
    elif path != SCRATCH and not mentions(path, container):
        yield (
            f"volumeMounts: no variable or argument of the container names {path}; nothing can be mounted on this "
            "machine, so the process must be given the path"
        )


def _variable(variable: dict[str, Any]) -> Iterator[str]:
    source = variable.get("valueFrom") or {}
    name = variable.get("name")
    if "resourceFieldRef" in source:
        yield f"env {name}: resourceFieldRef is not supported; pods have no limits"
    if "fileKeyRef" in source:
        yield f"env {name}: fileKeyRef is not supported"
    path = (source.get("fieldRef") or {}).get("fieldPath")
    if path and path not in _FIELD_REFS and not path.startswith(("metadata.labels[", "metadata.annotations[")):
        yield f"env {name}: fieldRef {path} is not supported"
