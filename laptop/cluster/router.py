"""Takes requests to pods: a listening port for each Ingress and each port of a Service, and an HTTP proxy that knows
the names of Services.

A request goes to one pod and is answered or failed by it. Only when no connection could be made, so that nothing was
sent, another pod is tried.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from laptop.cluster.kinds import INGRESS, SERVICE
from laptop.cluster.service_links import has_address, service_links
from laptop.cluster.store import Event, Object, Store, name_of, namespace_of, uid_of
from laptop.cluster.traffic import Endpoint, Target, endpoints_of, targets_of

_log = logging.getLogger(__name__)

# RFC 9110 section 7.6.1: what concerns one connection only.
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_SMALL = 256 * 1024  # bytes; bodies up to this are passed on in one piece
_IDLE = 2.0  # seconds; below any server's own, so that no request is sent into a connection that the server closes
_CLOSING = 5.0  # seconds that a closed listener waits for its requests


class Router:
    """The way from the outside, and between pods, to the pods behind Services."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: dict[str, web.ServerRunner] = {}
        self._doors: dict[str, dict[int, _Door]] = {}  # uid of a Service → its port → where that is
        self._under_way: Counter[str] = Counter()
        self._idle: dict[str, list[asyncio.Future[None]]] = {}
        self._turns: dict[str, dict[str, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._proxy: web.ServerRunner | None = None
        self._proxy_port = 0
        self._closing = False

    @property
    def proxy(self) -> str:
        """The address of the HTTP proxy for pods."""
        return f"http://127.0.0.1:{self._proxy_port}"

    async def start(self) -> None:
        """Opens the proxy, and a port for every Ingress and Service from now on."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=5.0),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._proxy, self._proxy_port = await _listen(self._serve_proxy)
        self._store.listen(self._on_event)

    async def close(self) -> None:
        """Closes everything at once."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        doors = [door for doors in self._doors.values() for door in doors.values()]
        runners = [*self._listeners.values(), *(door.runner for door in doors), *([self._proxy] if self._proxy else [])]
        for runner in runners:
            await runner.cleanup()
        for door in doors:  # those that had not answered yet; the loop must let go of a socket before it is closed
            door.socket.close()
        if self._session is not None:
            await self._session.close()

    async def drained(self, uid: str, seconds: float) -> None:
        """Waits until no request is under way to the pod with that uid, for at most `seconds`."""
        if not self._under_way[uid]:
            return
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.setdefault(uid, []).append(idle)
        await asyncio.wait([idle], timeout=seconds)

    def links(self, namespace: str) -> dict[str, str]:
        """The variables by which a pod of a namespace finds the Services that are there now."""
        links: dict[str, str] = {}
        for service in self._store.find_all(SERVICE, namespace):
            doors = self._doors.get(uid_of(service), {})
            links |= service_links(service, {port: door.port for port, door in doors.items()})
        return links

    def _on_event(self, event: Event) -> None:
        if self._closing:
            return
        uid = uid_of(event.object)
        if event.kind is SERVICE:
            self._open_doors(event.object, gone=event.type == "DELETED")
        if event.kind is not INGRESS:
            return
        if event.type == "ADDED":
            self._begin(self._open(event.object))
        elif event.type == "DELETED" and uid in self._listeners:
            self._turns.pop(uid, None)
            self._begin(self._listeners.pop(uid).cleanup())

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, ingress: Object) -> None:
        uid, namespace, name = uid_of(ingress), namespace_of(ingress), name_of(ingress)

        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            return await self._serve_ingress(namespace, name, request)

        runner, port = await _listen(serve)
        self._listeners[uid] = runner
        address = {"ip": "127.0.0.1", "ports": [{"port": port, "protocol": "TCP"}]}

        def report(target: Object) -> None:
            target.setdefault("status", {})["loadBalancer"] = {"ingress": [address]}

        if self._store.modify(INGRESS, ingress, report) is None:  # deleted meanwhile
            del self._listeners[uid]
            await runner.cleanup()

    def _open_doors(self, service: Object, *, gone: bool) -> None:
        """Gives each port of a Service a port of 127.0.0.1, which is known at once and answers a moment later."""
        uid, namespace, name = uid_of(service), namespace_of(service), name_of(service)
        doors = self._doors.setdefault(uid, {})
        wanted = {port["port"] for port in service["spec"].get("ports") or ()} if has_address(service) else set()
        for port in wanted - doors.keys() if not gone else ():

            async def serve(request: web.BaseRequest, port: int = port) -> web.StreamResponse:
                return await self._forward(request, namespace, name, port, "service")

            doors[port] = door = _Door.open(serve)
            self._begin(door.answer())
        for port in [*doors] if gone else [*(doors.keys() - wanted)]:
            self._begin(doors.pop(port).close())
        if gone:
            del self._doors[uid]

    async def _serve_ingress(self, namespace: str, name: str, request: web.BaseRequest) -> web.StreamResponse:
        ingress = self._store.find(INGRESS, namespace, name)
        if ingress is None:
            return _problem(503, f"ingress {namespace}/{name} is gone")
        host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
        targets = targets_of(ingress, host, request.path)
        if not targets:
            return _problem(404, f"ingress {namespace}/{name} has no rule for {request.path}")
        target = self._choose(uid_of(ingress), targets)
        return await self._forward(request, namespace, target.service, target.port, "ingress")

    async def _serve_proxy(self, request: web.BaseRequest) -> web.StreamResponse:
        host, _, port = request.headers.get("Host", "").partition(":")
        labels = host.split(".")
        in_cluster = labels[2:] in (["svc"], ["svc", "cluster", "local"]) or len(labels) == 2
        if not in_cluster:
            return _problem(502, f"{host}: pods of the small cluster reach Services by plain HTTP and nothing else")
        return await self._forward(request, labels[1], labels[0], int(port or 80), "service")

    def _choose(self, uid: str, targets: Sequence[Target]) -> Target:
        """Smooth weighted round robin, so that of every hundred requests each Service gets its weight exactly."""
        credit = self._turns.setdefault(uid, {})
        total = sum(target.weight for target in targets)
        if not total:
            return targets[0]
        for target in targets:
            credit[target.service] = credit.get(target.service, 0.0) + target.weight
        chosen = max((target for target in targets if target.weight), key=lambda target: credit[target.service])
        credit[chosen.service] -= total
        return chosen

    async def _forward(
        self, request: web.BaseRequest, namespace: str, service: str, port: int | str, way: str
    ) -> web.StreamResponse:
        tried: set[str] = set()
        # Read once, for it must be there again when the first pod cannot be reached.
        is_small = request.content_length is not None and request.content_length <= _SMALL
        body = await request.read() if is_small and request.can_read_body else None
        while True:
            endpoints = [
                endpoint
                for endpoint in endpoints_of(self._store, namespace, service, port)
                if endpoint.uid not in tried
            ]
            if not endpoints:
                return _problem(503, f"no pod is ready behind service {namespace}/{service} port {port}")
            # The pod with the fewest requests under way; of equals, the one whose last turn is longest ago.
            turns = self._turns.setdefault(f"{way}/{namespace}/{service}", {})
            endpoint = min(endpoints, key=lambda item: (self._under_way[item.uid], turns.get(item.uid, 0.0)))
            turns[endpoint.uid] = max(turns.values(), default=0.0) + 1.0
            for gone in turns.keys() - {item.uid for item in endpoints} - tried:
                del turns[gone]
            self._under_way[endpoint.uid] += 1
            try:
                return await self._exchange(request, endpoint, body)
            except aiohttp.ClientConnectorError:
                tried.add(endpoint.uid)
            except (aiohttp.ClientError, TimeoutError) as error:
                return _problem(502, f"the pod broke off: {error or type(error).__name__}")
            finally:
                self._finished(endpoint.uid)

    async def _exchange(
        self, request: web.BaseRequest, endpoint: Endpoint, small_body: bytes | None
    ) -> web.StreamResponse:
        assert self._session is not None
        headers = _end_to_end(request.headers)
        peer = request.remote or "127.0.0.1"
        earlier = request.headers.get("X-Forwarded-For")
        headers["X-Forwarded-For"] = f"{earlier}, {peer}" if earlier else peer
        headers["X-Forwarded-Proto"] = "http"
        body: bytes | AsyncIterator[bytes] | None = small_body
        if body is None and request.can_read_body:
            body = request.content.iter_any()
        target = request.raw_path if request.raw_path.startswith("/") else request.path_qs
        url = URL(f"http://127.0.0.1:{endpoint.port}{target}", encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            length = answer.content_length
            said = _end_to_end(answer.headers)
            if (length is not None and length <= _SMALL) or request.method == "HEAD":
                content = await answer.read()
                return web.Response(status=answer.status, reason=answer.reason, headers=said, body=content)
            stream = web.StreamResponse(status=answer.status, reason=answer.reason, headers=said)
            await stream.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await stream.write(chunk)
                await stream.write_eof()
            except aiohttp.ClientError:  # half an answer must not look like a whole one
                if request.transport is not None:
                    request.transport.abort()
            return stream

    def _finished(self, uid: str) -> None:
        self._under_way[uid] -= 1
        if self._under_way[uid] <= 0:
            del self._under_way[uid]
            for idle in self._idle.pop(uid, ()):
                if not idle.done():
                    idle.set_result(None)


@dataclass(frozen=True)
class _Door:
    """Where a port of a Service listens."""

    socket: socket.socket
    runner: web.ServerRunner
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def open(cls, handler: Handler) -> _Door:
        """Takes a free port; who connects before it answers waits."""
        listening = socket.create_server(("127.0.0.1", 0))
        return cls(listening, web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=_CLOSING))

    @property
    def port(self) -> int:
        """Of 127.0.0.1."""
        return int(self.socket.getsockname()[1])

    async def answer(self) -> None:
        """Answers from now on."""
        async with self._turn:
            await self.runner.setup()
            await web.SockSite(self.runner, self.socket).start()

    async def close(self) -> None:
        """Takes no more requests, and lets those under way end."""
        async with self._turn:
            await self.runner.cleanup()
            self.socket.close()


async def _listen(
    handler: Handler,
) -> tuple[web.ServerRunner, int]:
    """A server on a free port of 127.0.0.1."""
    server = web.Server(handler, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=_CLOSING)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, int(runner.addresses[0][1])


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """A copy without what concerns one connection only."""
    given: CIMultiDict[str] = CIMultiDict(headers)
    dropped = _HOP_BY_HOP | {name.strip().lower() for name in given.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in given.items() if name.lower() not in dropped)


def _problem(status: int, what: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": what}), content_type="application/json")
