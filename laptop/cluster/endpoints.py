"""Endpoints: the addresses of the pods behind each Service."""

from __future__ import annotations

from typing import Any

from laptop.cluster.conditions import is_true
from laptop.cluster.controller import Controller
from laptop.cluster.kinds import ENDPOINTS, POD, SERVICE
from laptop.cluster.objects import Object, ObjectEvent, is_deleting, name_of, namespace_of, uid_of
from laptop.cluster.ports import annotated_ports, container_port

_LIVE = ("Pending", "Running", "")


class ServiceEndpoints(Controller):
    """Controller of Services: keeps an Endpoints object of the same name for each one with a selector.

    All pods share one address here, so each pod has a subset with its own ports.
    """

    kind = SERVICE

    def concerns(self, event: ObjectEvent) -> list[tuple[str, str]]:
        """Return the Services whose selector a changed pod matches."""
        if event.kind is not POD:
            return []
        labels = (event.object["metadata"].get("labels") or {}).items()
        namespace = namespace_of(event.object)
        return [
            (namespace, name_of(service))
            for service in self._store.find_all(SERVICE, namespace)
            if (selector := service["spec"].get("selector")) and selector.items() <= labels
        ]

    def reconcile(self, obj: Object) -> float | None:
        """Reconcile one Service."""
        selector = obj["spec"].get("selector")
        if not selector or is_deleting(obj):
            return None
        namespace, name = namespace_of(obj), name_of(obj)
        pods = [
            pod
            for pod in self._store.find_all(POD, namespace)
            if selector.items() <= (pod["metadata"].get("labels") or {}).items()
            and not is_deleting(pod)
            and (pod.get("status") or {}).get("phase", "") in _LIVE
        ]
        subsets = [subset for pod in pods if (subset := _subset(obj, pod))]
        found = self._store.find(ENDPOINTS, namespace, name)
        if found is None:
            metadata: dict[str, Any] = {"name": name}
            if obj["metadata"].get("labels"):
                metadata["labels"] = dict(obj["metadata"]["labels"])
            self._store.create(
                ENDPOINTS, namespace, {"metadata": metadata, **({"subsets": subsets} if subsets else {})}
            )
        elif found.get("subsets", []) != subsets:
            self._store.modify(ENDPOINTS, found, lambda target: _set(target, subsets))
        return None

    def forget(self, obj: Object) -> None:
        """Delete the Endpoints of a deleted Service."""
        found = self._store.find(ENDPOINTS, namespace_of(obj), name_of(obj))
        if found is not None:
            self._store.remove(ENDPOINTS, found)


def _set(target: Object, subsets: list[Object]) -> None:
    target["subsets"] = subsets
    if not subsets:
        del target["subsets"]


def _subset(service: Object, pod: Object) -> Object | None:
    """Return the subset of one pod, or None if it has none of the Service's ports or no address yet."""
    chosen = annotated_ports(pod)
    ports = []
    for port in service["spec"].get("ports") or ():
        declared = container_port(pod["spec"]["containers"][0], port.get("targetPort") or port["port"])
        if declared is not None:
            named = {"name": port["name"]} if port.get("name") else {}
            ports.append({**named, "port": chosen.get(declared, declared), "protocol": port.get("protocol", "TCP")})
    address = (pod.get("status") or {}).get("podIP")
    if not ports or not address:
        return None
    reference = {"kind": POD.name, "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod)}
    key = "addresses" if is_true(pod, "Ready") else "notReadyAddresses"
    return {key: [{"ip": address, "targetRef": reference}], "ports": ports}
