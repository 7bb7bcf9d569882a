"""The laptop's node on a real cluster: it registers, gets pods, runs their commands, and routes requests to them.

The API server reaches it as it reaches a kubelet: for logs and port-forwards, by HTTPS. It has no scheduler, so the
node binds the pods that have none yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from laptop.cluster import port_forward
from laptop.cluster.certificates import CertificateAuthority
from laptop.cluster.container_env import NODE_NAME
from laptop.cluster.container_process import ProcessStarter
from laptop.cluster.credentials_agent import PodIdentityAgent
from laptop.cluster.image_source import ImageSource
from laptop.cluster.kinds import POD
from laptop.cluster.kubelet import Kubelet, Node
from laptop.cluster.node_account import NodeAccount
from laptop.cluster.objects import Object, uid_of
from laptop.cluster.router import Router
from laptop.conformance.control_plane import ControlPlane
from laptop.conformance.mirrored_objects import MirroredObjects
from laptop.conformance.pod_tokens import PodTokens

_log = logging.getLogger(__name__)

_LOOK = 0.1  # seconds between looks for pods without a node, and at a log that is followed
_HEARTBEAT = 10.0  # seconds, as kubelets do
_STARTED_WITHIN = 30.0  # seconds
_GRACE = 3.0  # seconds that pods have to end with the node
_PODS = ipaddress.ip_network("10.244.0.0/16")  # pretended: endpoints may not have loopback addresses
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class WorkerNode:
    """The laptop's node, and its router, on a control plane. Call `start` and `close` in the same event loop.

    Args:
        plane: the control plane.
        home: the laptop's folder; the AWS account that pods use is in `aws/`.
        images: source of images.
        time_scale: factor applied to declared preStop sleeps.
    """

    def __init__(self, plane: ControlPlane, home: Path, images: ImageSource, *, time_scale: float = 1.0) -> None:
        self._plane = plane
        self._home = home
        self._images = images
        self._time_scale = time_scale
        self._authority = CertificateAuthority()
        self._agent = PodIdentityAgent(NodeAccount(home))
        self._addresses: Iterator[Any] = itertools.islice(_PODS.hosts(), 10, None)
        self._given: dict[str, str] = {}  # uid of a pod → pretended address
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Register the node, and run pods from now on."""
        plane = self._plane
        context = ssl.create_default_context(cafile=str(plane.certificate))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context), headers={"Authorization": f"Bearer {plane.token}"}
        )
        self._objects = MirroredObjects(plane.url, self._session, NODE_NAME)
        self._router = Router(self._objects, self._authority)
        await self._agent.start()
        await self._router.start()
        pods = self._home / "cluster" / "pods"
        pods.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._kubelet = Kubelet(
            self._objects,
            Node(
                folder=pods,
                time_scale=self._time_scale,
                images=self._images,
                identities=(self._agent, PodTokens(plane)),
                starter=ProcessStarter(fork_server=False),
                drained=self._router.drained,
                proxy=self._router.proxy_of,
                address_of=self._address_of,
            ),
        )
        port = await self._serve()
        await self._register(port)
        await self._objects.start()
        self._tasks = [asyncio.create_task(self._bind_pods()), asyncio.create_task(self._keep_alive())]

    async def close(self) -> None:
        """End all pods and servers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._kubelet.close(_GRACE)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._objects.settled(), _GRACE)
        await self._objects.close()
        await self._router.close()
        await self._agent.close()
        await self._runner.cleanup()
        await self._session.close()

    def _address_of(self, pod: Object) -> str:
        uid = uid_of(pod)
        if uid not in self._given:
            self._given[uid] = str(next(self._addresses))
        return self._given[uid]

    async def _register(self, port: int) -> None:
        room = {"cpu": "32", "memory": "64Gi", "pods": "200", "ephemeral-storage": "100Gi"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE_NAME, "labels": {"kubernetes.io/hostname": NODE_NAME}},
            "status": {
                "capacity": room,
                "allocatable": room,
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                "conditions": [{**ready, "lastTransitionTime": _now()}],
            },
        }
        await self._post("/api/v1/nodes", node)
        lease = {"metadata": {"name": NODE_NAME}, "spec": {"holderIdentity": NODE_NAME, "leaseDurationSeconds": 40}}
        await self._post("/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}}, exists=True)
        await self._post(_LEASES, lease)

    async def _post(self, path: str, body: dict[str, Any], *, exists: bool = False) -> None:
        async with self._session.post(f"{self._plane.url}{path}", json=body) as answer:
            if not (exists and answer.status == 409):
                answer.raise_for_status()

    async def _keep_alive(self) -> None:
        """Renew the node's lease; without it the controllers evict its pods."""
        while True:
            patch = {"spec": {"renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
            headers = {"Content-Type": "application/merge-patch+json"}
            with contextlib.suppress(aiohttp.ClientError):
                url = f"{self._plane.url}{_LEASES}/{NODE_NAME}"
                async with self._session.patch(url, json=patch, headers=headers):
                    pass
            await asyncio.sleep(_HEARTBEAT)

    async def _bind_pods(self) -> None:
        """Bind pods without a node to this one, as a scheduler does."""
        url = f"{self._plane.url}{POD.path()}?fieldSelector=spec.nodeName%3D"
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with self._session.get(url) as answer:
                    pods = (await answer.json())["items"]
                for pod in pods:
                    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
                    binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": NODE_NAME}}
                    path = f"{POD.path(namespace, name)}/binding"
                    async with self._session.post(f"{self._plane.url}{path}", json=binding):
                        pass  # a pod that is gone, or is bound already, needs nothing
            await asyncio.sleep(_LOOK)

    # What the API server asks a kubelet

    async def _serve(self) -> int:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
        app.router.add_route("*", "/portForward/{namespace}/{pod}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._authority.server_context()).start()
        return int(self._runner.addresses[0][1])

    def _pod(self, request: web.Request) -> Object:
        found = self._objects.find(POD, request.match_info["namespace"], request.match_info["pod"])
        if found is None:
            raise web.HTTPNotFound(text=f"pod {request.match_info['pod']} not found")
        return found

    async def _log(self, request: web.Request) -> web.StreamResponse:
        container = request.match_info["container"]
        file = self._kubelet.log_of(self._pod(request), container, previous="previous" in request.query)
        if not file.exists():
            raise web.HTTPBadRequest(text=f'container "{container}" is waiting to start')
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        with file.open("rb") as log:
            while True:
                # The state is read before the log, so that nothing printed at the end is missed.
                pod = self._objects.find(POD, request.match_info["namespace"], request.match_info["pod"])
                phase = ((pod or {}).get("status") or {}).get("phase")
                ended = request.query.get("follow") != "true" or pod is None or phase in ("Succeeded", "Failed")
                while chunk := log.read(65536):
                    await response.write(chunk)
                if ended:
                    break
                await asyncio.sleep(_LOOK)
        await response.write_eof()
        return response

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        pod = self._pod(request)

        async def dial(port: int) -> port_forward.Connection:
            where = self._kubelet.port_of(pod, port)
            if where is None:
                raise ConnectionRefusedError(111, f"no container that runs declares containerPort {port}")
            return await asyncio.open_connection("127.0.0.1", where)

        if request.headers.get("Upgrade", "").lower() == "spdy/3.1":
            return await port_forward.serve_spdy(request, dial)
        ports = [int(port) for value in request.query.getall("port", []) for port in value.split(",")]
        return await port_forward.serve_channels(request, ports, dial)


@contextlib.contextmanager
def running_node(plane: ControlPlane, home: Path, images: ImageSource, *, time_scale: float = 1.0) -> Iterator[None]:
    """Run the laptop's node on a control plane, in a thread.

    Args:
        plane, home, images, time_scale: as for `WorkerNode`.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="worker-node", daemon=True)
    thread.start()
    node = WorkerNode(plane, home, images, time_scale=time_scale)
    try:
        asyncio.run_coroutine_threadsafe(node.start(), loop).result(_STARTED_WITHIN)
        yield
    finally:
        asyncio.run_coroutine_threadsafe(node.close(), loop).result(_STARTED_WITHIN)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STARTED_WITHIN)
        loop.close()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
