"""Service link variables (kubernetes.io: Service, "Discovering services"): `<NAME>_SERVICE_HOST` and `_PORT`.

Each port of a Service gets a port of 127.0.0.1, which is known at once and answers a moment later.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

from aiohttp import web

from laptop.cluster.kinds import SERVICE
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, name_of, namespace_of, uid_of

Forward = Callable[[web.BaseRequest, str, str, int], Awaitable[web.StreamResponse]]

_CLOSING = 5.0  # seconds that a closed listener waits for its requests


class ServiceLinks:
    """Ports of Services on 127.0.0.1, and the variables that name them.

    Args:
        store: objects of the cluster.
        forward: forwards a request to a namespace, Service and port.
    """

    def __init__(self, store: ObjectStore, forward: Forward) -> None:
        self._store = store
        self._forward = forward
        self._doors: dict[str, dict[int, _Door]] = {}  # uid of a Service → its port → where that is
        self._tasks: set[asyncio.Task[None]] = set()
        store.listen(self._on_event)

    def variables(self, namespace: str) -> dict[str, str]:
        """Return the variables of the Services of a namespace."""
        found: dict[str, str] = {}
        for service in self._store.find_all(SERVICE, namespace):
            doors = self._doors.get(uid_of(service), {})
            prefix = name_of(service).upper().replace("-", "_")
            ports = [port for port in service["spec"].get("ports") or () if port["port"] in doors]
            if not ports:
                continue
            found |= {f"{prefix}_SERVICE_HOST": "127.0.0.1"}
            found |= {f"{prefix}_SERVICE_PORT": str(doors[ports[0]["port"]].port)}
            for port in ports:
                if port.get("name"):
                    name = f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"
                    found[name] = str(doors[port["port"]].port)
        return found

    async def close(self) -> None:
        """Close every port at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for doors in self._doors.values():
            for door in doors.values():
                await door.close()

    def _on_event(self, event: ObjectEvent) -> None:
        if event.kind is not SERVICE:
            return
        service, gone = event.object, event.type == "DELETED"
        uid, namespace, name = uid_of(service), namespace_of(service), name_of(service)
        doors = self._doors.setdefault(uid, {})
        wanted = {port["port"] for port in service["spec"].get("ports") or ()} if _has_address(service) else set()
        for port in wanted - doors.keys() if not gone else ():

            async def serve(request: web.BaseRequest, port: int = port) -> web.StreamResponse:
                return await self._forward(request, namespace, name, port)

            doors[port] = door = _Door.open(serve)
            self._begin(door.answer())
        for port in [*doors] if gone else [*(doors.keys() - wanted)]:
            self._begin(doors.pop(port).close())
        if gone:
            del self._doors[uid]

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True)
class _Door:
    """Where a port of a Service listens."""

    socket: socket.socket
    runner: web.ServerRunner
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def open(cls, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> _Door:
        """Take a free port; connections made before it answers wait."""
        listening = socket.create_server(("127.0.0.1", 0))
        return cls(listening, web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=_CLOSING))

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    async def answer(self) -> None:
        async with self._turn:
            await self.runner.setup()
            await web.SockSite(self.runner, self.socket).start()

    async def close(self) -> None:
        """Take no more requests, and let those under way end."""
        async with self._turn:
            await self.runner.cleanup()
            self.socket.close()


def _has_address(service: Object) -> bool:
    spec: dict[str, str] = service["spec"]
    return spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName"
