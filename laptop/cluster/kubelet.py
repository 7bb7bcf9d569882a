"""Kubelet: runs pods, with a process instead of a container."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from laptop.cluster.container_env import ConfigurationError, environment_of, expand
from laptop.cluster.container_process import ContainerProcess, ProcessStarter
from laptop.cluster.event_log import record
from laptop.cluster.image_source import ImageSource, MissingImageError
from laptop.cluster.kinds import POD
from laptop.cluster.node_capacity import NodeCapacity
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, is_deleting, name_of, namespace_of, now, uid_of
from laptop.cluster.pod_status import PodStatus, current, restart_count
from laptop.cluster.ports import PortPool, port_variables, replace_port, replace_port_in_word
from laptop.cluster.probes import HealthWatch, Unhealthy
from laptop.cluster.service_accounts import MOUNT
from laptop.cluster.volumes import mounts_of, replace_paths, write_volumes

_log = logging.getLogger(__name__)

_PULL_AGAIN = (0.25, 0.5, 1.0, 2.0)  # seconds between checks for a missing image; the last repeats
_RESTART_AFTER = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # Kubernetes waits 10 s, 20 s, ... 5 min
_PORT_TAKEN = (b"EADDRINUSE", b"ddress already in use", b"Errno 98", b"Errno 48")
_PORT_TRIES = 5
_LOOK = 0.1  # seconds between looks at a node that joins, or at an image that is pulled
_NO_PROXY = "127.0.0.1,localhost,::1"


class Identity(Protocol):
    """Source of the tokens that identify pods."""

    def admit(self, pod: Object, folder: Path) -> dict[str, str]:
        """Write a pod's token into its folder, and return the variables that point to it."""
        ...

    def dismiss(self, pod: Object) -> None:
        """Revoke the token of a deleted pod."""
        ...


@dataclass(frozen=True)
class Node:
    """The machine that pods run on.

    Attributes:
        folder: parent of the pods' folders.
        time_scale: factor applied to declared preStop sleeps.
        images: source of images.
        identities: sources of tokens.
        starter: starts processes.
        drained: waits until the pod with a uid has no requests in flight, for at most a number of seconds.
        proxy: returns the address of the HTTP proxy that resolves Services, for the pod with a uid.
        capacity: nodes that pods are placed on; None places and pulls at once.
        address_of: returns the address that a pod's status shows.
    """

    folder: Path
    time_scale: float
    images: ImageSource
    identities: Sequence[Identity]
    starter: ProcessStarter
    drained: Callable[[str, float], Awaitable[None]]
    proxy: Callable[[str], str]
    address_of: Callable[[Object], str] = lambda _: "127.0.0.1"
    capacity: NodeCapacity | None = None


class Kubelet:
    """Starts, watches and ends the processes of all pods."""

    def __init__(self, store: ObjectStore, node: Node) -> None:
        self._store = store
        self._node = node
        self._pods: dict[str, _RunningPod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._ports = PortPool()
        store.listen(self._on_event)

    def log_of(self, pod: Object, container: str, *, previous: bool = False) -> Path:
        """Return the log file of a container; it may not exist yet."""
        return _log_file(self._folder(pod), container, restart_count(pod, container) - previous)

    def port_of(self, pod: Object, port: int) -> int | None:
        """Return the port on 127.0.0.1 of a declared containerPort, or None if no container runs that declares it."""
        running = self._pods.get(uid_of(pod))
        return running.ports.get(port) if running is not None else None

    async def close(self, grace: float) -> None:
        """End all pods: SIGTERM, at most `grace` seconds, SIGKILL."""
        running = list(self._pods.values())
        for pod in running:
            pod.terminate()
        if running and self._tasks:
            deadline = asyncio.get_running_loop().time() + grace
            while any(pod.is_running for pod in running) and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.02)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        await self._node.starter.close()

    def _on_event(self, event: ObjectEvent) -> None:
        if event.kind is not POD:
            return
        uid = uid_of(event.object)
        if event.type == "ADDED":
            if self._session is None:
                connector = aiohttp.TCPConnector(limit=0, force_close=True)
                self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
            pod = _RunningPod(
                self._store, self._node, self._session, self._ports, event.object, self._folder(event.object)
            )
            self._pods[uid] = pod
            self._tasks[uid] = asyncio.create_task(self._run(uid, pod))
        elif event.type == "MODIFIED" and uid in self._pods:
            self._pods[uid].changed(event.object)
        elif event.type == "MODIFIED" and is_deleting(event.object):
            self._remove(event.object)  # it had ended before
        elif event.type == "DELETED" and uid in self._pods:
            self._pods[uid].terminate()

    async def _run(self, uid: str, pod: _RunningPod) -> None:
        try:
            await pod.run()
        except asyncio.CancelledError:
            pod.kill()
            raise
        except Exception:
            _log.exception("pod %s", pod.name)
            pod.kill()
            pod.status.failed("Error", "the cluster could not run the pod; see its log")
        finally:
            self._pods.pop(uid, None)
            self._tasks.pop(uid, None)
            if self._node.capacity is not None:
                self._node.capacity.release(uid)
        newest = current(self._store, pod.object)
        if uid_of(newest) == uid and is_deleting(newest):
            self._remove(newest)

    def _remove(self, pod: Object) -> None:
        for identity in self._node.identities:
            identity.dismiss(pod)
        shutil.rmtree(self._folder(pod), ignore_errors=True)
        self._store.remove(POD, pod)

    def _folder(self, pod: Object) -> Path:
        return self._node.folder / f"{namespace_of(pod)}_{name_of(pod)}_{uid_of(pod)[:8]}"


