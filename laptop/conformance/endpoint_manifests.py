"""Manifests of an endpoint as the Pulumi program declares it, with pods that need no model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from laptop.conformance.rollout_view import VERSION
from laptop.tests.cluster.running_cluster import IMAGE
from tests.infra.recording import Recording

Object = dict[str, Any]

MODEL = "diabetes-progression"
CHECK = f"check-{MODEL}"
PING, PONG, ROOT = f"{MODEL}-ping", f"{MODEL}-pong", f"{MODEL}-root"
STABLE, CANARY = f"{MODEL}-stable", f"{MODEL}-canary"
"""Services that keep their role; the program has a pair that takes turns instead."""
FATE = "fate"
"""Label of a pod template that tells what becomes of its pods; see `stages/`."""

_UNUSED = ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle")
_NEVER = {"tcpSocket": {"port": 1}, "periodSeconds": 1}  # nothing listens on this port


class EndpointManifests:
    """Manifests of the endpoint of one model.

    Args:
        graph: recording of the program.
    """

    def __init__(self, graph: Recording) -> None:
        self._manifests = {
            resource.type.rpartition(":")[2]: json.loads(json.dumps(resource.plain), parse_float=_whole)
            for resource in graph.resources
            if resource.package == "kubernetes" and resource.name in (MODEL, CHECK)
        }
        self._services = [
            json.loads(json.dumps(service.plain), parse_float=_whole)
            for service in graph.of_type("kubernetes:core/v1:Service").values()
            if service.name in (PING, PONG, ROOT)
        ]

    def rollout(
        self, version: str, *, fate: str = "ready", spec: Mapping[str, Any] | None = None, **canary: Any
    ) -> Object:
        """Return the Rollout.

        Args:
            version: label of the pods; another version is another pod template.
            fate: `ready`, or `unready` for pods that never become ready.
            spec: changes of `spec`.
            canary: changes of `spec.strategy.canary`; None removes a field. Without `pingPong`, the Services keep their
                roles.
        """
        made = _clean(self._manifests["Rollout"])
        template = made["spec"]["template"]
        template["metadata"]["labels"] |= {VERSION: version, FATE: fate}
        (container,) = template["spec"]["containers"]
        for key in _UNUSED:
            container.pop(key, None)
        container |= {"image": IMAGE, "command": ["sleep", "3600"]}
        if fate == "unready":
            container["readinessProbe"] = _NEVER
        template["spec"]["terminationGracePeriodSeconds"] = 2
        made["spec"] |= {"replicas": 2, **(spec or {})}
        strategy = made["spec"]["strategy"]["canary"]
        if "pingPong" not in canary:
            del strategy["pingPong"], strategy["trafficRouting"]["alb"]["rootService"]
            strategy |= {"stableService": STABLE, "canaryService": CANARY}
        strategy |= {"scaleDownDelaySeconds": 3, "abortScaleDownDelaySeconds": 3, **canary}
        for key in [key for key, value in strategy.items() if value is None]:
            del strategy[key]
        return made

    def services(self, *, pair: bool = False) -> list[Object]:
        """Return the stable and the canary Service; with `pair` those of the program, which take turns."""
        found = [_clean(service) for service in self._services]
        if pair:
            return found
        return [
            {**copy.deepcopy(found[0]), "metadata": {**found[0]["metadata"], "name": name}} for name in (STABLE, CANARY)
        ]

    def ingress(self, *, root: str = STABLE) -> Object:
        """Return the Ingress, which splits the traffic of a Service."""
        made = _clean(self._manifests["Ingress"])
        made["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = root
        return made

    def accounts(self) -> list[Object]:
        """Return the service accounts of the pods."""
        return [{"metadata": {"name": name}} for name in (f"serve-{MODEL}", CHECK)]

    def check(
        self, *metrics: Mapping[str, Any], fate: str = "exit-0", name: str = CHECK, dry: str = "", label: str = ""
    ) -> Object:
        """Return an AnalysisTemplate.

        Args:
            metrics: changes of the program's first metric, one metric each, with `fate` for that of its pods.
            fate: what becomes of the pods: `exit-0`, `exit-1`, `run`, or `exit-second` (the second fails).
            name: name of the template.
            dry: name of a metric that cannot fail the run.
            label: label of the metrics' Jobs; a wrong value makes the API server refuse them.
        """
        made = _clean(self._manifests["AnalysisTemplate"])
        made["metadata"]["name"] = name
        base = made["spec"]["metrics"][0]
        made["spec"]["metrics"] = [self._metric(base, {"fate": fate, **change}) for change in metrics or ({},)]
        for metric in made["spec"]["metrics"] if label else ():
            metric["provider"]["job"]["metadata"]["labels"]["label"] = label
        if dry:
            made["spec"]["dryRun"] = [{"metricName": dry}]
        return made

    def _metric(self, base: Object, change: Mapping[str, Any]) -> Object:
        metric = copy.deepcopy(base) | {key: value for key, value in change.items() if key != "fate"}
        template = metric["provider"]["job"]["spec"]["template"]
        template["metadata"]["labels"] |= {FATE: change["fate"]}
        (rule,) = metric["provider"]["job"]["spec"]["podFailurePolicy"]["rules"]
        rule["onExitCodes"]["values"] = [1]  # what scripted pods end with
        (container,) = template["spec"]["containers"]
        container |= {"image": IMAGE, "command": command_of(change["fate"])}
        return metric


def command_of(fate: str) -> list[str]:
    """Return the command of a container with a fate."""
    if fate == "run":
        return ["sleep", "3600"]
    if fate == "exit-second":
        return ["sh", "-c", 'case "$HOSTNAME" in *.2-*) exit 1;; esac']
    if fate == "exit-index-1":
        return ["sh", "-c", '[ "$JOB_COMPLETION_INDEX" != 1 ]']
    return ["sh", "-c", f"exit {fate.removeprefix('exit-')}"]


def _clean(manifest: Object) -> Object:
    made = copy.deepcopy(manifest)
    made["metadata"].pop("namespace", None)
    return made


def _whole(number: str) -> int | float:
    return int(float(number)) if float(number).is_integer() else float(number)
