"""Assembly of the cluster: the object store, the controllers, and the servers that clients reach."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import os
import secrets
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from laptop.cluster import AUTHORITY
from laptop.cluster.alb import Clock, LoadBalancers
from laptop.cluster.analysis import Analyses
from laptop.cluster.api_listener import ApiListener
from laptop.cluster.api_server import ApiServer
from laptop.cluster.certificates import CertificateAuthority
from laptop.cluster.conditions import set_condition
from laptop.cluster.container_env import NODE_NAME
from laptop.cluster.container_process import ProcessStarter
from laptop.cluster.controller import Controller
from laptop.cluster.credentials_agent import PodIdentityAgent
from laptop.cluster.cron_jobs import CronJobs
from laptop.cluster.deployments import Deployments
from laptop.cluster.endpoints import ServiceEndpoints
from laptop.cluster.garbage import GarbageCollector
from laptop.cluster.image_source import EcrImageSource, ImageSource
from laptop.cluster.job_controller import Jobs
from laptop.cluster.kinds import NAMESPACE, NETWORK_POLICY, NODE, POD, ROLLOUT, SERVICE_ACCOUNT
from laptop.cluster.kubelet import Kubelet, Node
from laptop.cluster.manifest_schemas import KUBERNETES_VERSION
from laptop.cluster.node_account import DEFAULT_REGION, NodeAccount
from laptop.cluster.node_capacity import NodeCapacity
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore
from laptop.cluster.quotas import ResourceQuotas
from laptop.cluster.replica_sets import ReplicaSets
from laptop.cluster.rollout_controller import Rollouts
from laptop.cluster.router import Router
from laptop.cluster.service_accounts import ServiceAccountTokens
from laptop.cluster.supported import NOT_ACTED_UPON
from laptop.cluster.target_health import TargetRegistration, inject_gates
from laptop.cluster.templates import pod_spec_of
from laptop.delays import NONE, Delays
from laptop.faults import Faults
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

_log = logging.getLogger(__name__)

NAME = "laptop"
"""Name of the cluster, the context and the user in the kubeconfig."""

DESCRIPTION = "cluster.json"

_STOP_GRACE = 2.0  # seconds that pods have to end when the cluster stops


class PortInUse(Exception):  # noqa: N818
    """The API's port is taken."""


