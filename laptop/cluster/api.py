"""The Kubernetes REST API over the store: the verbs that clients such as lightkube and kubectl use."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from laptop.cluster import patches
from laptop.cluster.admission import admit
from laptop.cluster.defaults import with_defaults
from laptop.cluster.kinds import KINDS, POD, Kind, kind_at
from laptop.cluster.refusals import Refusal, bad_request
from laptop.cluster.schemas import KUBERNETES_VERSION
from laptop.cluster.selectors import field_selector, label_selector
from laptop.cluster.store import Event, Object, Store, name_of, namespace_of

_log = logging.getLogger(__name__)

_BODY_LIMIT = 3 * 1024 * 1024  # bytes, as the real API server's
_FOLLOW = 0.05  # seconds between looks at a log that is followed
_CUSTOM_GROUP = "argoproj.io"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The API server.

    Args:
        store: the objects.
        token: the bearer token that every request must carry.
        log_of: the log file of a pod.
        about: facts about the cluster, served at `/small-cluster`.
    """

    def __init__(
        self,
        store: Store,
        token: str,
        log_of: Callable[..., Path],
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._store = store
        self._token = f"Bearer {token}".encode()
        self._log_of = log_of
        self._about = about

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=_BODY_LIMIT, middlewares=[self._guard])
        add = app.router.add_route
        add("GET", "/small-cluster", self._describe)
        for path in ("/livez", "/readyz", "/healthz"):
            add("GET", path, self._healthy)
        add("GET", "/version", self._version)
        add("GET", "/api", self._versions)
        add("GET", "/apis", self._groups)
        for base in ("/api/{version:v1}", "/apis/{group}/{version}"):
            add("GET", base, self._resources)
            for scope in ("", "/namespaces/{namespace}"):
                collection = f"{base}{scope}/{{plural}}"
                add("GET", collection, self._list)
                add("POST", collection, self._create)
                add("DELETE", collection, self._delete_collection)
                for path in (f"{collection}/{{name}}", f"{collection}/{{name}}/{{sub:status}}"):
                    add("GET", path, self._get)
                    add("PUT", path, self._replace)
                    add("PATCH", path, self._patch)
                add("DELETE", f"{collection}/{{name}}", self._delete)
        add("GET", "/api/{version:v1}/namespaces/{namespace}/pods/{name}/log", self._log)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, self._token):
                raise Refusal(401, "Unauthorized", "the bearer token of the kubeconfig is required")
            return await handler(request)
        except Refusal as refusal:
            return _json(refusal.status(), status=refusal.code)
        except web.HTTPException as error:
            reason = {404: "NotFound", 405: "MethodNotAllowed", 413: "RequestEntityTooLarge"}.get(error.status, "")
            message = "the small cluster has nothing at this path" if error.status == 404 else error.reason
            return _json(Refusal(error.status, reason, message).status(), status=error.status)
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            defect = Refusal(500, "InternalError", f"{type(error).__name__}: {error}")
            return _json(defect.status(), status=500)

    # Reading

    async def _get(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        return _json(self._store.get(kind, namespace, name))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, _ = _target(request)
        labels = label_selector(request.query.get("labelSelector", ""))
        fields = field_selector(request.query.get("fieldSelector", ""))
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request, kind, namespace, lambda obj: labels(obj) and fields(obj))
        items = [obj for obj in self._store.find_all(kind, namespace) if labels(obj) and fields(obj)]
        return _json(
            {
                "apiVersion": kind.api_version,
                "kind": f"{kind.name}List",
                "metadata": {"resourceVersion": str(self._store.version)},
                "items": items,
            }
        )

    async def _watch(
        self, request: web.Request, kind: Kind, namespace: str, wanted: Callable[[Object], bool]
    ) -> web.StreamResponse:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        since = request.query.get("resourceVersion", "")
        if since not in ("", "0"):
            for event in self._store.since(int(since)):
                queue.put_nowait(event)
        else:
            for obj in self._store.find_all(kind, namespace):
                queue.put_nowait(Event("ADDED", kind, obj, self._store.version))
        stop = self._store.listen(queue.put_nowait)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            seconds = request.query.get("timeoutSeconds")
            async with asyncio.timeout(float(seconds) if seconds else None):
                while True:
                    event = await queue.get()
                    there = not namespace or namespace_of(event.object) == namespace
                    if event.kind is kind and there and wanted(event.object):
                        line = json.dumps({"type": event.type, "object": event.object}, separators=(",", ":"))
                        await response.write(line.encode() + b"\n")
        except TimeoutError:
            await response.write_eof()
        finally:
            stop()
        return response

    async def _log(self, request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        pod = self._store.get(POD, namespace, name)
        waiting = (pod.get("status") or {}).get("containerStatuses", [{}])[0].get("state", {}).get("waiting")
        previous = request.query.get("previous") in ("1", "true")
        file = self._log_of(pod, previous=previous)
        if not file.exists():
            why = (waiting or {}).get("reason", "it has not started")
            raise bad_request(f'container of pod "{name}" is waiting to start: {why}')
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        await response.prepare(request)
        follow = request.query.get("follow") in ("1", "true") and not previous
        tail = request.query.get("tailLines")
        with file.open("rb") as log:
            if tail is not None:
                lines = log.read().splitlines(keepends=True)
                await response.write(b"".join(lines[max(0, len(lines) - int(tail)) :]))
            while True:
                # The state is read before the log, so that nothing printed at the end is missed.
                ended = not follow or self._container_has_ended(namespace, name, file)
                while chunk := log.read(65536):
                    await response.write(chunk)
                if ended:
                    break
                await asyncio.sleep(_FOLLOW)
        await response.write_eof()
        return response

    def _container_has_ended(self, namespace: str, name: str, file: Path) -> bool:
        pod = self._store.find(POD, namespace, name)
        if pod is None or self._log_of(pod) != file:
            return True
        status = pod.get("status") or {}
        return status.get("phase") in ("Succeeded", "Failed")

    # Writing

    async def _create(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, _ = _target(request)
        obj = with_defaults(kind, _placed(kind, namespace, "", await _body(request)))
        if not kind.namespaced:
            namespace = ""
        admit(self._store, kind, namespace, obj)
        if _is_dry(request):
            return _json(obj, status=201)
        return _json(self._store.create(kind, namespace, obj), status=201)

    async def _replace(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        old = self._store.get(kind, namespace, name)
        return self._write(request, kind, old, _placed(kind, namespace, name, await _body(request)))

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        type_ = request.content_type
        change = await _body(request)
        if type_ == patches.APPLY:
            return self._apply(request, kind, namespace, name, change)
        old = self._store.get(kind, namespace, name)
        if type_ == patches.MERGE:
            new = patches.merge(old, change)
        elif type_ == patches.STRATEGIC and kind.group != _CUSTOM_GROUP:
            new = patches.strategic_merge(old, change)
        else:
            raise Refusal(415, "UnsupportedMediaType", f"{type_} is not supported for {kind.plural}")
        return self._write(request, kind, old, _placed(kind, namespace, name, new))

    def _apply(self, request: web.Request, kind: Kind, namespace: str, name: str, wanted: Object) -> web.StreamResponse:
        if not request.query.get("fieldManager"):
            raise bad_request("fieldManager is required for an apply patch")
        old = self._store.find(kind, namespace, name)
        if old is not None:
            merge = patches.merge if kind.group == _CUSTOM_GROUP else patches.strategic_merge
            return self._write(request, kind, old, _placed(kind, namespace, name, merge(old, wanted)))
        obj = with_defaults(kind, _placed(kind, namespace, name, wanted))
        admit(self._store, kind, namespace, obj)
        if _is_dry(request):
            return _json(obj, status=201)
        return _json(self._store.create(kind, namespace, obj), status=201)

    def _write(self, request: web.Request, kind: Kind, old: Object, new: Object) -> web.StreamResponse:
        namespace, name, status = namespace_of(old), name_of(old), "sub" in request.match_info
        if not status:
            new = with_defaults(kind, new)
            admit(self._store, kind, namespace, new, old)
        if _is_dry(request):
            return _json(new)
        return _json(self._store.replace(kind, namespace, name, new, status=status))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        options = await _body(request, required=False)
        obj = self._store.get(kind, namespace, name)
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != obj["metadata"]["uid"]:
            raise Refusal(409, "Conflict", f"the uid of {kind.plural} {name!r} is not {wanted}")
        return _json(self._remove(request, kind, obj, options))

    async def _delete_collection(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, _ = _target(request)
        options = await _body(request, required=False)
        wanted = label_selector(request.query.get("labelSelector", ""))
        for obj in self._store.find_all(kind, namespace):
            if wanted(obj):
                self._remove(request, kind, obj, options)
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    def _remove(self, request: web.Request, kind: Kind, obj: Object, options: dict[str, Any]) -> Object:
        if _is_dry(request):
            return obj
        policy = request.query.get("propagationPolicy") or options.get("propagationPolicy") or "Background"
        if policy not in ("Background", "Foreground", "Orphan"):
            raise bad_request(f"unknown propagationPolicy {policy!r}")
        grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        if kind is POD and grace is not None:
            seconds = int(grace)
            self._store.modify(kind, obj, lambda target: target["metadata"].update(deletionGracePeriodSeconds=seconds))
        return self._store.delete(kind, namespace_of(obj), name_of(obj), propagation=policy)

    # About itself

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        return _json(self._about())

    async def _healthy(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _version(self, request: web.Request) -> web.StreamResponse:
        major, minor = KUBERNETES_VERSION.split(".")
        said = {"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES_VERSION}.0+small-cluster"}
        return _json(said)

    async def _versions(self, request: web.Request) -> web.StreamResponse:
        return _json({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})

    async def _groups(self, request: web.Request) -> web.StreamResponse:
        groups = []
        for group, version in dict.fromkeys((kind.group, kind.version) for kind in KINDS if kind.group):
            only = {"groupVersion": f"{group}/{version}", "version": version}
            groups.append({"name": group, "versions": [only], "preferredVersion": only})
        return _json({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})

    async def _resources(self, request: web.Request) -> web.StreamResponse:
        group, version = request.match_info.get("group", ""), request.match_info["version"]
        kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]
        if not kinds:
            raise Refusal(404, "NotFound", f"the small cluster does not serve {group}/{version}")
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        resources = [
            {"name": kind.plural, "singularName": kind.name.lower(), "namespaced": kind.namespaced}
            | {"kind": kind.name, "verbs": verbs}
            for kind in kinds
        ]
        said = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version}
        return _json(said | {"resources": resources})


def _json(said: Mapping[str, Any], status: int = 200) -> web.Response:
    """An answer whose media type is exactly `application/json`: clients compare it."""
    body = json.dumps(said, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, headers={"Content-Type": "application/json"})


def _target(request: web.Request) -> tuple[Kind, str, str]:
    info = request.match_info
    kind = kind_at(info.get("group", ""), info["version"], info["plural"])
    if kind is None:
        where = "/".join(filter(None, (info.get("group"), info["version"])))
        raise Refusal(404, "NotFound", f"the small cluster does not keep {info['plural']} of {where}")
    if kind.namespaced and "namespace" not in info and (request.method != "GET" or "name" in info):
        raise bad_request(f"{kind.plural} are namespaced")
    return kind, info.get("namespace", ""), info.get("name", "")


def _placed(kind: Kind, namespace: str, name: str, obj: Object) -> Object:
    """The object with the name and namespace of its path, with which its own must agree."""
    said = obj.get("apiVersion", kind.api_version), obj.get("kind", kind.name)
    if said != (kind.api_version, kind.name):
        raise bad_request(f"the object is a {said[0]} {said[1]}, the path is of {kind.api_version} {kind.name}")
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        raise bad_request("the object has no metadata")
    metadata = dict(metadata)
    for key, value in (("name", name), ("namespace", namespace if kind.namespaced else "")):
        if value and metadata.setdefault(key, value) != value:
            raise bad_request(f"metadata.{key} {metadata[key]!r} is not that of the path, {value!r}")
    return {**obj, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}


async def _body(request: web.Request, *, required: bool = True) -> dict[str, Any]:
    text = await request.text()
    if not text and not required:
        return {}
    try:
        # Server-side apply is YAML by its media type, and JSON by most clients' choice.
        is_yaml = request.content_type.endswith("yaml") and not text.lstrip().startswith("{")
        body = yaml.safe_load(text) if is_yaml else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body cannot be read: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the body is not an object")
    return body


def _is_dry(request: web.Request) -> bool:
    return bool(request.query.get("dryRun"))