def _log_file(folder: Path, container: str, restarts: int) -> Path:
    return folder / f"{container}-{restarts}.log"


@dataclass(frozen=True)
class _Launch:
    """Inputs for one start of a container."""

    command: list[str]
    environment: dict[str, str]
    root: Path
    ports: dict[int, int]


@dataclass(frozen=True)
class _Outcome:
    """End of one run of a container: its exit code, and the reason and message if the kubelet ended it."""

    code: int
    reason: str = ""
    message: str = ""

    @property
    def succeeded(self) -> bool:
        return self.code == 0 and not self.reason

    def terminated(self, started: str) -> dict[str, Any]:
        """Return the `terminated` state."""
        state: dict[str, Any] = {
            "exitCode": self.code if self.code >= 0 else 128 - self.code,
            "startedAt": started,
            "finishedAt": now(),
            "reason": self.reason or ("Completed" if self.code == 0 else "Error"),
        }
        return state | ({"message": self.message} if self.message else {})


class _RunningPod:
    """Lifecycle of one pod."""

    def __init__(
        self,
        store: ObjectStore,
        node: Node,
        session: aiohttp.ClientSession,
        ports: PortPool,
        pod: Object,
        folder: Path,
    ) -> None:
        self._store = store
        self._node = node
        self._session = session
        self._ports = ports
        self.object = pod
        self.name = name_of(pod)
        self.status = PodStatus(store, pod, node.address_of(pod))
        self.ports: dict[int, int] = {}
        """containerPort → port on 127.0.0.1, of the container that runs now."""
        self._spec: dict[str, Any] = pod["spec"]
        self._folder = folder
        self._scratch = folder / "tmp"
        self._accepted = asyncio.get_running_loop().time()
        self._ending = asyncio.Event()
        self._why = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._process: ContainerProcess | None = None
        self._identity: dict[str, str] = {}
        self.changed(pod)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def changed(self, pod: Object) -> None:
        """Handle a deletion or a deadline. Either may be set while the pod runs."""
        if is_deleting(pod):
            self._end("")
        seconds = pod["spec"].get("activeDeadlineSeconds")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None and not self._why:
            at = self._accepted + seconds
            self._deadline = asyncio.get_running_loop().call_at(at, self._end, "DeadlineExceeded")

    def terminate(self) -> None:
        self._end("")
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def run(self) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        for identity in self._node.identities:
            self._identity |= identity.admit(self.object, self._folder)
        if not await self._wait_for_node():
            return
        self.status.accept()
        try:
            await self._run_containers()
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
        if self._why:
            self.status.failed(self._why, "Pod was active on the node longer than the specified deadline")

    async def _wait_for_node(self) -> bool:
        """Wait until the pod's node is ready, and return whether the pod still runs."""
        if self._node.capacity is None:
            return True
        uid, capacity = uid_of(self.object), self._node.capacity
        name = capacity.place(uid)
        if capacity.seconds_to_ready(uid) <= 0:
            return True
        message = "0/1 nodes are available: 1 Too many pods."
        self.status.unschedulable(message)
        record(self._store, POD, self.object, "FailedScheduling", message, warning=True)
        while (seconds := capacity.seconds_to_ready(uid)) > 0:
            if await self._pause(min(seconds, _LOOK)):
                return False
        record(self._store, POD, self.object, "Scheduled", f"Successfully assigned {self.name} to {name}")
        return True

    async def _run_containers(self) -> None:
        """Run the init containers one after another, then the main container."""
        policy = self._spec.get("restartPolicy") or "Always"
        initial = self._spec.get("initContainers") or ()
        for container in initial:
            # An init container that succeeds is done, whatever the policy of the pod.
            if not await self._run_until_done(container, "OnFailure" if policy == "Always" else policy, watch=False):
                return
        if initial:
            self.status.initialized()
        await self._run_until_done(self._spec["containers"][0], policy, watch=True)

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._ending.set()

    async def _pause(self, seconds: float) -> bool:
        """Wait, and return whether the pod must end."""
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _pull_image(self, container: dict[str, Any]) -> Path | None:
        """Wait for an image and return the folder of its files, or None if the pod ends first."""
        image, tries = container.get("image", ""), 0
        while not self._ending.is_set():
            try:
                folder = await self._node.images.pull(image)
                await self._wait_for_pull(image)
                return folder
            except MissingImageError as error:
                if tries == 0:
                    record(self._store, POD, self.object, "Failed", f"Failed to pull image: {error}", warning=True)
                self.status.waiting(container, "ErrImagePull" if tries == 0 else "ImagePullBackOff", str(error))
            await self._pause(_PULL_AGAIN[min(tries, len(_PULL_AGAIN) - 1)])
            tries += 1
        return None

    async def _wait_for_pull(self, image: str) -> None:
        """Wait until the node has pulled an image that exists."""
        if self._node.capacity is None:
            return
        uid, capacity = uid_of(self.object), self._node.capacity
        if capacity.seconds_to_pull(uid, image) <= 0:
            return
        record(self._store, POD, self.object, "Pulling", f'Pulling image "{image}"')
        while (seconds := capacity.seconds_to_pull(uid, image)) > 0:
            if await self._pause(min(seconds, _LOOK)):
                return
        record(self._store, POD, self.object, "Pulled", f'Successfully pulled image "{image}"')

    async def _run_until_done(self, container: dict[str, Any], policy: str, *, watch: bool) -> bool:
        """Run a container as often as a restart policy says, and return whether it succeeded in the end."""
        name = container["name"]
        root = await self._pull_image(container)
        port_tries = 0
        while root is not None and not self._ending.is_set():
            launch = await self._prepare(container, root)
            if launch is None:
                return False
            started = now()
            try:
                outcome = await self._run_once(container, launch, watch=watch)
                taken = outcome.code != 0 and launch.ports and self._says_port_taken(name)
            finally:
                self._ports.release(launch.ports)
            if taken and port_tries < _PORT_TRIES:
                port_tries += 1  # another program took the port first, so this is not counted as a failure
                continue
            terminated = outcome.terminated(started)
            again = policy == "Always" or (policy == "OnFailure" and outcome.code != 0)
            if not again or self._ending.is_set():
                self.status.terminated(container, terminated, succeeded=outcome.succeeded)
                return outcome.succeeded
            restarts = self.status.restarts.get(name, 0)
            backoff = _RESTART_AFTER[min(restarts, len(_RESTART_AFTER) - 1)]
            self.status.restarts[name] = restarts + 1
            self.status.back_off(container, terminated, backoff)
            text = f"Back-off restarting failed container (exit code {terminated['exitCode']})"
            record(self._store, POD, self.object, "BackOff", text, warning=True)
            await self._pause(backoff)
        return False

    async def _prepare(self, container: dict[str, Any], root: Path) -> _Launch | None:
        """Return what a start needs, once the ConfigMaps and Secrets exist; None if the pod ends first."""
        base = {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder),
            "TMPDIR": str(self._scratch),
            "HOSTNAME": str(self._spec.get("hostname") or self.name),
            "LANG": "C.UTF-8",
            # Import the code of the image, not of the checkout that the Python environment belongs to.
            "PYTHONPATH": str(root),
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(("http_proxy", "HTTP_PROXY"), self._node.proxy(uid_of(self.object))),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), _NO_PROXY),
            **self._identity,
        }
        ports = self._ports.allocate(container)
        while not self._ending.is_set():
            try:
                volumes = write_volumes(self._store, self.object, self._folder)
                mounts = {MOUNT: self._folder / "serviceaccount", **mounts_of(container, volumes, self._scratch)}

                def replace(value: str, mounts: dict[str, Path] = mounts) -> str:
                    return replace_port(replace_paths(value, mounts), ports)

                environment = environment_of(
                    self._store, self.object, container, {**base, **port_variables(container, ports)}, replace
                )
            except ConfigurationError as error:
                self.status.waiting(container, "CreateContainerConfigError", str(error))
                await self._pause(0.2)
                continue
            words = [*container["command"], *(container.get("args") or ())]
            words = [replace_port_in_word(replace_paths(word, mounts), ports) for word in words]
            return _Launch([expand(word, environment) for word in words], environment, root, ports)
        self._ports.release(ports)
        return None

    async def _run_once(self, container: dict[str, Any], launch: _Launch, *, watch: bool) -> _Outcome:
        """Run a container once; `watch` probes it."""
        log = self._log_of(container["name"])
        try:
            self._process = await self._node.starter.start(launch.command, launch.environment, launch.root, log)
        except OSError as error:
            message = f"cannot run {launch.command[0]}: {error.strerror}"
            log.write_text(f"{message}\n")
            return _Outcome(127, "StartError", message)
        self.ports = launch.ports
        exited = asyncio.ensure_future(self._process.exited())
        ending = asyncio.ensure_future(self._ending.wait())
        self.status.running(container)
        health = asyncio.ensure_future(self._watch(container, launch.ports) if watch else _nothing())
        reason = message = ""
        try:
            await asyncio.wait([exited, ending, health], return_when=asyncio.FIRST_COMPLETED)
            if health.done() and not exited.done() and not ending.done():
                if (problem := _unhealthy(health)) is not None:
                    reason, message = "Unhealthy", problem
                    record(self._store, POD, self.object, "Unhealthy", message, warning=True)
                else:  # nothing more to probe
                    await asyncio.wait([exited, ending], return_when=asyncio.FIRST_COMPLETED)
            if not exited.done():
                health.cancel()
                await self._shut_down(container, launch.ports, exited, sleep=not reason)
            return _Outcome(await exited, reason, message)
        finally:
            ending.cancel()
            health.cancel()
            await asyncio.gather(health, return_exceptions=True)
            if not exited.done():
                self._process.kill()
                await exited
            self._process = None
            self.ports = {}

    def _watch(self, container: dict[str, Any], ports: dict[int, int]) -> Awaitable[None]:
        return HealthWatch(
            container,
            ports,
            self._session,
            lambda: self.status.started(container),
            lambda ready, why: self.status.ready(container, ports, ready=ready, why=why),
        ).run()

    async def _shut_down(
        self, container: dict[str, Any], ports: dict[int, int], exited: asyncio.Future[int], *, sleep: bool
    ) -> None:
        """Take the pod out of the router, let requests finish, then preStop, SIGTERM, grace period, SIGKILL."""
        assert self._process is not None
        grace = current(self._store, self.object)["metadata"].get("deletionGracePeriodSeconds")
        if grace is None:
            grace = self._spec.get("terminationGracePeriodSeconds", 30)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        if container is self._spec["containers"][0]:
            self.status.ready(container, ports, ready=False, why="the pod is being terminated")
        await self._node.drained(uid_of(self.object), grace)
        pre_stop = ((container.get("lifecycle") or {}).get("preStop") or {}).get("sleep")
        if pre_stop and sleep:
            seconds = min(pre_stop["seconds"] * self._node.time_scale, max(0.0, deadline - loop.time()))
            await asyncio.wait([exited], timeout=seconds)
        self._process.terminate()
        await asyncio.wait([exited], timeout=max(0.0, deadline - loop.time()))
        if not exited.done():
            self._process.kill()
        await asyncio.wait([exited])

    def _log_of(self, container: str) -> Path:
        return _log_file(self._folder, container, self.status.restarts.get(container, 0))

    def _says_port_taken(self, container: str) -> bool:
        try:
            end = self._log_of(container).read_bytes()[-4096:]
        except FileNotFoundError:
            return False
        return any(sign in end for sign in _PORT_TAKEN)


async def _nothing() -> None:
    """Watch nothing."""


def _unhealthy(health: asyncio.Future[None]) -> str | None:
    """Return why the health watch gave up, or None if it had nothing to watch."""
    error = health.exception()
    if error is None:
        return None
    if isinstance(error, Unhealthy):
        return str(error)
    if isinstance(error, BaseExceptionGroup):
        matched = error.subgroup(Unhealthy)
        if matched is not None:
            return str(matched.exceptions[0])
    raise error
