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
from laptop.cluster.alb import DOMAIN, INTERNET, LoadBalancers, hosts_of
from laptop.cluster.balancer_report import describe_balancers
from laptop.cluster.certificates import CertificateAuthority
from laptop.cluster.event_log import record
from laptop.cluster.kinds import INGRESS, NAMESPACE, NETWORK_POLICY, POD
from laptop.cluster.node_account import NodeAccount
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, name_of, namespace_of, uid_of
from laptop.cluster.ports import annotated_ports
from laptop.cluster.private_network import (
    DNS,
    DNS_PORT,
    LOAD_BALANCER,
    NetworkPeer,
    balancer_refusal,
    caller_of,
    egress_refusal,
    groups_of,
    ingress_refusal,
    peer_of,
    proxy_for_pod,
)
from laptop.cluster.routes import (
    PodAddress,
    WeightedService,
    addresses_of,
    certificate_of,
    listeners_of,
    targets_of,
    tls_hosts,
)
from laptop.cluster.tunnel import serve_tunnel
from pipelines.declarations.errors import MlopsError

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
_THIS_MACHINE = ("127.0.0.1", "localhost", "")
"""Hosts in requests for the address of an Ingress; clients of HTTP/1.0 send none."""

_SMALL = 256 * 1024  # bytes; bodies up to this are passed on in one piece
_IDLE = 2.0  # seconds; below any server's own, so that no request is sent into a connection that the server closes
_SLOW = 5.0  # seconds after which a request is logged
_CLOSING = 5.0  # seconds that a closed listener waits for its requests
_LOOK = 1.0  # seconds between two looks at a certificate that is not there yet


