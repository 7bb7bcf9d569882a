"""Runs pods: what a kubelet does, with a process in the place of a container."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from laptop.cluster.conditions import set_condition
from laptop.cluster.environment import ConfigurationError, environment_of, expand
from laptop.cluster.events import record
from laptop.cluster.images import Images, MissingImageError
from laptop.cluster.kinds import POD
from laptop.cluster.ports import free_port
from laptop.cluster.probes import Unhealthy, watch_health
from laptop.cluster.processes import Process, start_process
from laptop.cluster.store import Event, Object, Store, is_deleting, name_of, namespace_of, now, uid_of
from laptop.cluster.watchdog import Watchdog

_log = logging.getLogger(__name__)

PORT_ANNOTATION = "mlops.local/port"
"""On a pod: where its port `http` really listens on 127.0.0.1."""

_PULL_AGAIN = (0.25, 0.5, 1.0, 2.0)  # seconds between looks for a missing image; the last repeats
_RESTART_AFTER = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # Kubernetes waits 10 s, 20 s, ... 5 min
_PORT_TAKEN = (b"EADDRINUSE", b"ddress already in use", b"Errno 98", b"Errno 48")
_PORT_TRIES = 5


class Identity(Protocol):
    """Gives pods the means to get credentials."""

    def admit(self, pod: Object, folder: Path) -> dict[str, str]:
        """The variables that lead a pod to its credentials; a token is written into `folder`."""
        ...

    def dismiss(self, pod: Object) -> None:
        """The pod is gone: its token is worth nothing from now on."""
        ...


@dataclass(frozen=True)
class Runtime:
    """What pods are run with.

    Attributes:
        folder: where each pod has its own folder.
        time_scale: a declared preStop sleep lasts this share of itself.
        images: where images are looked for.
        identity: where pods get their credentials.
        drained: waits until no request is under way to the pod with that uid, for at most so many seconds.
        proxy: gives the address of the HTTP proxy that knows the names of Services.
        services: gives the variables by which a pod of a namespace finds the Services there.
    """

    folder: Path
    time_scale: float
    images: Images
    identity: Identity
    drained: Callable[[str, float], Awaitable[None]]
    proxy: Callable[[], str]
    services: Callable[[str], dict[str, str]]


class PodRunner:
    """Starts, watches and ends the processes of all pods."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._pods: dict[str, _RunningPod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._watchdog = Watchdog()
        self._ports: set[int] = set()
        store.listen(self._on_event)

    def log_of(self, pod: Object, *, previous: bool = False) -> Path:
        """The file with what the pod's container printed; it may not be there yet."""
        restarts = (pod.get("status") or {}).get("containerStatuses", [{}])[0].get("restartCount", 0)
        return self._folder(pod) / f"{restarts - 1 if previous else restarts}.log"

    async def close(self, grace: float) -> None:
        """Ends all pods at once: SIGTERM, at most `grace` seconds, SIGKILL."""
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
        self._watchdog.close()

    def _on_event(self, event: Event) -> None:
        if event.kind is not POD:
            return
        uid = uid_of(event.object)
        if event.type == "ADDED":
            if self._session is None:
                connector = aiohttp.TCPConnector(limit=0, force_close=True)
                self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
            pod = _RunningPod(
                self._store, self._runtime, self._watchdog, self._session, self._ports, event.object, self._folder
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
            pod.fail("Error", "the small cluster could not run the pod; see its log")
        finally:
            self._pods.pop(uid, None)
            self._tasks.pop(uid, None)
        newest = self._store.find(POD, namespace_of(pod.object), pod.name)
        if newest is not None and uid_of(newest) == uid and is_deleting(newest):
            self._remove(newest)

    def _remove(self, pod: Object) -> None:
        self._runtime.identity.dismiss(pod)
        shutil.rmtree(self._folder(pod), ignore_errors=True)
        self._store.remove(POD, pod)

    def _folder(self, pod: Object) -> Path:
        return self._runtime.folder / f"{namespace_of(pod)}_{name_of(pod)}_{uid_of(pod)[:8]}"


class _RunningPod:
    """One pod from its acceptance to its end."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        watchdog: Watchdog,
        session: aiohttp.ClientSession,
        ports: set[int],
        pod: Object,
        folder: Callable[[Object], Path],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._watchdog = watchdog
        self._session = session
        self._ports = ports
        self.object = pod
        self.name = name_of(pod)
        self._spec: dict[str, Any] = pod["spec"]
        self._container: dict[str, Any] = pod["spec"]["containers"][0]
        self._folder = folder(pod)
        self._root = self._folder  # the image's files, once it is pulled
        self._accepted = asyncio.get_running_loop().time()
        self._ending = asyncio.Event()
        self._why = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._process: Process | None = None
        self._port: int | None = None
        self._restarts = 0
        self._identity: dict[str, str] = {}
        self.changed(pod)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def changed(self, pod: Object) -> None:
        """Takes note of a deletion, and of a deadline, which may be set while the pod runs."""
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

    def fail(self, reason: str, message: str) -> None:
        def change(status: dict[str, Any]) -> None:
            status |= {"phase": "Failed", "reason": reason, "message": message}

        self._set(change)

    async def run(self) -> None:
        (self._folder / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
        self._identity = self._runtime.identity.admit(self.object, self._folder)
        self._set(self._accept)
        try:
            if await self._pull_image():
                await self._run_container_as_often_as_due()
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            if self._port is not None:
                self._ports.discard(self._port)
        if self._why:
            self.fail(self._why, "Pod was active on the node longer than the specified deadline")

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._ending.set()

    async def _pause(self, seconds: float) -> bool:
        """Waits; True when the pod is to end meanwhile."""
        try:
            await asyncio.wait_for(self._ending.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _pull_image(self) -> bool:
        """Waits for the image; False when the pod ends before it is there."""
        image, tries = self._container.get("image", ""), 0
        while not self._ending.is_set():
            try:
                self._root = await self._runtime.images.pull(image)
            except MissingImageError as error:
                if tries == 0:
                    record(self._store, POD, self.object, "Failed", f"Failed to pull image: {error}", warning=True)
                self._wait_for("ErrImagePull" if tries == 0 else "ImagePullBackOff", str(error))
            else:
                return True
            await self._pause(_PULL_AGAIN[min(tries, len(_PULL_AGAIN) - 1)])
            tries += 1
        return False

    async def _run_container_as_often_as_due(self) -> None:
        port_tries = 0
        policy = self._spec.get("restartPolicy") or "Always"
        while not self._ending.is_set():
            environment = await self._environment()
            if environment is None:
                return
            started = now()
            code, reason, message = await self._run_container(environment)
            if code != 0 and port_tries < _PORT_TRIES and self._port_was_taken():
                port_tries += 1  # another program was faster: no fault of the pod's
                continue
            terminated = {"exitCode": code if code >= 0 else 128 - code, "startedAt": started, "finishedAt": now()}
            terminated |= {"reason": reason or ("Completed" if code == 0 else "Error")}
            terminated |= {"message": message} if message else {}
            again = policy == "Always" or (policy == "OnFailure" and code != 0)
            if not again or self._ending.is_set():
                self._finish(terminated, code == 0 and not reason)
                return
            backoff = _RESTART_AFTER[min(self._restarts, len(_RESTART_AFTER) - 1)]
            self._restarts += 1
            self._back_off(terminated, backoff)
            if await self._pause(backoff):
                return

    async def _environment(self) -> dict[str, str] | None:
        """The container's variables, waiting for what they name; None when the pod ends before that is there."""
        linked = self._spec.get("enableServiceLinks", True)
        base = {
            **(self._runtime.services(namespace_of(self.object)) if linked else {}),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder / "tmp"),
            "HOSTNAME": self.name,
            "LANG": "C.UTF-8",
            # The image's own code, not that of the checkout that the Python environment was made in.
            "PYTHONPATH": str(self._root),
            "PYTHONUNBUFFERED": "1",
            **dict.fromkeys(("http_proxy", "HTTP_PROXY"), self._runtime.proxy()),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
            **self._identity,
        }
        while not self._ending.is_set():
            try:
                environment = environment_of(self._store, self.object, self._container, base)
            except ConfigurationError as error:
                self._wait_for("CreateContainerConfigError", str(error))
                await self._pause(0.2)
                continue
            if self._container.get("ports"):
                if self._port is not None:
                    self._ports.discard(self._port)
                self._port = free_port(self._ports)
                self._ports.add(self._port)
                environment["PORT"] = str(self._port)
            return environment
        return None

    async def _run_container(self, environment: dict[str, str]) -> tuple[int, str, str]:
        """Runs it once; the exit code, and the reason and message of an end that we brought about."""
        command = [*self._container["command"], *(self._container.get("args") or ())]
        command = [expand(word, environment) for word in command]
        log = self._folder / f"{self._restarts}.log"
        try:
            self._process = await start_process(command, environment, self._root, log, self._watchdog)
        except OSError as error:
            log.write_text(f"cannot run {command[0]}: {error.strerror}\n")
            return 127, "StartError", f"cannot run {command[0]}: {error.strerror}"
        exited = asyncio.ensure_future(self._process.exited())
        ending = asyncio.ensure_future(self._ending.wait())
        self._set(self._running)
        health = asyncio.ensure_future(
            watch_health(self._container, self._port, self._session, self._started, self._ready)
        )
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
                await self._shut_down(exited, reason)
            return await exited, reason, message
        finally:
            ending.cancel()
            health.cancel()
            await asyncio.gather(health, return_exceptions=True)
            if not exited.done():
                self._process.kill()
                await exited
            self._process = None

    async def _shut_down(self, exited: asyncio.Future[int], reason: str) -> None:
        """Out of the router, requests under way finished, preStop, SIGTERM, grace, SIGKILL."""
        assert self._process is not None
        newest = self._store.find(POD, namespace_of(self.object), self.name) or self.object
        grace = newest["metadata"].get("deletionGracePeriodSeconds")
        if grace is None:
            grace = self._spec.get("terminationGracePeriodSeconds", 30)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self._ready(False, "the pod is being terminated")
        await self._runtime.drained(uid_of(self.object), grace)
        sleep = ((self._container.get("lifecycle") or {}).get("preStop") or {}).get("sleep")
        if sleep and not reason:
            seconds = min(sleep["seconds"] * self._runtime.time_scale, max(0.0, deadline - loop.time()))
            await asyncio.wait([exited], timeout=seconds)
        self._process.terminate()
        await asyncio.wait([exited], timeout=max(0.0, deadline - loop.time()))
        if not exited.done():
            self._process.kill()
        await asyncio.wait([exited])

    def _port_was_taken(self) -> bool:
        if self._port is None:
            return False
        try:
            said = (self._folder / f"{self._restarts}.log").read_bytes()[-4096:]
        except FileNotFoundError:
            return False
        return any(sign in said for sign in _PORT_TAKEN)

    # What the pod says of itself.

    def _set(self, change: Callable[[dict[str, Any]], None]) -> None:
        def apply(pod: Object) -> None:
            change(pod.setdefault("status", {}))

        self._store.modify(POD, self.object, apply)

    def _container_status(self, **changes: Any) -> dict[str, Any]:
        newest = self._store.find(POD, namespace_of(self.object), self.name) or self.object
        old = (newest.get("status") or {}).get("containerStatuses", [{}])[0]
        image = self._container.get("image", "")
        base = {"name": self._container["name"], "image": image, "imageID": image, "lastState": {}}
        return {**base, "ready": False, "started": False, **old, "restartCount": self._restarts, **changes}

    def _accept(self, status: dict[str, Any]) -> None:
        status |= {"phase": "Pending", "startTime": now(), "hostIP": "127.0.0.1", "podIP": "127.0.0.1"}
        status["podIPs"] = [{"ip": "127.0.0.1"}]
        set_condition(status, "PodScheduled", True)
        set_condition(status, "Initialized", True)
        self._unready(status, "ContainersNotReady")
        status["containerStatuses"] = [
            self._container_status(state={"waiting": {"reason": "ContainerCreating"}}, ready=False)
        ]

    def _wait_for(self, reason: str, message: str) -> None:
        def change(status: dict[str, Any]) -> None:
            state = {"waiting": {"reason": reason, "message": message}}
            status["containerStatuses"] = [self._container_status(state=state, ready=False, started=False)]

        self._set(change)

    def _running(self, status: dict[str, Any]) -> None:
        status["phase"] = "Running"
        state = {"running": {"startedAt": now()}}
        status["containerStatuses"] = [self._container_status(state=state, ready=False, started=False)]
        self._unready(status, "ContainersNotReady")

    def _started(self) -> None:
        def change(status: dict[str, Any]) -> None:
            status["containerStatuses"] = [self._container_status(started=True)]

        self._set(change)

    def _ready(self, ready: bool, why: str) -> None:
        port = self._port

        def apply(pod: Object) -> None:
            status = pod.setdefault("status", {})
            status["containerStatuses"] = [self._container_status(ready=ready)]
            if ready:
                if port is not None:
                    pod["metadata"].setdefault("annotations", {})[PORT_ANNOTATION] = str(port)
                set_condition(status, "ContainersReady", True)
                set_condition(status, "Ready", True)
            else:
                self._unready(status, "ContainersNotReady", why)

        self._store.modify(POD, self.object, apply)

    def _back_off(self, terminated: dict[str, Any], seconds: float) -> None:
        def change(status: dict[str, Any]) -> None:
            message = f"back-off {seconds:g}s restarting failed container"
            status["containerStatuses"] = [
                self._container_status(
                    state={"waiting": {"reason": "CrashLoopBackOff", "message": message}},
                    lastState={"terminated": terminated},
                    ready=False,
                    started=False,
                )
            ]
            self._unready(status, "ContainersNotReady")

        self._set(change)
        text = f"Back-off restarting failed container (exit code {terminated['exitCode']})"
        record(self._store, POD, self.object, "BackOff", text, warning=True)

    def _finish(self, terminated: dict[str, Any], succeeded: bool) -> None:
        def change(status: dict[str, Any]) -> None:
            status["phase"] = "Succeeded" if succeeded else "Failed"
            state = {"terminated": terminated}
            status["containerStatuses"] = [self._container_status(state=state, ready=False, started=False)]
            self._unready(status, "PodCompleted" if succeeded else "PodFailed")

        self._set(change)

    @staticmethod
    def _unready(status: dict[str, Any], reason: str, message: str = "") -> None:
        set_condition(status, "ContainersReady", False, reason, message)
        set_condition(status, "Ready", False, reason, message)


def _unhealthy(health: asyncio.Future[None]) -> str | None:
    """Why the health watch gave up, or None when it had nothing to watch."""
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
