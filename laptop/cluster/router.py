"""Load balancer of the cluster: routes requests to the pods behind Ingresses and Services.

Every Ingress gets a port of 127.0.0.1, and a second one for HTTPS if it asks for TLS. Pods reach Services by their
cluster DNS names through a proxy, which is named by the standard variables (`http_proxy`). Requests are forwarded as
they arrive, and responses are streamed. A request that may have been sent is never retried: another pod is tried only
if no connection was made.

A realistic router has AWS's load balancers instead: an Ingress gets a DNS name, and only the proxy, which stands in for
the private network, leads to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from laptop.aws.load_balancing_api import REPORT
from laptop.cluster.alb import DOMAIN, LoadBalancers
from laptop.cluster.balancer_report import describe_balancers
from laptop.cluster.certificates import CertificateAuthority
from laptop.cluster.kinds import INGRESS
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, name_of, namespace_of, uid_of
from laptop.cluster.routes import PodAddress, WeightedService, addresses_of, targets_of, tls_hosts
from laptop.cluster.tunnel import serve_tunnel

_log = logging.getLogger(__name__)

# RFC 9110 section 7.6.1: headers that concern one connection only.
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

_NAMES = "/laptop/names/"
_SMALL = 256 * 1024  # bytes; bodies up to this are passed on in one piece
_IDLE = 2.0  # seconds; below any server's own, so that no request is sent into a connection that the server closes
_SLOW = 5.0  # seconds after which a request is logged
_CLOSING = 5.0  # seconds that a closed listener waits for its requests


class Router:
    """Router of requests to ready pods, from outside and from other pods.

    Args:
        store: objects of the cluster.
        authority: signs the certificates of Ingresses with TLS.
        balancers: load balancers of a realistic cluster.
        region: returns the region in their names.
    """

    def __init__(
        self,
        store: ObjectStore,
        authority: CertificateAuthority,
        balancers: LoadBalancers | None = None,
        region: Callable[[], str] = lambda: "eu-west-1",
    ) -> None:
        self._balancers = balancers
        self._region = region
        self._store = store
        self._authority = authority
        self._listeners: dict[str, list[web.ServerRunner]] = {}  # uid of an Ingress → HTTP, then HTTPS if it has TLS
        self._under_way: Counter[str] = Counter()
        self._idle: dict[str, list[asyncio.Future[None]]] = {}
        self._turns: dict[str, dict[str, float]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None
        self._proxy: web.ServerRunner | None = None
        self._proxy_port = 0
        self._closing = False

    @property
    def proxy(self) -> str:
        """Address of the HTTP proxy for pods."""
        return f"http://127.0.0.1:{self._proxy_port}"

    async def start(self) -> None:
        """Open the proxy, and ports for Ingresses from now on."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=5.0),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._proxy = await _listen(self._serve_proxy)
        self._proxy_port = _port_of(self._proxy)
        self._store.listen(self._on_event)

    async def close(self) -> None:
        """Close everything at once."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        runners = [runner for runners in self._listeners.values() for runner in runners]
        for runner in [*runners, *([self._proxy] if self._proxy else [])]:
            await runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def drained(self, uid: str, seconds: float) -> None:
        """Wait until the pod with this uid has no requests in flight, for at most `seconds`."""
        if not self._under_way[uid]:
            return
        idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.setdefault(uid, []).append(idle)
        await asyncio.wait([idle], timeout=seconds)

    def _on_event(self, event: ObjectEvent) -> None:
        if self._closing or event.kind is not INGRESS:
            return
        if self._balancers is not None:
            self._report_balancer(self._balancers, event)
        elif event.type == "DELETED":
            self._turns.pop(uid_of(event.object), None)
            self._begin(self._shut(uid_of(event.object)))
        else:
            self._begin(self._open(event.object))

    def _report_balancer(self, balancers: LoadBalancers, event: ObjectEvent) -> None:
        """Write the DNS name of a load balancer into its Ingress at once, as the AWS Load Balancer Controller does."""
        if event.type == "DELETED":
            self._turns.pop(uid_of(event.object), None)
            balancers.forget(uid_of(event.object))
            return
        hostname = balancers.see(event.object, self._region())
        wanted = {"ingress": [{"hostname": hostname}]}
        if (event.object.get("status") or {}).get("loadBalancer") != wanted:

            def report(target: Object) -> None:
                target.setdefault("status", {})["loadBalancer"] = wanted

            self._store.modify(INGRESS, event.object, report)

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, ingress: Object) -> None:
        """Open the ports of an Ingress that are not open yet, and report them in its status."""
        uid, namespace, name = uid_of(ingress), namespace_of(ingress), name_of(ingress)

        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            return await self._serve_ingress(namespace, name, request)

        async with self._opening:
            runners = self._listeners.setdefault(uid, [])
            hosts = tls_hosts(ingress)
            before = len(runners)
            if not runners:
                runners.append(await _listen(serve))
            if hosts is not None and len(runners) == 1:
                runners.append(await _listen(serve, self._authority.server_context(*hosts)))
            if len(runners) == before:
                return
            ports = [{"port": _port_of(runner), "protocol": "TCP"} for runner in runners]

        def report(target: Object) -> None:
            target.setdefault("status", {})["loadBalancer"] = {"ingress": [{"ip": "127.0.0.1", "ports": ports}]}

        if self._store.modify(INGRESS, ingress, report) is None:  # it was deleted
            await self._shut(uid)

    async def _shut(self, uid: str) -> None:
        async with self._opening:
            runners = self._listeners.pop(uid, [])
        for runner in runners:
            await runner.cleanup()

    async def _serve_ingress(self, namespace: str, name: str, request: web.BaseRequest) -> web.StreamResponse:
        ingress = self._store.find(INGRESS, namespace, name)
        if ingress is None:
            return _problem(503, f"ingress {namespace}/{name} was deleted")
        host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
        targets = targets_of(ingress, host, request.path)
        if not targets:
            return _problem(404, f"ingress {namespace}/{name} has no rule for {request.path}")
        target = self._choose(uid_of(ingress), targets)
        return await self._forward(request, namespace, target.service, target.port, "ingress")

    async def _serve_balancer(
        self, balancers: LoadBalancers, host: str, request: web.BaseRequest
    ) -> web.StreamResponse:
        """Forward a request for the DNS name of a load balancer."""
        if not balancers.resolve(host, "private network"):
            return _problem(502, f"{host}: no such name")
        uid = balancers.find(host)
        ingress = next((one for one in self._store.find_all(INGRESS) if uid_of(one) == uid), None)
        if uid is None or ingress is None or not balancers.is_active(uid):
            return _problem(504, f"{host}: the connection timed out: the load balancer is not active")
        targets = targets_of(balancers.in_force(ingress), "", request.path)
        if not targets:
            return _problem(503, f"{host}: no target group for {request.path}")
        target = self._choose(uid, targets)
        return await self._forward(request, namespace_of(ingress), target.service, target.port, uid)

    def _report(self, path: str) -> web.Response:
        """Answer a question about load balancers, or a look-up of a name by a program outside of the network."""
        if self._balancers is None:
            return _problem(404, "this cluster has no load balancers of AWS")
        if path == REPORT:
            return web.json_response(describe_balancers(self._store, self._balancers))
        found = path.startswith(_NAMES) and self._balancers.resolve(path.removeprefix(_NAMES), "internet")
        return web.json_response({}) if found else _problem(404, "no such name")

    async def _serve_proxy(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward a request for `http://<service>.<namespace>[.svc[.cluster.local]][:port]`, and refuse any other.

        CONNECT opens a tunnel to a pod of the Service. A realistic router also forwards requests for load balancers.
        """
        # CONNECT names its destination as the target, and HTTP/1.0 has no Host.
        authority = request.raw_path if request.method == "CONNECT" else request.headers.get("Host", "")
        host, _, port = authority.partition(":")
        if host == "127.0.0.1" and request.path.startswith("/laptop/"):
            return self._report(request.path)
        if self._balancers is not None and host.lower().endswith(DOMAIN) and request.method != "CONNECT":
            return await self._serve_balancer(self._balancers, host, request)
        service, _, rest = host.partition(".")
        namespace, _, suffix = rest.partition(".")
        if not namespace or suffix not in ("", "svc", "svc.cluster.local"):
            return _problem(
                502,
                f"{host or request.path}: this proxy reaches only Services: expected "
                "http://<service>.<namespace>.svc[:port]",
            )
        if request.method == "CONNECT":
            return await self._tunnel(request, namespace, service, int(port or 443))
        return await self._forward(request, namespace, service, int(port or 80), "service")

    async def _tunnel(self, request: web.BaseRequest, namespace: str, service: str, port: int) -> web.StreamResponse:
        """Connect a client to a ready pod of a Service; unlike requests, connections are not moved to another pod."""
        for endpoint in self._addresses(namespace, service, port, "service"):
            try:
                return await serve_tunnel(request, endpoint.port)
            except ConnectionRefusedError:
                continue
        return _problem(503, f"no pod is ready behind service {namespace}/{service} port {port}")

    def _choose(self, uid: str, targets: Sequence[WeightedService]) -> WeightedService:
        """Choose by smooth weighted round robin: of every hundred requests each Service gets exactly its weight."""
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
        # Read once, because it is needed again if the first pod cannot be reached.
        is_small = request.content_length is not None and request.content_length <= _SMALL
        body = await request.read() if is_small and request.can_read_body else None
        while True:
            endpoints = [
                endpoint for endpoint in self._addresses(namespace, service, port, way) if endpoint.uid not in tried
            ]
            if not endpoints:
                return _problem(503, f"no pod is ready behind service {namespace}/{service} port {port}")
            # The pod with the fewest requests in flight; on a tie, the least recently used one.
            turns = self._turns.setdefault(f"{way}/{namespace}/{service}", {})
            endpoint = min(endpoints, key=lambda item: (self._under_way[item.uid], turns.get(item.uid, 0.0)))
            turns[endpoint.uid] = max(turns.values(), default=0.0) + 1.0
            for gone in turns.keys() - {item.uid for item in endpoints} - tried:
                del turns[gone]
            self._under_way[endpoint.uid] += 1
            began = time.monotonic()
            try:
                return await self._exchange(request, endpoint, body)
            except aiohttp.ClientConnectorError:
                tried.add(endpoint.uid)
            except (aiohttp.ClientError, TimeoutError) as error:
                return _problem(502, f"the connection to the pod broke: {error or type(error).__name__}")
            finally:
                self._finished(endpoint.uid)
                if (seconds := time.monotonic() - began) > _SLOW:
                    where = f"{namespace}/{service}, pod {endpoint.uid} at port {endpoint.port}"
                    _log.warning("%s %s to %s took %.1f s", request.method, request.path, where, seconds)

    def _addresses(self, namespace: str, service: str, port: int | str, way: str) -> list[PodAddress]:
        """Return the pods that get requests: ready ones, or the targets of a load balancer, whose uid is `way`."""
        if self._balancers is None or way == "service":
            return addresses_of(self._store, namespace, service, port)
        return self._balancers.routable(namespace, service, [way])

    async def _exchange(
        self, request: web.BaseRequest, endpoint: PodAddress, small_body: bytes | None
    ) -> web.StreamResponse:
        assert self._session is not None
        headers = _end_to_end(request.headers)
        peer = request.remote or "127.0.0.1"
        earlier = request.headers.get("X-Forwarded-For")
        headers["X-Forwarded-For"] = f"{earlier}, {peer}" if earlier else peer
        headers["X-Forwarded-Proto"] = "https" if request.secure else "http"
        body: bytes | AsyncIterator[bytes] | None = small_body
        if body is None and request.can_read_body:
            body = request.content.iter_any()
        target = request.raw_path if request.raw_path.startswith("/") else request.path_qs
        url = URL(f"http://127.0.0.1:{endpoint.port}{target}", encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            length = answer.content_length
            kept = _end_to_end(answer.headers)
            if (length is not None and length <= _SMALL) or request.method == "HEAD":
                content = await answer.read()
                return web.Response(status=answer.status, reason=answer.reason, headers=kept, body=content)
            stream = web.StreamResponse(status=answer.status, reason=answer.reason, headers=kept)
            await stream.prepare(request)
            try:
                async for chunk in answer.content.iter_any():
                    await stream.write(chunk)
                await stream.write_eof()
            except aiohttp.ClientError:  # a truncated response must not look complete
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


async def _listen(handler: Handler, tls: ssl.SSLContext | None = None) -> web.ServerRunner:
    """Start a server on a free port of 127.0.0.1."""
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=_CLOSING)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    return runner


def _port_of(runner: web.ServerRunner) -> int:
    return int(runner.addresses[0][1])


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return a copy without the headers that concern one connection only."""
    given: CIMultiDict[str] = CIMultiDict(headers)
    dropped = _HOP_BY_HOP | {name.strip().lower() for name in given.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in given.items() if name.lower() not in dropped)


def _problem(status: int, what: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": what}), content_type="application/json")
