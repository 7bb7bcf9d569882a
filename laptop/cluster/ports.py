"""Ports of containers on 127.0.0.1, which all pods share.

A container declares `containerPort`s and many pods declare the same ones, so each gets its own free ports. The process
learns them from its variables and arguments: a variable, or a word of `command` and `args`, that is the number of a
declared containerPort is replaced; so is a word that ends in `=<number>` or `:<number>`. `PORT_<NAME>` holds the port
of that name.
"""

from __future__ import annotations

import json
import random
import re
import socket
from collections.abc import Mapping
from typing import Any

PORTS_ANNOTATION = "mlops.laptop/ports"
"""Annotation of a pod: JSON object, containerPort → port on 127.0.0.1."""

# Below the range from which kernels take ports for outgoing connections, so that none is taken between the choice and
# the process's bind, except by a program that chooses it explicitly; then the container is started again.
_RANGE = range(20_000, 32_000)


class PortPool:
    """Ports that containers of this cluster hold."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def allocate(self, container: Mapping[str, Any]) -> dict[int, int]:
        """Return a free port for every containerPort of a container.

        Raises:
            OSError: there are no free ports.
        """
        return {port["containerPort"]: self._take() for port in container.get("ports") or ()}

    def release(self, ports: Mapping[int, int]) -> None:
        """Give ports back."""
        self._taken -= set(ports.values())

    def _take(self) -> int:
        for port in random.sample(_RANGE, 200):
            if port in self._taken:
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            self._taken.add(port)
            return port
        raise OSError("no free port on 127.0.0.1")


def container_port(container: Mapping[str, Any], port: int | str) -> int | None:
    """Return the containerPort that a name or a number stands for, or None if the container does not declare it."""
    for declared in container.get("ports") or ():
        if port in (declared.get("name"), declared["containerPort"]):
            return int(declared["containerPort"])
    return None


def port_variables(container: Mapping[str, Any], ports: Mapping[int, int]) -> dict[str, str]:
    """Return `PORT_<NAME>` for every named port of a container."""
    return {
        f"PORT_{port['name'].upper().replace('-', '_')}": str(ports[port["containerPort"]])
        for port in container.get("ports") or ()
        if port.get("name")
    }


def replace_port(value: str, ports: Mapping[int, int]) -> str:
    """Return the port that a declared containerPort stands for; any other text is unchanged."""
    return str(ports[int(value)]) if value.isascii() and value.isdigit() and int(value) in ports else value


def replace_port_in_word(word: str, ports: Mapping[int, int]) -> str:
    """Replace a declared containerPort that is a whole word of a command line, or its end after `=` or `:`."""
    match = re.fullmatch(r"(.*[=:])?([0-9]{1,5})", word, re.DOTALL)
    return f"{match[1] or ''}{replace_port(match[2], ports)}" if match else word


def annotated_ports(pod: Mapping[str, Any]) -> dict[int, int]:
    """Return the ports that a pod's annotation holds, {} before the pod is ready."""
    text = (pod["metadata"].get("annotations") or {}).get(PORTS_ANNOTATION)
    return {int(declared): port for declared, port in json.loads(text).items()} if text else {}
