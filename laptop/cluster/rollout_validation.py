"""What makes Argo Rollouts report a rollout as invalid: the objects that it names, and limits of its steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from laptop.cluster.analysis_validation import (
    AnalysisError,
    int_value,
    missing_argument,
    run_dry_rules,
    run_metrics,
    step_arguments,
    why_template_invalid,
)
from laptop.cluster.defaults import with_defaults
from laptop.cluster.durations import pause_seconds
from laptop.cluster.kinds import ANALYSIS_TEMPLATE, INGRESS, REPLICA_SET, SERVICE, Kind
from laptop.cluster.object_validation import NOT_NEGATIVE, selected_template_problems
from laptop.cluster.objects import Object, annotations_of, name_of
from laptop.cluster.refusals import INVALID, FieldProblem
from laptop.cluster.replica_sets import ROLLOUT_HASH

MANAGED_BY = "argo-rollouts.argoproj.io/managed-by-rollouts"
"""Annotation of a Service with the rollout that changes its selector."""

_CANARY = "spec.strategy.canary"
_INGRESS = f"{_CANARY}.trafficRouting.alb.ingress"
_FULL = 100  # weight of all traffic
_PROGRESS_DEADLINE = 600  # seconds, Argo's default
_SURGE = _UNAVAILABLE = "25%"  # Argo's defaults
_METADATA_FIELD = re.compile(r"metadata\.(name|namespace|uid|annotations|labels|(annotations|labels)\['[^']+'\])")


class Find(Protocol):
    """Looks up an object in the rollout's namespace."""

    def __call__(self, kind: Kind, name: str) -> Object | None:
        """Return the object, or None."""
        ...


