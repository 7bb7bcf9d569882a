"""What makes Argo Rollouts report a rollout as invalid: the objects that it names, and limits of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from laptop.cluster.analysis import missing_argument, step_arguments
from laptop.cluster.kinds import ANALYSIS_TEMPLATE, INGRESS, SERVICE, Kind
from laptop.cluster.objects import Object, name_of
from laptop.cluster.replica_sets import ROLLOUT_HASH

MANAGED_BY = "argo-rollouts.argoproj.io/managed-by-rollouts"
"""Annotation of a Service with the rollout that changes its selector."""

_CANARY = "spec.strategy.canary"


class Find(Protocol):
    """Looks up an object in the rollout's namespace."""

    def __call__(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None."""
        ...


def why_invalid(rollout: Object, find: Find) -> str:
    """Return the message of the condition `InvalidSpec`, or "" if the rollout is valid."""
    canary: Mapping[str, Any] = rollout["spec"]["strategy"]["canary"]
    for problems in (
        _spec(rollout["spec"]),
        _services(rollout, find),
        _templates(canary, find),
        _ingress(canary, find),
    ):
        for problem in problems:
            return f'The Rollout "{name_of(rollout)}" is invalid: {problem}'
    return ""


def named_objects(rollout: Object) -> set[tuple[Kind, str]]:
    """Return the kinds and names of the objects that a rollout names."""
    canary = rollout["spec"]["strategy"]["canary"]
    found = {(SERVICE, name) for _, name in _named_services(canary)}
    if alb := (canary.get("trafficRouting") or {}).get("alb"):
        found.add((INGRESS, alb["ingress"]))
    found |= {(ANALYSIS_TEMPLATE, name) for _, name, _ in _named_templates(canary)}
    return found


def _spec(spec: Mapping[str, Any]) -> Iterator[str]:
    deadline, ready = int(spec.get("progressDeadlineSeconds") or 600), int(spec.get("minReadySeconds") or 0)
    if deadline <= ready:
        yield f"spec.progressDeadlineSeconds: Invalid value: {deadline}: must be greater than minReadySeconds"
    canary = spec["strategy"]["canary"]
    if canary.get("stableService") and canary.get("stableService") == canary.get("canaryService"):
        yield (
            f'spec.strategy.stableService: Invalid value: "{canary["stableService"]}": This rollout uses the same '
            "service for the stable and canary services, but two different services are required."
        )
    pair = canary.get("pingPong")
    if pair and pair["pingService"] == pair["pongService"]:
        yield (
            f'spec.strategy.pingPong.pingService: Invalid value: "{pair["pingService"]}": This rollout uses the same '
            "service for the ping and pong services, but two different services are required."
        )
    if pair and not canary["trafficRouting"]["alb"].get("rootService"):
        yield (
            'spec.strategy.trafficRouting.alb.rootService: Invalid value: "": Root service field is required for the '
            "configuration with ALB and ping-pong feature enabled"
        )
    for key in ("stableService", "canaryService") if not pair else ():
        if not canary.get(key):
            yield (
                f'spec.strategy.{key}: Invalid value: "": Canary service and Stable service must to be set to use '
                "Traffic Routing"
            )
    if canary.get("dynamicStableScale") and canary.get("scaleDownDelaySeconds") is not None:
        yield (
            "spec.strategy.dynamicStableScale: Invalid value: true: Canary dynamicStableScale cannot be used with "
            "scaleDownDelaySeconds"
        )


def _named_services(canary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    pair = canary.get("pingPong") or {}
    for path, name in (
        ("stableService", canary.get("stableService")),
        ("canaryService", canary.get("canaryService")),
        ("pingPong.pingService", pair.get("pingService")),
        ("pingPong.pongService", pair.get("pongService")),
    ):
        if name:
            yield f"{_CANARY}.{path}", name


def _services(rollout: Object, find: Find) -> Iterator[str]:
    labels = (rollout["spec"]["template"].get("metadata") or {}).get("labels") or {}
    services = [
        (path, name, find(SERVICE, name)) for path, name in _named_services(rollout["spec"]["strategy"]["canary"])
    ]
    for path, name, service in services:
        if service is None:
            yield f'{path}: Invalid value: "{name}": service "{name}" not found'
    for path, name, service in services:
        assert service is not None
        for key, value in sorted((service["spec"].get("selector") or {}).items()):
            if key != ROLLOUT_HASH and labels.get(key) != value:
                yield f'{path}: Invalid value: "{name}": Service "{name}" has unmatch label "{key}" in rollout'
        manager = (service["metadata"].get("annotations") or {}).get(MANAGED_BY)
        if manager not in (None, name_of(rollout)):
            yield f'{path}: Invalid value: "{name}": Service "{name}" is managed by another Rollout'


def _named_templates(canary: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for index, step in enumerate(canary.get("steps") or ()):
        for reference in (step.get("analysis") or {}).get("templates") or ():
            path = f"{_CANARY}.steps[{index}].analysis.templates"
            yield path, reference["templateName"], step["analysis"]


def _templates(canary: Mapping[str, Any], find: Find) -> Iterator[str]:
    for path, name, _ in _named_templates(canary):
        if find(ANALYSIS_TEMPLATE, name) is None:
            yield f"{path}: Invalid value: \"{name}\": AnalysisTemplate '{name}' not found"
    for path, name, analysis in _named_templates(canary):
        template = find(ANALYSIS_TEMPLATE, name)
        assert template is not None
        names = " ".join(reference["templateName"] for reference in analysis["templates"])
        given = {item["name"]: "" for item in analysis.get("args") or ()}
        if missing := missing_argument(step_arguments([template], given)):
            yield f'{path}: Invalid value: "templateNames: [{names}]": args.{missing} was not resolved'
        for metric in template["spec"]["metrics"]:
            if metric.get("interval") and not metric.get("count"):
                yield (
                    f'{path}: Invalid value: "{name}": AnalysisTemplate {name} has metric {metric["name"]} which runs '
                    "indefinitely. Invalid value for count: <nil>"
                )


def _ingress(canary: Mapping[str, Any], find: Find) -> Iterator[str]:
    alb = (canary.get("trafficRouting") or {}).get("alb")
    if not alb:
        return
    path, name = f"{_CANARY}.trafficRouting.alb.ingress", alb["ingress"]
    ingress = find(INGRESS, name)
    if ingress is None:
        yield f'{path}: Invalid value: "{name}": ingress.networking.k8s.io "{name}" not found'
        return
    root = root_service(canary)
    if root not in _backends(ingress):
        yield f'{path}: Invalid value: "{name}": ingress `{name}` has no rules using service {root} backend'


def root_service(canary: Mapping[str, Any]) -> str:
    """Return the Service whose traffic the Ingress splits."""
    alb = canary["trafficRouting"]["alb"]
    return str(alb.get("rootService") or canary.get("stableService"))


def _backends(ingress: Object) -> set[str]:
    return {
        str((path["backend"].get("service") or {}).get("name"))
        for rule in ingress["spec"].get("rules") or ()
        for path in (rule.get("http") or {}).get("paths") or ()
    }
