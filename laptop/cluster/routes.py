"""Routing of requests: Ingress rules, traffic weights, Services, ready pods. Pure functions over objects.

The weights are in the annotation `actions.<service>` of the AWS Load Balancer Controller, which Argo Rollouts writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.cluster.conditions import is_true
from laptop.cluster.kinds import POD, SERVICE
from laptop.cluster.objects import Object, ObjectStore, annotations_of, is_deleting, uid_of
from laptop.cluster.ports import annotated_ports, container_port

ACTIONS = "alb.ingress.kubernetes.io/actions."
"""Prefix of the annotation that holds the traffic weights of a Service."""

_LISTEN_PORTS = "alb.ingress.kubernetes.io/listen-ports"
_CERTIFICATE = "alb.ingress.kubernetes.io/certificate-arn"


@dataclass(frozen=True)
class PodAddress:
    """Address of a ready pod: its uid, and a port on 127.0.0.1."""

    uid: str
    port: int


@dataclass(frozen=True)
class WeightedService:
    """A Service and its share of the requests."""

    service: str
    port: int | str
    weight: int


def forward_action(port: int, weights: Mapping[str, int]) -> str:
    """Return the annotation that divides requests over Services by weight in percent."""
    groups = [{"ServiceName": name, "ServicePort": str(port), "Weight": weight} for name, weight in weights.items()]
    return json.dumps({"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}, separators=(",", ":"))


def tls_hosts(ingress: Object) -> list[str] | None:
    """Return the host names of an Ingress that terminates TLS, or None if it speaks plain HTTP only.

    It terminates TLS if it has `spec.tls`, with or without a `secretName`, or if the AWS Load Balancer Controller's
    annotation `listen-ports` names HTTPS. The certificate is always one of the laptop's authority.
    """
    spec = ingress["spec"]
    listen = annotations_of(ingress).get(_LISTEN_PORTS, "")
    if not spec.get("tls") and "HTTPS" not in listen:
        return None
    hosts = [host for entry in spec.get("tls") or () for host in entry.get("hosts") or ()]
    hosts += [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    return list(dict.fromkeys(hosts))


def listeners_of(ingress: Object) -> list[tuple[str, int]]:
    """Return protocol and port of each listener that an Ingress asks its load balancer for."""
    text = annotations_of(ingress).get(_LISTEN_PORTS)
    found = json.loads(text or '[{"HTTP": 80}]')
    return [(str(protocol), int(port)) for one in found for protocol, port in one.items()]


def certificate_of(ingress: Object) -> str:
    """Return the ARN of the certificate that an Ingress names; "" if it names none."""
    return str(annotations_of(ingress).get(_CERTIFICATE, ""))


def targets_of(ingress: Object, host: str, path: str) -> list[WeightedService]:
    """Return the Services that an Ingress names for a request; [] if there are none.

    Rules for the request's host come first. Otherwise every rule counts, because clients on this machine reach the
    Ingress by its address. The longest path wins.
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


def _backends(ingress: Object, backend: dict[str, Any]) -> list[WeightedService]:
    service = backend.get("service")
    if not service:
        return []
    port = service.get("port") or {}
    if port.get("name") != "use-annotation":
        return [WeightedService(service["name"], port.get("number") or port.get("name") or 0, 100)]
    text = annotations_of(ingress).get(f"{ACTIONS}{service['name']}")
    if not text:
        return []
    try:
        groups = json.loads(text)["ForwardConfig"]["TargetGroups"]
        return [
            WeightedService(group["ServiceName"], _port(group["ServicePort"]), int(group["Weight"])) for group in groups
        ]
    except (ValueError, KeyError, TypeError):
        return []


def _port(text: str | int) -> str | int:
    return int(text) if str(text).isdigit() else text


def addresses_of(store: ObjectStore, namespace: str, service: str, port: int | str) -> list[PodAddress]:
    """Return the ready pods behind a port of a Service; [] if the Service or port does not exist."""
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
        declared = container_port(pod["spec"]["containers"][0], wanted)
        where = annotated_ports(pod).get(declared or 0)
        if where is not None:
            result.append(PodAddress(uid_of(pod), where))
    return result
