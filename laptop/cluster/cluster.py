"""The small cluster put together: the store, what acts on it, and the servers by which it is reached."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from laptop.cluster.account import Account
from laptop.cluster.analysis import Analyses
from laptop.cluster.api import Api
from laptop.cluster.controller import Controller
from laptop.cluster.cron_jobs import CronJobs
from laptop.cluster.deployments import Deployments
from laptop.cluster.garbage import GarbageCollector
from laptop.cluster.identity import PodIdentityAgent
from laptop.cluster.images import EcrImages, Images
from laptop.cluster.jobs import Jobs
from laptop.cluster.kinds import NAMESPACE, POD, ROLLOUT
from laptop.cluster.pods import PodRunner, Runtime
from laptop.cluster.replica_sets import ReplicaSets
from laptop.cluster.rollouts import Rollouts
from laptop.cluster.router import Router
from laptop.cluster.store import Store
from laptop.cluster.supported import NOT_ACTED_UPON
from pipelines.declarations.files import write_atomically

_log = logging.getLogger(__name__)

NAME = "local"
DESCRIPTION = "cluster.json"
_STOP_GRACE = 2.0  # seconds that pods have to end when the cluster does


class PortInUse(Exception):  # noqa: N818
    """The API's port is taken."""


class Cluster:
    """A small cluster; `start` and `stop` belong to one event loop.

    Args:
        home: the local target's home. The cluster writes `kubeconfig` and `cluster/` there.
        time_scale: declared waits (rollout pauses, analysis intervals, scale-down delays, preStop sleeps) last this
            share of themselves.
        images: where images are looked for; the account's ECR when None.
    """

    def __init__(self, home: Path, *, time_scale: float = 1.0, images: Images | None = None) -> None:
        self._home = home
        self._folder = home / "cluster"
        self._time_scale = time_scale
        self.incarnation = secrets.token_hex(8)
        self.token = secrets.token_urlsafe(32)
        self.endpoint = ""
        account = Account(home)
        self._images = images or EcrImages(account, home / "aws")
        self._identity = PodIdentityAgent(account)

    async def start(self, port: int = 0) -> None:
        """Starts everything and, last, writes the files by which it is found.

        Args:
            port: of the API on 127.0.0.1; 0 takes a free one.

        Raises:
            PortInUse: the port is taken.
        """
        for left in self._folder.glob("pods-*"):  # by a cluster that was killed
            shutil.rmtree(left, ignore_errors=True)
        pods = self._folder / f"pods-{self.incarnation[:8]}"
        pods.mkdir(parents=True, mode=0o700)
        store = self._store = Store()
        GarbageCollector(store)
        self._router = Router(store)
        runtime = Runtime(
            folder=pods,
            time_scale=self._time_scale,
            images=self._images,
            identity=self._identity,
            drained=self._router.drained,
            proxy=lambda: self._router.proxy,
            services=self._router.links,
        )
        self._pods = PodRunner(store, runtime)
        controllers: list[Controller] = [
            ReplicaSets(store),
            Deployments(store),
            Jobs(store),
            CronJobs(store),
            Rollouts(store, self._time_scale),
            Analyses(store, self._time_scale),
        ]
        await self._identity.start()
        await self._router.start()
        self._tasks = [asyncio.create_task(controller.run()) for controller in controllers]
        for name in ("default", "kube-system"):
            store.create(NAMESPACE, "", {"metadata": {"name": name}, "status": {"phase": "Active"}})
        api = Api(store, self.token, self._pods.log_of, self._about)
        self._runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", port).start()
        except OSError as error:
            await self.stop()
            raise PortInUse(f"127.0.0.1:{port}") from error
        self.endpoint = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._write_files()

    async def stop(self) -> None:
        """Ends all pods and servers, and takes away the files by which it is found."""
        self._remove_files()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pods.close(_STOP_GRACE)
        await self._router.close()
        await self._identity.close()
        await self._runner.cleanup()
        shutil.rmtree(self._folder / f"pods-{self.incarnation[:8]}", ignore_errors=True)

    def _about(self) -> dict[str, Any]:
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
            "notActedUpon": [*NOT_ACTED_UPON, "resource limits"],
        }

    def _write_files(self) -> None:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": NAME, "cluster": {"server": self.endpoint}}],
            "users": [{"name": NAME, "user": {"token": self.token}}],
            "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
            "current-context": NAME,
        }
        write_atomically(self._home / "kubeconfig", yaml.safe_dump(config))
        description = {
            "endpoint": self.endpoint,
            "incarnation": self.incarnation,
            "pid": os.getpid(),
            "timeScale": self._time_scale,
        }
        write_atomically(self._folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")

    def _remove_files(self) -> None:
        """Takes away what was written, unless another cluster has written there since."""
        for path in (self._home / "kubeconfig", self._folder / DESCRIPTION):
            with contextlib.suppress(OSError):
                text = path.read_text()
                if self.token in text or self.incarnation in text:
                    path.unlink()