def why_invalid(rollout: Object, find: Find) -> str:
    """Return the message of the condition `InvalidSpec`, or "" if the rollout is valid.

    Argo reports one problem: first those of the specification, then names of objects that do not exist, then objects
    that do not fit.
    """
    canary: Mapping[str, Any] = rollout["spec"]["strategy"]["canary"]
    for problems in (
        _spec(rollout["spec"]),
        _canary(rollout, canary),
        _missing_objects(canary, find),
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
    found.add((INGRESS, canary["trafficRouting"]["alb"]["ingress"]))
    found |= {(ANALYSIS_TEMPLATE, name) for _, name, _ in _named_templates(canary)}
    return found


def _spec(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _negative(spec, "replicas")
    pods = {"metadata": {}, "spec": {"selector": spec["selector"], "template": spec["template"]}}
    pods = with_defaults(REPLICA_SET, pods)["spec"]
    yield from map(str, selected_template_problems(pods, "Always"))
    for field in ("minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        yield from _negative(spec, field)
    deadline, ready = spec.get("progressDeadlineSeconds"), int(spec.get("minReadySeconds") or 0)
    deadline = _PROGRESS_DEADLINE if deadline is None else int(deadline)
    if deadline <= ready:
        yield f"spec.progressDeadlineSeconds: Invalid value: {deadline}: must be greater than minReadySeconds"


def _negative(spec: Mapping[str, Any], field: str) -> Iterator[str]:
    if int(spec.get(field) or 0) < 0:
        yield str(FieldProblem(INVALID, f"spec.{field}", spec[field], NOT_NEGATIVE))


def _canary(rollout: Object, canary: Mapping[str, Any]) -> Iterator[str]:
    surge, unavailable = canary.get("maxSurge", _SURGE), canary.get("maxUnavailable", _UNAVAILABLE)
    if not _amount(surge) and not _amount(unavailable):
        says = "MaxSurge and MaxUnavailable both can not be zero"
        yield str(FieldProblem(INVALID, "spec.strategy.maxSurge", surge, says))
    if canary.get("stableService") and canary.get("stableService") == canary.get("canaryService"):
        yield (
            f'spec.strategy.stableService: Invalid value: "{canary["stableService"]}": This rollout uses the same '
            "service for the stable and canary services, but two different services are required."
        )
    pair: Mapping[str, Any] = canary.get("pingPong") or {}
    for name in ("pingService", "pongService") if pair else ():
        if not pair[name]:
            yield (
                f'spec.strategy.pingPong.{name}: Invalid value: "": Ping service and Pong service must to be set to '
                "use Ping-Pong feature"
            )
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
    for index, step in enumerate(canary.get("steps") or ()):
        yield from (f"spec.strategy.steps[{index}]{problem}" for problem in _step(rollout, step))


def _amount(value: int | str) -> int:
    return int_value(value.removesuffix("%") if isinstance(value, str) else value)


def _step(rollout: Object, step: Mapping[str, Any]) -> Iterator[str]:
    given = {key: step.get(key) is not None for key in ("experiment", "pause", "setWeight", "analysis")}
    says = "Step must have one of the following set: experiment, setWeight, setCanaryScale, plugin or pause"
    if sum(given.values()) > 1:
        yield f': Invalid value: "{_shown(given)}": {says}'
    if not any(given.values()) and step.get("setCanaryScale") is None:
        lacking = dict.fromkeys((*given, "setCanaryScale", "setHeaderRoute", "setMirrorRoute", "plugin"), True)
        yield f': Invalid value: "{_shown(lacking)}": {says}'
    weight = step.get("setWeight")
    if weight is not None and not 0 <= weight <= _FULL:
        yield f".setWeight: Invalid value: {weight}: SetWeight needs to be between 0 and {_FULL}"
    seconds = pause_seconds((step.get("pause") or {}).get("duration"))
    if seconds < 0:
        yield f".pause.duration: Invalid value: {seconds}: Duration needs to be greater than 0"
    arguments = (step.get("analysis") or {}).get("args") or ()
    for argument in arguments:
        path = ((argument.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath", "")
        if path.startswith("metadata") and not _METADATA_FIELD.fullmatch(path):
            says = "Analyses arguments must refer to valid object metadata supported by downwardAPI"
            yield f".analyses: {FieldProblem(INVALID, '', arguments, says).message}"


def _shown(flags: Mapping[str, bool]) -> str:
    return " ".join(f"step.{key[0].upper()}{key[1:]}: {str(flag).lower()}" for key, flag in flags.items())


def _missing_objects(canary: Mapping[str, Any], find: Find) -> Iterator[str]:
    for path, name in _named_services(canary):
        if find(SERVICE, name) is None:
            yield f'{path}: Invalid value: "{name}": service "{name}" not found'
    for path, name, _ in _named_templates(canary):
        if find(ANALYSIS_TEMPLATE, name) is None:
            yield f"{path}: Invalid value: \"{name}\": AnalysisTemplate '{name}' not found"
    name = canary["trafficRouting"]["alb"]["ingress"]
    if find(INGRESS, name) is None:
        yield f'{_INGRESS}: Invalid value: "{name}": ingress.networking.k8s.io "{name}" not found'


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
    for path, name in _named_services(rollout["spec"]["strategy"]["canary"]):
        service = find(SERVICE, name)
        assert service is not None
        for key, value in sorted((service["spec"].get("selector") or {}).items()):
            if key != ROLLOUT_HASH and labels.get(key) != value:
                yield f'{path}: Invalid value: "{name}": Service "{name}" has unmatch label "{key}" in rollout'
        manager = annotations_of(service).get(MANAGED_BY)
        if manager not in (None, name_of(rollout)):
            yield f'{path}: Invalid value: "{name}": Service "{name}" is managed by another Rollout'


def _named_templates(canary: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, analysis in _analyses(canary):
        for reference in analysis.get("templates") or ():
            yield path, reference["templateName"], analysis


def _analyses(canary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for index, step in enumerate(canary.get("steps") or ()):
        if step.get("analysis") is not None:
            yield f"{_CANARY}.steps[{index}].analysis.templates", step["analysis"]


def _templates(canary: Mapping[str, Any], find: Find) -> Iterator[str]:
    for path, analysis in _analyses(canary):
        names = template_names(analysis)
        templates = [found for name in names if (found := find(ANALYSIS_TEMPLATE, name)) is not None]
        given = {item["name"]: "" for item in analysis.get("args") or ()}
        try:
            run_metrics(templates)
            missing = missing_argument(step_arguments(templates, given))
            if missing:
                raise AnalysisError(f"args.{missing} was not resolved")
            for _, other in _analyses(canary):  # Argo looks at the dry runs of all steps
                run_dry_rules(templates, other)
        except AnalysisError as error:
            yield f'{path}: Invalid value: "templateNames: [{" ".join(names)}]": {error}'
        for template in templates:
            if problem := why_template_invalid(template):
                yield f'{path}: Invalid value: "{name_of(template)}": {problem}'


def template_names(analysis: Mapping[str, Any]) -> list[str]:
    """Return the names of the AnalysisTemplates of a step, each once."""
    return list(dict.fromkeys(reference["templateName"] for reference in analysis["templates"]))


def _ingress(canary: Mapping[str, Any], find: Find) -> Iterator[str]:
    name, root = canary["trafficRouting"]["alb"]["ingress"], root_service(canary)
    ingress = find(INGRESS, name)
    if ingress is not None and root not in _backends(ingress):
        yield f'{_INGRESS}: Invalid value: "{name}": ingress `{name}` has no rules using service {root} backend'


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
