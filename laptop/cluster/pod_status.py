"""Status of a pod, as a kubelet reports it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from laptop.cluster.conditions import is_true, set_condition
from laptop.cluster.kinds import POD
from laptop.cluster.objects import Object, ObjectStore, name_of, namespace_of, now
from laptop.cluster.ports import PORTS_ANNOTATION

_NOT_READY = "ContainersNotReady"


class PodStatus:
    """Writer of one pod's status.

    Args:
        store: objects of the cluster.
        pod: pod.
        address: address to report.
    """

    def __init__(self, store: ObjectStore, pod: Object, address: str = "127.0.0.1") -> None:
        self._store = store
        self._address = address
        self._pod = pod
        self._initial = {container["name"] for container in pod["spec"].get("initContainers") or ()}
        self.restarts: dict[str, int] = {}
        """Container → number of restarts."""

    def accept(self) -> None:
        """Report that the pod is on the node and its containers are being created."""
        waiting = {"waiting": {"reason": "PodInitializing" if self._initial else "ContainerCreating"}}

        def change(status: dict[str, Any]) -> None:
            status |= {"phase": "Pending", "startTime": now(), "hostIP": "127.0.0.1", "podIP": self._address}
            status["podIPs"] = [{"ip": self._address}]
            set_condition(status, "PodScheduled", True)
            set_condition(status, "Initialized", not self._initial, "ContainersNotInitialized" if self._initial else "")
            _set_unready(status, _NOT_READY)
            for key in ("initContainers", "containers"):
                for container in self._pod["spec"].get(key) or ():
                    self._put(status, container, state=waiting)

        self._change(change)

    def initialized(self) -> None:
        """Report that every init container has succeeded."""
        self._change(lambda status: set_condition(status, "Initialized", True))

    def waiting(self, container: Mapping[str, Any], reason: str, message: str) -> None:
        """Report why a container has not started yet."""
        state = {"waiting": {"reason": reason, "message": message}}
        self._change(lambda status: self._put(status, container, state=state))

    def running(self, container: Mapping[str, Any]) -> None:
        """Report that a container's process is running."""

        def change(status: dict[str, Any]) -> None:
            if container["name"] not in self._initial:
                status["phase"] = "Running"
                _set_unready(status, _NOT_READY)
            self._put(status, container, state={"running": {"startedAt": now()}})

        self._change(change)

    def started(self, container: Mapping[str, Any]) -> None:
        """Report that a container's startup probe has succeeded."""
        self._change(lambda status: self._put(status, container, started=True))

    def ready(self, container: Mapping[str, Any], ports: Mapping[int, int], *, ready: bool, why: str = "") -> None:
        """Report the readiness of the main container, and where its ports are once it is ready."""

        def apply(pod: Object) -> None:
            status = pod.setdefault("status", {})
            self._put(status, container, ready=ready, started=True)
            if not ready:
                _set_unready(status, _NOT_READY, why)
                return
            if ports:
                pod["metadata"].setdefault("annotations", {})[PORTS_ANNOTATION] = json.dumps(dict(ports))
            set_condition(status, "ContainersReady", True)
            report_readiness(pod)

        self._store.modify(POD, self._pod, apply)

    def unschedulable(self, message: str) -> None:
        """Report that no node has room for the pod yet."""

        def change(status: dict[str, Any]) -> None:
            status["phase"] = "Pending"
            set_condition(status, "PodScheduled", False, "Unschedulable", message)

        self._change(change)

    def back_off(self, container: Mapping[str, Any], terminated: dict[str, Any], seconds: float) -> None:
        """Report that a container will be restarted."""
        message = f"back-off {seconds:g}s restarting failed container"
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}

        def change(status: dict[str, Any]) -> None:
            self._put(status, container, state=state, lastState={"terminated": terminated})
            _set_unready(status, _NOT_READY)

        self._change(change)

    def terminated(self, container: Mapping[str, Any], terminated: dict[str, Any], *, succeeded: bool) -> None:
        """Report that a container has ended and will not be restarted."""
        is_initial = container["name"] in self._initial

        def change(status: dict[str, Any]) -> None:
            self._put(status, container, state={"terminated": terminated}, ready=is_initial and succeeded)
            if is_initial and succeeded:
                return
            status["phase"] = "Succeeded" if succeeded else "Failed"
            _set_unready(status, "PodCompleted" if succeeded else "PodFailed")

        self._change(change)

    def failed(self, reason: str, message: str) -> None:
        """Report that the pod has failed as a whole."""
        self._change(lambda status: status.update(phase="Failed", reason=reason, message=message))

    def _change(self, change: Callable[[dict[str, Any]], object]) -> None:
        def apply(pod: Object) -> None:
            change(pod.setdefault("status", {}))

        self._store.modify(POD, self._pod, apply)

    def _put(self, status: dict[str, Any], container: Mapping[str, Any], **changes: Any) -> None:
        """Set the status of one container; `ready` and `started` are False unless given."""
        key = "initContainerStatuses" if container["name"] in self._initial else "containerStatuses"
        statuses: list[dict[str, Any]] = status.setdefault(key, [])
        image = container.get("image", "")
        old = next((item for item in statuses if item["name"] == container["name"]), None)
        base = {"name": container["name"], "image": image, "imageID": image, "lastState": {}}
        new = {**base, **(old or {}), "ready": False, "started": False}
        new |= {"restartCount": self.restarts.get(container["name"], 0), **changes}
        if old is None:
            statuses.append(new)
        else:
            statuses[statuses.index(old)] = new


def report_readiness(pod: Object) -> None:
    """Set the condition Ready of a pod in place: its containers are ready, and its readiness gates are met."""
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()]
    unmet = [gate for gate in gates if not is_true(pod, gate)]
    status = pod.setdefault("status", {})
    if not is_true(pod, "ContainersReady"):
        set_condition(status, "Ready", False, _NOT_READY)
    elif unmet:
        message = f'the status of pod readiness gate "{unmet[0]}" is not "True"'
        set_condition(status, "Ready", False, "ReadinessGatesNotReady", message)
    else:
        set_condition(status, "Ready", True)


def restart_count(pod: Object, container: str) -> int:
    """Return the number of restarts of a container."""
    status = pod.get("status") or {}
    for key in ("containerStatuses", "initContainerStatuses"):
        for item in status.get(key) or ():
            if item["name"] == container:
                return int(item.get("restartCount", 0))
    return 0


def current(store: ObjectStore, pod: Object) -> Object:
    """Return the newest version of a pod."""
    return store.find(POD, namespace_of(pod), name_of(pod)) or pod


def _set_unready(status: dict[str, Any], reason: str, message: str = "") -> None:
    set_condition(status, "ContainersReady", False, reason, message)
    set_condition(status, "Ready", False, reason, message)
