"""The AWS Load Balancer Controller: registers pods as targets, and sets their readiness gates."""

from __future__ import annotations

import json

from laptop.cluster.alb import GATE, HEALTHY, LoadBalancers, gate_of
from laptop.cluster.conditions import is_true, set_condition
from laptop.cluster.controller import Controller
from laptop.cluster.kinds import INGRESS, NAMESPACE, POD, SERVICE
from laptop.cluster.objects import (
    Object,
    ObjectEvent,
    ObjectStore,
    annotations_of,
    is_deleting,
    name_of,
    namespace_of,
    uid_of,
)
from laptop.cluster.pod_status import report_readiness
from laptop.cluster.ports import annotated_ports, container_port
from laptop.cluster.routes import ACTIONS, PodAddress

_INJECT = "elbv2.k8s.aws/pod-readiness-gate-inject"
_SOON = 0.01  # seconds after the due time
_LOOK = 0.1  # seconds between looks at targets that change


class TargetRegistration(Controller):
    """Controller of the targets of each Service that an Ingress forwards to.

    Args:
        store: objects of the cluster.
        balancers: load balancers of the cluster.
    """

    kind = SERVICE

    def __init__(self, store: ObjectStore, balancers: LoadBalancers) -> None:
        super().__init__(store)
        self._balancers = balancers

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the Services that a changed pod may be a target of, or that a changed Ingress may forward to."""
        namespace = namespace_of(event.object)
        if event.kind is INGRESS:
            return [(namespace, name_of(service)) for service in self._store.find_all(SERVICE, namespace)]
        if event.kind is not POD:
            return []
        return [
            (namespace, name_of(service))
            for service in self._store.find_all(SERVICE, namespace)
            if _selects(service, event.object)
            or self._balancers.is_target(namespace, name_of(service), uid_of(event.object))
        ]

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Service."""
        namespace, name = namespace_of(obj), name_of(obj)
        used_by = forwarding_to(self._store, namespace, name)
        pods = self._store.find_all(POD, namespace) if used_by else []
        chosen = [pod for pod in pods if _selects(obj, pod) and not is_deleting(pod)]
        addresses = [address for pod in chosen if (address := _address(obj, pod)) is not None]
        self._balancers.register(namespace, name, addresses)
        waits = self._balancers.seconds_to_gone(namespace, name)
        for pod in chosen:
            if self._balancers.is_target(namespace, name, uid_of(pod)):
                left = self._balancers.seconds_to_healthy(namespace, name, uid_of(pod), used_by)
                waits += [left] if left else []
            self._report(pod, gate_of(namespace, name), self._balancers.health(namespace, name, uid_of(pod), used_by))
        return min(min(waits) + _SOON, _LOOK) if waits else None

    def _report(self, pod: Object, gate: str, health: str) -> None:
        """Set the condition of a readiness gate, if the pod has it, and its readiness."""
        gates = [each["conditionType"] for each in pod["spec"].get("readinessGates") or ()]
        if gate not in gates or is_true(pod, gate) == (health == HEALTHY):
            return

        def change(target: Object) -> None:
            status = target.setdefault("status", {})
            reason = "" if health == HEALTHY else "Elb.InitialHealthChecking"
            set_condition(status, gate, health == HEALTHY, reason)
            report_readiness(target)

        self._store.modify(POD, pod, change)


def inject_gates(store: ObjectStore, namespace: str, pod: Object) -> Object:
    """Return a new pod with the readiness gates that the webhook of the AWS Load Balancer Controller adds.

    It adds one for each Service that selects the pod now and that an Ingress forwards to. A Service that selects the
    pod later adds none.
    """
    home = store.find(NAMESPACE, "", namespace)
    if ((home or {}).get("metadata", {}).get("labels") or {}).get(_INJECT) != "enabled":
        return pod
    gates = [
        {"conditionType": gate_of(namespace, name_of(service))}
        for service in store.find_all(SERVICE, namespace)
        if _selects(service, pod) and forwarding_to(store, namespace, name_of(service))
    ]
    known = [each for each in pod["spec"].get("readinessGates") or () if not each["conditionType"].startswith(GATE)]
    return {**pod, "spec": {**pod["spec"], "readinessGates": [*known, *gates]}} if gates else pod


def forwarding_to(store: ObjectStore, namespace: str, service: str) -> list[str]:
    """Return the uids of the Ingresses that forward to a Service, by a rule or by an annotation of actions."""
    return [uid_of(ingress) for ingress in store.find_all(INGRESS, namespace) if service in _services_of(ingress)]


def _services_of(ingress: Object) -> set[str]:
    annotations = annotations_of(ingress)
    backends = [ingress["spec"].get("defaultBackend") or {}]
    for rule in ingress["spec"].get("rules") or ():
        backends += [path["backend"] for path in (rule.get("http") or {}).get("paths") or ()]
    found: set[str] = set()
    for backend in backends:
        service = backend.get("service") or {}
        if (service.get("port") or {}).get("name") != "use-annotation":
            found |= {service["name"]} if service else set()
            continue
        try:
            groups = json.loads(annotations[f"{ACTIONS}{service['name']}"])["ForwardConfig"]["TargetGroups"]
            found |= {str(group["ServiceName"]) for group in groups}
        except (KeyError, ValueError, TypeError):
            continue  # the load balancer answers 503 for this rule
    return found


def _selects(service: Object, pod: Object) -> bool:
    selector = service["spec"].get("selector")
    return bool(selector) and selector.items() <= (pod["metadata"].get("labels") or {}).items()


def _address(service: Object, pod: Object) -> PodAddress | None:
    """Return the address of a pod whose containers are ready, or None."""
    ports = service["spec"].get("ports") or ()
    if not ports or not is_true(pod, "ContainersReady"):
        return None
    declared = container_port(pod["spec"]["containers"][0], ports[0].get("targetPort") or ports[0]["port"])
    where = annotated_ports(pod).get(declared or 0)
    return PodAddress(uid_of(pod), where) if where is not None else None
