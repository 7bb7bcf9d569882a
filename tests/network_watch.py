"""Run a module and note every name look-up and connection of its Python code that leaves this machine.

Usage: `python -m tests.network_watch LOG MODULE ARGUMENTS…`. Each event is one line of LOG.
"""

from __future__ import annotations

import ipaddress
import runpy
import sys
from pathlib import Path
from typing import Any

_HOST = {
    "socket.connect": lambda arguments: arguments[1],
    "socket.sendto": lambda arguments: arguments[1],
    "socket.getaddrinfo": lambda arguments: arguments[0],
    "socket.gethostbyname": lambda arguments: arguments[0],
    "socket.gethostbyaddr": lambda arguments: arguments[0],
}
"""Audit event → its host, or its address with the host first."""


def is_local(host: Any) -> bool:
    """Return True for a host on this machine: a Unix socket, `localhost`, a loopback address, or no host at all."""
    if isinstance(host, tuple):
        host = host[0] if host else ""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in (None, "", "localhost") or str(host).startswith(("/", "\0")):
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def watch(log: Path) -> None:
    """Note, from now on, what leaves this machine."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _HOST and not is_local(_HOST[event](arguments)):
            with log.open("a") as lines:
                lines.write(f"{event} {_HOST[event](arguments)!r} by {sys.argv}\n")

    sys.addaudithook(note)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.argv[:] = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