class Cluster:
    """The laptop's cluster. Call `start` and `stop` in the same event loop.

    Args:
        home: the laptop's folder. The cluster writes `kubeconfig` and `cluster/` there.
        time_scale: factor applied to declared waits (rollout pause, analysis interval, scale-down delay, preStop
            sleep).
        images: source of images; the account's ECR if None.
        fork_server: fork Python pods from a process that has imported the large libraries.
        delays: delays of a realistic cluster, which has load balancers, nodes and pod identities as AWS runs them.
        clock: returns seconds, for these delays.
    """

    def __init__(
        self,
        home: Path,
        *,
        time_scale: float = 1.0,
        images: ImageSource | None = None,
        fork_server: bool = False,
        delays: Delays = NONE,
        clock: Clock = time.monotonic,
    ) -> None:
        self._delays = delays
        self._clock = clock
        self._account = account = NodeAccount(home)
        self._home = home
        self._folder = home / "cluster"
        self._time_scale = time_scale
        self.incarnation = secrets.token_hex(8)
        self.token = secrets.token_urlsafe(32)
        self.endpoint = ""
        self._images = images or EcrImageSource(account, home / "aws")
        self._agent = PodIdentityAgent(account, delays["pod-identity"] if delays else None)
        self._fork_server = fork_server
        self._authority = CertificateAuthority()

    async def start(self, port: int = 0) -> None:
        """Start everything, then write the files that clients use to find it.

        Args:
            port: port of the API on 127.0.0.1; 0 takes a free one.

        Raises:
            PortInUse: the port is taken.
        """
        for left in self._folder.glob("pods-*"):  # by a cluster that was killed
            shutil.rmtree(left, ignore_errors=True)
        pods = self._folder / f"pods-{self.incarnation[:8]}"
        pods.mkdir(parents=True, mode=0o700)
        store = self._store = ObjectStore()
        GarbageCollector(store)
        faults = Faults(self._home).active
        self._balancers = LoadBalancers(self._delays, self._clock, faults) if self._delays else None
        self._router = Router(store, self._authority, self._balancers, self._account, self._region)
        if self._balancers is not None:
            store.pod_webhooks.append(inject_gates)
        tokens = ServiceAccountTokens(store, lambda: self.endpoint, self._authority.certificate)
        managed = store.written_by("kube-controller-manager")
        kubelet = store.written_by("kubelet")
        starter = ProcessStarter(fork_server=self._fork_server)
        store.listen(lambda event: _prepare(starter, event))
        # As load balancers see pods. Their processes listen on 127.0.0.1.
        addresses = (f"10.0.{number // 250}.{number % 250 + 4}" for number in itertools.count())
        node = Node(
            folder=pods,
            time_scale=self._time_scale,
            images=self._images,
            identities=(self._agent, tokens),
            starter=starter,
            drained=self._router.drained,
            proxy=self._router.proxy_of,
            address_of=(lambda _: next(addresses)) if self._delays else (lambda _: "127.0.0.1"),
            capacity=NodeCapacity(NODE_NAME, self._delays, self._clock) if self._delays else None,
        )
        self._kubelet = Kubelet(kubelet, node)
        store.listen(lambda event: _add_account(managed, event))
        await self._agent.start()
        await self._router.start()
        self._start_controllers()
        for name in ("default", "kube-system"):
            store.create(NAMESPACE, "", {"metadata": {"name": name}, "status": {"phase": "Active"}})
        store.create(NODE, "", _node())
        api = ApiServer(store, self.token, tokens, self._kubelet, self._facts, faults)
        self._listener = ApiListener(api.application(), self._authority.server_context(), faults)
        try:
            port = await self._listener.start(port)
        except OSError as error:
            await self.stop()
            raise PortInUse(f"127.0.0.1:{port}") from error
        self.endpoint = f"https://127.0.0.1:{port}"
        self._write_files()

    def _region(self) -> str:
        """Return the region of the account; the default region for a cluster without an account."""
        with contextlib.suppress(MlopsError):
            return self._account.region
        return DEFAULT_REGION

    async def stop(self) -> None:
        """End all pods and servers, and remove the files that clients use to find it."""
        self._remove_files()
        await self._stop_controllers()
        await self._kubelet.close(_STOP_GRACE)
        await self._router.close()
        await self._agent.close()
        await self._listener.close()
        shutil.rmtree(self._folder / f"pods-{self.incarnation[:8]}", ignore_errors=True)

    async def restart_controllers(self) -> None:
        """Replace all controllers, which lose their memory, as a restart of their process does on a real cluster."""
        await self._stop_controllers()
        self._start_controllers()

    def _start_controllers(self) -> None:
        managed, argo = (self._store.written_by(name) for name in ("kube-controller-manager", "rollouts-controller"))
        self._controllers: list[Controller] = [
            ReplicaSets(managed),
            Deployments(managed),
            Jobs(managed),
            CronJobs(managed),
            ServiceEndpoints(managed),
            ResourceQuotas(managed),
            Rollouts(argo, self._time_scale),
            Analyses(argo, self._time_scale),
        ]
        if self._balancers is not None:
            self._controllers.append(
                TargetRegistration(self._store.written_by("aws-load-balancer-controller"), self._balancers)
            )
        self._tasks = [asyncio.create_task(controller.run()) for controller in self._controllers]

    async def _stop_controllers(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for controller in self._controllers:
            controller.close()

    def _facts(self) -> dict[str, Any]:
        phases = Counter((pod.get("status") or {}).get("phase", "Pending") for pod in self._store.find_all(POD))
        rollouts = {
            f"{rollout['metadata']['namespace']}/{rollout['metadata']['name']}": (rollout.get("status") or {}).get(
                "phase", "Progressing"
            )
            for rollout in self._store.find_all(ROLLOUT)
        }
        return {
            "incarnation": self.incarnation,
            "timeScale": self._time_scale,
            "pods": dict(phases),
            "rollouts": rollouts,
            "notActedUpon": [
                *(kind for kind in NOT_ACTED_UPON if kind != NETWORK_POLICY.name or not self._delays),
                "resource limits",
            ],
        }

    def _write_files(self) -> None:
        authority = base64.b64encode(self._authority.certificate).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": {"server": self.endpoint, "certificate-authority-data": authority}}],
            "users": [{"name": NAME, "user": {"token": self.token}}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
            "current-context": NAME,
        }
        self._authority.write(self._folder / AUTHORITY)
        write_atomically(self._home / "kubeconfig", yaml.safe_dump(config))
        description = {
            "endpoint": self.endpoint,
            "incarnation": self.incarnation,
            "pid": os.getpid(),
            "timeScale": self._time_scale,
            "proxy": self._router.proxy,
        }
        write_atomically(self._folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")

    def _remove_files(self) -> None:
        """Remove the files, unless another cluster has written them since."""
        for path in (self._home / "kubeconfig", self._folder / DESCRIPTION):
            with contextlib.suppress(OSError):
                text = path.read_text()
                if self.token in text or self.incarnation in text:
                    path.unlink()


def _add_account(store: ObjectStore, event: ObjectEvent) -> None:
    """Give a new namespace its default service account."""
    if event.type == "ADDED" and event.kind is NAMESPACE:
        store.create(SERVICE_ACCOUNT, event.object["metadata"]["name"], {"metadata": {"name": "default"}})


def _prepare(starter: ProcessStarter, event: ObjectEvent) -> None:
    """Prepare for the pods of a new workload, before the first of them starts."""
    if event.type == "ADDED":
        for container in (pod_spec_of(event.kind, event.object) or {}).get("containers") or ():
            starter.prepare(container.get("command") or ())


def _node() -> Object:
    """Return the one node, which `kubectl get nodes` shows."""
    status: dict[str, Any] = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "nodeInfo": {"kubeletVersion": f"v{KUBERNETES_VERSION}.0+laptop", "operatingSystem": sys.platform},
    }
    set_condition(status, "Ready", True, "KubeletReady")
    return {"metadata": {"name": NODE_NAME}, "spec": {}, "status": status}
