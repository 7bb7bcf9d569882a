"""Where a request goes: Ingress rules, the weights that the load balancer's annotation names, Services, ready pods.

Pure functions over objects. The annotation is the AWS Load Balancer Controller's `actions.<service>`, which Argo
Rollouts writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.cluster.conditions import is_true
from laptop.cluster.kinds import POD, SERVICE
from laptop.cluster.pods import PORT_ANNOTATION
from laptop.cluster.store import Object, Store, is_deleting, uid_of

ACTIONS = "alb.ingress.kubernetes.io/actions."


@dataclass(frozen=True)
class Endpoint:
    """A ready pod: its uid, and its port on 127.0.0.1."""

    uid: str
    port: int


@dataclass(frozen=True)
class Target:
    """A Service as the goal of a share of the requests."""

    service: str
    port: int | str
    weight: int


def forward_action(port: int, weights: Mapping[str, int]) -> str:
    """The annotation's value that divides requests over Services by weight in percent."""
    groups = [{"ServiceName": name, "ServicePort": str(port), "Weight": weight} for name, weight in weights.items()]
    return json.dumps({"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}, separators=(",", ":"))


def targets_of(ingress: Object, host: str, path: str) -> list[Target]:
    """The Services that an Ingress has for a request, [] when none.

    Rules for the request's host come first; else any rule, because here a client reaches the Ingress by its address.
    The longest path wins.
    """
    rules: Sequence[dict[str, Any]] = ingress["spec"].get("rules") or ()
    for chosen in ([rule for rule in rules if rule.get("host") == host], rules):
        found = [
            (len(entry.get("path") or "/"), entry["backend"])
            for rule in chosen
            for entry in (rule.get("http") or {}).get("paths") or ()
            if _matches(entry, path)
        ]
        if found:
            return _backends(ingress, max(found, key=lambda item: item[0])[1])
    default = ingress["spec"].get("defaultBackend")
    return _backends(ingress, default) if default else []


def _matches(entry: dict[str, Any], path: str) -> bool:
    wanted, type_ = entry.get("path") or "/", entry.get("pathType")
    if type_ == "Exact":
        return path == wanted
    prefix = wanted.rstrip("*").rstrip("/")
    if type_ == "ImplementationSpecific" and "*" not in wanted:
        return path == wanted
    return path == prefix or path.startswith(f"{prefix}/")


def _backends(ingress: Object, backend: dict[str, Any]) -> list[Target]:
    service = backend.get("service")
    if not service:
        return []
    port = service.get("port") or {}
    if port.get("name") != "use-annotation":
        return [Target(service["name"], port.get("number") or port.get("name") or 0, 100)]
    text = (ingress["metadata"].get("annotations") or {}).get(f"{ACTIONS}{service['name']}")
    if not text:
        return []
    try:
        groups = json.loads(text)["ForwardConfig"]["TargetGroups"]
        return [Target(group["ServiceName"], _port(group["ServicePort"]), int(group["Weight"])) for group in groups]
    except (ValueError, KeyError, TypeError):
        return []


def _port(said: str | int) -> str | int:
    return int(said) if str(said).isdigit() else said


def endpoints_of(store: Store, namespace: str, service: str, port: int | str) -> list[Endpoint]:
    """The ready pods behind one port of a Service; [] when there is no such Service or port."""
    found = store.find(SERVICE, namespace, service)
    if found is None or not found["spec"].get("selector"):
        return []
    ports = found["spec"].get("ports") or ()
    match = next((item for item in ports if port in (item["port"], item.get("name"))), None)
    if match is None:
        return []
    wanted = match.get("targetPort") or match["port"]
    selector = found["spec"]["selector"].items()
    result = []
    for pod in store.find_all(POD, namespace):
        labels = pod["metadata"].get("labels") or {}
        if is_deleting(pod) or not is_true(pod, "Ready") or not selector <= labels.items():
            continue
        declared = (pod["spec"]["containers"][0].get("ports") or [{}])[0]
        where = (pod["metadata"].get("annotations") or {}).get(PORT_ANNOTATION)
        if where and wanted in (declared.get("name"), declared.get("containerPort")):
            result.append(Endpoint(uid_of(pod), int(where)))
    return result
