"""Object store that mirrors a Kubernetes API server, so that the laptop's node and router work on a real cluster.

Reads answer from the mirror, which watches keep up to date. A write changes the mirror at once and is sent in the
background, in order for each object. Until the server has it, it is applied again to every newer version that arrives.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from laptop.cluster.kinds import CONFIG_MAP, EVENT, INGRESS, NAMESPACE, POD, SECRET, SERVICE, SERVICE_ACCOUNT, Kind
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, name_of, namespace_of, uid_of
from laptop.cluster.refusals import StatusError

_log = logging.getLogger(__name__)

MIRRORED = (NAMESPACE, SERVICE_ACCOUNT, CONFIG_MAP, SECRET, SERVICE, INGRESS, POD)
"""Kinds that the node and the router read."""

_AGAIN_AFTER = 0.2  # seconds until a watch or a write that failed is tried again
_TRIES = 25  # of one write
_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
_GONE, _NOT_FOUND, _CONFLICT = 410, 404, 409

Change = Callable[[Object], None]
Key = tuple[Kind, str]
"""Kind and uid of an object."""


class MirroredObjects(ObjectStore):
    """Mirror of the objects of an API server. Call `start` and `close` in the same event loop.

    Args:
        url: address of the API server.
        session: client that authenticates to it.
        node: name of the node; pods of other nodes are not seen.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, node: str) -> None:
        super().__init__()
        self._url = url
        self._session = session
        self._node = node
        self._served: dict[Key, Object] = {}  # as the server last gave them
        self._pending: dict[Key, deque[Change]] = {}
        self._queues: dict[Key, asyncio.Queue[Callable[[], Awaitable[None]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read every object, then follow the changes."""
        for kind in MIRRORED:
            version = await self._list(kind)
            self._begin(self._follow(kind, version))

    async def close(self) -> None:
        """Stop following, and drop writes that are not sent yet."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until the server has every write."""
        for queue in tuple(self._queues.values()):
            await queue.join()

    def create(
        self, kind: Kind, namespace: str, obj: Object, prepare: Callable[[Object, str], Object] | None = None
    ) -> Object:
        """Add an event. The node creates nothing else."""
        assert kind is EVENT, kind
        obj = copy.deepcopy(obj)
        made = super().create(kind, namespace, obj, prepare)

        async def send() -> None:
            body = {**obj, "apiVersion": "v1", "kind": "Event", "metadata": {"name": name_of(made)}}
            await self._send("POST", kind.path(namespace), body)

        self._queue((kind, uid_of(made)), send)
        return made

    def modify(self, kind: Kind, obj: Object, change: Change) -> Object | None:
        """Apply `change` to a copy of the newest version, store it, and send what changed."""
        if kind is EVENT:
            return super().modify(kind, obj, change)
        old = self.find(kind, namespace_of(obj), name_of(obj))
        if old is None or uid_of(old) != uid_of(obj):
            return None
        new = copy.deepcopy(old)
        change(new)
        if new == old:
            return old
        key = (kind, uid_of(obj))
        self._pending.setdefault(key, deque()).append(change)
        self._put(kind, new, "MODIFIED")
        self._queue(key, lambda: self._send_changes(key))
        return new

    def remove(self, kind: Kind, obj: Object) -> Object:
        """Remove an object from the server; the mirror follows."""
        if kind is EVENT:
            return super().remove(kind, obj)
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid_of(obj)}}
        path = kind.path(namespace_of(obj), name_of(obj))
        self._queue((kind, uid_of(obj)), lambda: self._send("DELETE", path, body))
        return obj

    # From the server

    async def _list(self, kind: Kind) -> str:
        """Bring the mirror up to date with a list, and return its version."""
        status, found = await self._call("GET", self._collection(kind))
        if status != 200:
            raise StatusError(status, "", f"cannot list {kind.plural}: {found.get('message')}")
        seen = set()
        for item in found["items"]:
            seen.add(uid_of(item))
            self._take("MODIFIED", kind, {"apiVersion": kind.api_version, "kind": kind.name, **item})
        for old in self.find_all(kind):
            if uid_of(old) not in seen:
                self._take("DELETED", kind, old)
        return str(found["metadata"]["resourceVersion"])

    async def _follow(self, kind: Kind, version: str) -> None:
        while True:
            try:
                version = await self._watch(kind, version)
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                await asyncio.sleep(_AGAIN_AFTER)
            except _Expired:
                version = await self._list(kind)

    async def _watch(self, kind: Kind, version: str) -> str:
        """Take changes until the server ends the watch, and return the version to go on from."""
        path = self._collection(kind)
        joint = "&" if "?" in path else "?"
        path += f"{joint}watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with self._session.get(f"{self._url}{path}", timeout=timeout) as answer:
            if answer.status == _GONE:
                raise _Expired
            answer.raise_for_status()
            line = b""
            async for chunk in answer.content.iter_any():
                *lines, line = (line + chunk).split(b"\n")
                for text in lines:
                    event = json.loads(text)
                    if event["type"] == "ERROR":
                        raise _Expired
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        self._take(event["type"], kind, event["object"])
        return version

    def _collection(self, kind: Kind) -> str:
        return kind.path() + (f"?fieldSelector=spec.nodeName%3D{self._node}" if kind is POD else "")

    def _take(self, type_: str, kind: Kind, obj: Object) -> None:
        """Take a version of an object from the server."""
        key = (kind, uid_of(obj))
        old = self.find(kind, namespace_of(obj), name_of(obj))
        if type_ == "DELETED":
            self._served.pop(key, None)
            self._pending.pop(key, None)
            if old is not None and uid_of(old) == uid_of(obj):
                self._drop(kind, obj)
            return
        served = self._served.get(key)
        if served is not None and _version(served) >= _version(obj):
            return
        if old is not None and uid_of(old) != uid_of(obj):
            self._drop(kind, old)
            old = None
        self._served[key] = obj
        new = self._with_pending(key, obj)
        if new != old:
            self._put(kind, new, "ADDED" if old is None else "MODIFIED")

    def _with_pending(self, key: Key, obj: Object) -> Object:
        pending = self._pending.get(key)
        if not pending:
            return obj
        new = copy.deepcopy(obj)
        for change in pending:
            change(new)
        return new

    def _put(self, kind: Kind, obj: Object, type_: str) -> None:
        self._version += 1
        self._objects.setdefault(kind, {})[(namespace_of(obj), name_of(obj))] = obj
        self._tell(ObjectEvent(type_, kind, obj, self._version))

    def _drop(self, kind: Kind, obj: Object) -> None:
        super().remove(kind, obj)

    # To the server

    def _queue(self, key: Key, write: Callable[[], Awaitable[None]]) -> None:
        if key not in self._queues:
            self._queues[key] = asyncio.Queue()
            self._begin(self._work_off(self._queues[key]))
        self._queues[key].put_nowait(write)

    async def _work_off(self, queue: asyncio.Queue[Callable[[], Awaitable[None]]]) -> None:
        while True:
            write = await queue.get()
            try:
                await write()
            finally:
                queue.task_done()

    async def _send_changes(self, key: Key) -> None:
        """Send the pending changes of an object, made to its newest version on the server."""
        kind = key[0]
        for _ in range(_TRIES):
            served, pending = self._served.get(key), self._pending.get(key)
            if served is None or not pending:
                return
            count, wanted = len(pending), self._with_pending(key, served)
            path = kind.path(namespace_of(served), name_of(served))
            for part, target in (("metadata", path), ("status", f"{path}/status")):
                difference = merge_patch(served.get(part) or {}, wanted.get(part) or {})
                if not difference:
                    continue
                version = {"metadata": {"resourceVersion": served["metadata"]["resourceVersion"]}}
                patch = {"metadata": {**difference, **version["metadata"]}} if part == "metadata" else version
                if part == "status":
                    patch = {**version, "status": difference}
                code, answer = await self._call("PATCH", target, patch, _MERGE_PATCH)
                if code == _NOT_FOUND:
                    return
                if code == _CONFLICT:
                    code, answer = await self._call("GET", path)
                    if code == 200 and uid_of(answer) == key[1]:
                        self._take("MODIFIED", kind, answer)
                    break
                if code >= 300:
                    _log.error("%s %s: %s", kind.name, path, answer.get("message"))
                    for _ in range(count):
                        pending.popleft()
                    return
                self._served[key] = served = answer
            else:
                for _ in range(count):
                    pending.popleft()
                return

    async def _send(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        code, answer = await self._call(method, path, body)
        if code >= 300 and code not in (_NOT_FOUND, _CONFLICT):
            _log.warning("%s %s: %s", method, path, answer.get("message"))

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Object]:
        """Send a request, and return the status and the answer. Tries again while the server does not answer."""
        data = None if body is None else json.dumps(body)
        given = {"Content-Type": "application/json", **(headers or {})} if body is not None else {}
        for _ in range(_TRIES):
            try:
                async with self._session.request(method, f"{self._url}{path}", data=data, headers=given) as answer:
                    return answer.status, await answer.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, ConnectionError):
                await asyncio.sleep(_AGAIN_AFTER)
        raise StatusError(503, "ServiceUnavailable", f"{self._url} does not answer")

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Expired(Exception):  # noqa: N818
    """The server no longer keeps the changes since a version."""


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def merge_patch(old: Any, new: Any) -> Any:
    """Return the JSON merge patch (RFC 7396) that turns a mapping into another; {} if they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old or old[key] != value:
            both = isinstance(value, dict) and isinstance(old.get(key), dict)
            patch[key] = merge_patch(old[key], value) if both else value
    return patch
