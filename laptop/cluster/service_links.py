"""The environment variables by which pods find Services (kubernetes.io: Service, "Discovering services")."""

from __future__ import annotations

from collections.abc import Mapping

from laptop.cluster.store import Object, name_of

HOST = "127.0.0.1"
"""Where every Service is; each has ports of its own there."""


def has_address(service: Object) -> bool:
    """Whether a Service has an address of its own: one that is headless, or a name only, has none."""
    spec: dict[str, str] = service["spec"]
    return spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName"


def service_links(service: Object, listening: Mapping[int, int]) -> dict[str, str]:
    """The variables that name a Service, as a kubelet writes them; those in the style of Docker links are left out.

    Args:
        service: the object.
        listening: port of the Service → where that port really is.
    """
    prefix = name_of(service).upper().replace("-", "_")
    ports = [port for port in service["spec"].get("ports") or () if port["port"] in listening]
    if not ports:
        return {}
    links = {f"{prefix}_SERVICE_HOST": HOST, f"{prefix}_SERVICE_PORT": str(listening[ports[0]["port"]])}
    for port in ports:
        if port.get("name"):
            links[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(listening[port["port"]])
    return links