class Router:
    """Router of requests to ready pods, from outside and from other pods.

    Args:
        store: objects of the cluster.
        authority: signs the certificates of Ingresses with TLS.
        balancers: load balancers of a realistic cluster.
        account: has their certificates and security groups; None if they have none.
        region: returns the region in their names.
    """

    def __init__(
        self,
        store: ObjectStore,
        authority: CertificateAuthority,
        balancers: LoadBalancers | None = None,
        account: NodeAccount | None = None,
        region: Callable[[], str] = lambda: "eu-west-1",
    ) -> None:
        self._balancers = balancers
        self._account = account
        self._secure: dict[str, tuple[tuple[str, ...], web.ServerRunner]] = {}  # uid of an Ingress → names, listener
        self._awaited: set[tuple[str, str]] = set()  # uid of an Ingress, and the certificate that it waits for
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
        """Address of the HTTP proxy for programs outside of pods."""
        return f"http://127.0.0.1:{self._proxy_port}"

    def proxy_of(self, uid: str) -> str:
        """Return the address of the HTTP proxy for a pod, which a realistic cluster tells from others by it."""
        return self.proxy if self._balancers is None else proxy_for_pod(self.proxy, uid)

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
        runners += [runner for _, runner in self._secure.values()]
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
            self._begin(self._shut(uid_of(event.object)))
            return
        hostname = balancers.see(event.object, self._region())
        arn = certificate_of(event.object)
        wanted_of = (uid_of(event.object), arn)
        if arn and balancers.certificate(uid_of(event.object))[0] != arn and wanted_of not in self._awaited:
            self._awaited.add(wanted_of)
            self._begin(self._find_certificate(balancers, event.object, arn))
        wanted = {"ingress": [{"hostname": hostname}]}
        if (event.object.get("status") or {}).get("loadBalancer") != wanted:

            def report(target: Object) -> None:
                target.setdefault("status", {})["loadBalancer"] = wanted

            self._store.modify(INGRESS, event.object, report)

    async def _find_certificate(self, balancers: LoadBalancers, ingress: Object, arn: str) -> None:
        """Give a load balancer the certificate that its Ingress names, once the account has it."""
        now: Object | None = ingress
        while self._account is not None and now is not None:
            try:
                names = await asyncio.to_thread(self._account.certificate_names, arn)
            except MlopsError as error:
                record(self._store, INGRESS, ingress, "FailedDeployModel", error.what, warning=True)
            else:
                balancers.certify(uid_of(ingress), arn, names)
                break
            await asyncio.sleep(_LOOK)
            now = self._store.find(INGRESS, namespace_of(ingress), name_of(ingress))
            if now is not None and (uid_of(now) != uid_of(ingress) or certificate_of(now) != arn):
                break
        self._awaited.discard((uid_of(ingress), arn))

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
            runners += [runner for _, runner in [self._secure.pop(uid)]] if uid in self._secure else []
        for runner in runners:
            await runner.cleanup()

    async def _serve_ingress(self, namespace: str, name: str, request: web.BaseRequest) -> web.StreamResponse:
        ingress = self._store.find(INGRESS, namespace, name)
        if ingress is None:
            return _problem(503, f"ingress {namespace}/{name} was deleted")
        host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
        if host.lower() not in (*_THIS_MACHINE, *hosts_of(ingress)):  # a page of that host would ask in its own name
            return _problem(421, f"{host}: expected 127.0.0.1 or a host of ingress {namespace}/{name}")
        targets = targets_of(ingress, host, request.path)
        if not targets:
            return _problem(404, f"ingress {namespace}/{name} has no rule for {request.path}")
        target = self._choose(uid_of(ingress), targets)
        return await self._forward(request, namespace, target.service, target.port, "ingress")

    async def _reach(
        self, balancers: LoadBalancers, caller: NetworkPeer, host: str, listener: tuple[str, int]
    ) -> Object | web.Response:
        """Return the Ingress of a load balancer to which a caller connects, or why the connection fails.

        Args:
            balancers: the load balancers.
            caller: who connects.
            host: DNS name that it connects to.
            listener: protocol and port.
        """
        if not balancers.resolve(host, "private network"):
            return _problem(502, f"{host}: no such name")
        uid = balancers.find(host)
        ingress = self._store.find_uid(INGRESS, uid)
        timed_out = f"{host}: the connection timed out"
        if uid is None or ingress is None or not balancers.is_active(uid):
            return _problem(504, f"{timed_out}: the load balancer is not active")
        protocol, port = listener
        if listener not in listeners_of(ingress):
            return _problem(504, f"{timed_out}: the load balancer has no listener for {protocol} on port {port}")
        if protocol == "HTTPS" and not balancers.certificate(uid)[0]:
            return _problem(504, f"{timed_out}: the load balancer has no certificate, so it does not listen on {port}")
        if (refusal := self._egress(caller, LOAD_BALANCER, port)) is not None:
            return _problem(504, f"{timed_out}: {refusal}")
        named = groups_of(ingress)
        try:
            groups = await asyncio.to_thread(self._account.security_groups, named) if named and self._account else []
        except MlopsError as error:
            return _problem(504, f"{timed_out}: {error.what}")
        refusal = balancer_refusal(ingress, caller, port, groups)
        return ingress if refusal is None else _problem(504, f"{timed_out}: {refusal}")

    async def _serve_balancer(
        self, balancers: LoadBalancers, uid: str, host: str, request: web.BaseRequest
    ) -> web.StreamResponse:
        """Forward a request that the load balancer of an Ingress has received."""
        ingress = self._store.find_uid(INGRESS, uid)
        if ingress is None:
            return _problem(504, f"{host}: the load balancer was deleted")
        hosts = hosts_of(ingress)
        if hosts and host.lower() not in hosts:
            return _problem(404, f"{host}: no rule of the load balancer is about this host")
        targets = targets_of(balancers.in_force(ingress), host, request.path)
        if not targets:
            return _problem(503, f"{host}: no target group for {request.path}")
        target = self._choose(uid, targets)
        return await self._forward(
            request, namespace_of(ingress), target.service, target.port, uid, caller=LOAD_BALANCER
        )

    async def _secure_listener(self, balancers: LoadBalancers, uid: str) -> int:
        """Return the port on 127.0.0.1 of the HTTPS listener of a load balancer; open it if it is not open."""
        _, names = balancers.certificate(uid)

        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            return await self._serve_balancer(balancers, uid, _host_of(request)[0], request)

        async with self._opening:
            known = self._secure.get(uid)
            if known is None or known[0] != names:
                tls = self._authority.server_context(*names, loopback=False)
                self._secure[uid] = (names, await _listen(serve, tls))
            opened = _port_of(self._secure[uid][1])
        if known is not None and known[0] != names:
            await known[1].cleanup()
        return opened

    def _report(self, path: str) -> web.Response:
        """Answer a question about load balancers, or a look-up of a name by a program outside of the network."""
        if self._balancers is None:
            return _problem(404, "this cluster has no load balancers of AWS")
        if path == REPORT:
            return web.json_response(describe_balancers(self._store, self._balancers))
        found = path.startswith(_NAMES) and self._balancers.resolve(path.removeprefix(_NAMES), INTERNET)
        return web.json_response({}) if found else _problem(404, "no such name")

    async def _serve_proxy(self, request: web.BaseRequest) -> web.StreamResponse:
        """Forward a request for `http://<service>.<namespace>[.svc[.cluster.local]][:port]`, and refuse any other.

        CONNECT opens a tunnel to a pod of the Service. A realistic router also forwards requests for load balancers,
        opens tunnels to their HTTPS listeners, and refuses what the private network would.
        """
        host, port = _host_of(request)
        if host == "127.0.0.1" and request.path.startswith("/laptop/"):
            return self._report(request.path)
        caller, balancers = None, self._balancers
        if balancers is not None:
            caller = self._caller(request)
            if (refusal := self._egress(caller, DNS, DNS_PORT, "UDP")) is not None:
                return _problem(502, f"{host}: the look-up of the name timed out: {refusal}")
            if host.lower().endswith(DOMAIN) or balancers.find(host) is not None:
                return await self._serve_connection(balancers, caller, host, port, request)
        service, _, rest = host.partition(".")
        namespace, _, suffix = rest.partition(".")
        if not namespace or suffix not in ("", "svc", "svc.cluster.local"):
            return _problem(
                502,
                f"{host or request.path}: this proxy reaches only Services: expected "
                "http://<service>.<namespace>.svc[:port]",
            )
        if request.method == "CONNECT":
            return await self._tunnel(request, namespace, service, port or 443, caller)
        return await self._forward(request, namespace, service, port or 80, "service", caller=caller)

    async def _serve_connection(
        self, balancers: LoadBalancers, caller: NetworkPeer, host: str, port: int, request: web.BaseRequest
    ) -> web.StreamResponse:
        """Connect a caller to a load balancer: by a tunnel to its HTTPS listener, or for one request of plain HTTP."""
        is_secure = request.method == "CONNECT"
        listener = ("HTTPS", port or 443) if is_secure else ("HTTP", port or 80)
        found = await self._reach(balancers, caller, host, listener)
        if isinstance(found, web.Response):
            if is_secure:  # clients show nothing else of an answer to CONNECT
                found.set_status(found.status, json.loads(found.text or "{}").get("error"))
            return found
        if is_secure:
            return await serve_tunnel(request, await self._secure_listener(balancers, uid_of(found)))
        return await self._serve_balancer(balancers, uid_of(found), host, request)

    def _caller(self, request: web.BaseRequest) -> NetworkPeer:
        """Return who sent a request to the proxy."""
        return caller_of(request.headers.get("Proxy-Authorization", ""), lambda uid: self._store.find_uid(POD, uid))

    async def _tunnel(
        self, request: web.BaseRequest, namespace: str, service: str, port: int, caller: NetworkPeer | None
    ) -> web.StreamResponse:
        """Connect a client to a ready pod of a Service; unlike requests, connections are not moved to another pod."""
        endpoints = self._addresses(namespace, service, port, "service")
        if caller is not None and (refusal := self._refusal(namespace, endpoints, caller)) is not None:
            return _problem(504, f"{service}.{namespace}: the connection timed out: {refusal}")
        for endpoint in endpoints:
            try:
                return await serve_tunnel(request, endpoint.port)
            except ConnectionRefusedError:
                continue
        return _problem(503, f"no pod is ready behind service {namespace}/{service} port {port}")

    def _refusal(self, namespace: str, endpoints: Sequence[PodAddress], caller: NetworkPeer) -> str | None:
        """Return why NetworkPolicies keep a caller from the pods of a Service; None if they do not."""
        policies, namespaces = self._store.find_all(NETWORK_POLICY, namespace), self._store.find_all(NAMESPACE)
        pods = {uid_of(pod): pod for pod in self._store.find_all(POD, namespace)}
        for endpoint in endpoints:
            pod = pods.get(endpoint.uid)
            declared = {port: number for number, port in annotated_ports(pod).items()} if pod is not None else {}
            if pod is not None and endpoint.port in declared:
                port = declared[endpoint.port]
                refusal = self._egress(caller, peer_of(pod), port)
                refusal = refusal or ingress_refusal(policies, namespaces, pod, caller, port)
                if refusal is not None:
                    return refusal
        return None

    def _egress(self, caller: NetworkPeer, target: NetworkPeer, port: int, protocol: str = "TCP") -> str | None:
        """Return why NetworkPolicies keep a caller, if it is a pod, from connecting; None if they do not."""
        if caller.pod is None:
            return None
        policies = self._store.find_all(NETWORK_POLICY, namespace_of(caller.pod))
        namespaces = self._store.find_all(NAMESPACE)
        return egress_refusal(policies, namespaces, caller.pod, target, port, protocol=protocol)

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
        self,
        request: web.BaseRequest,
        namespace: str,
        service: str,
        port: int | str,
        way: str,
        *,
        caller: NetworkPeer | None = None,
    ) -> web.StreamResponse:
        tried: set[str] = set()
        if caller is not None:
            addresses = self._addresses(namespace, service, port, way)
            if (refusal := self._refusal(namespace, addresses, caller)) is not None:
                return _problem(504, f"{service}.{namespace}: the connection timed out: {refusal}")
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


def _host_of(request: web.BaseRequest) -> tuple[str, int]:
    """Return the host and the port that a request is for; 0 if it names no port."""
    # CONNECT names its destination as the target, and HTTP/1.0 has no Host.
    authority = request.raw_path if request.method == "CONNECT" else request.headers.get("Host", "")
    host, _, port = authority.partition(":")
    return host, int(port) if port.isascii() and port.isdigit() else 0


def _problem(status: int, what: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": what}), content_type="application/json")
