"""The Kubernetes REST API: the verbs that clients such as lightkube and kubectl use."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml
from aiohttp import web

from laptop.cluster import discovery, patches, tables
from laptop.cluster.admission_control import admit
from laptop.cluster.defaults import with_defaults
from laptop.cluster.kinds import JOB, POD, Kind, kind_at
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, name_of, namespace_of
from laptop.cluster.refusals import StatusError, bad_request, forbidden
from laptop.cluster.selectors import field_selector, label_selector, selector_text
from laptop.cluster.service_accounts import Access, ServiceAccountTokens

_log = logging.getLogger(__name__)

DESCRIBE = "/laptop"
"""Path of the facts about the cluster that `mlops laptop status` shows."""

_BODY_LIMIT = 3 * 1024 * 1024  # bytes, the real API server's limit
_FOLLOW = 0.05  # seconds between reads of a log that is followed
_CUSTOM_GROUP = "argoproj.io"
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LogFiles(Protocol):
    """Log files of pods."""

    def __call__(self, pod: Object, container: str, *, previous: bool = False) -> Path:
        """Return the log file of a container, which may not exist yet; `previous` is the run before its restart."""
        ...


class ApiServer:
    """API server over a store.

    Args:
        store: objects.
        token: bearer token of the operator, who may do everything.
        service_accounts: tokens and permissions of pods.
        log_of: log files of pods.
        facts: returns facts about the cluster, served at `DESCRIBE`.
    """

    def __init__(
        self,
        store: ObjectStore,
        token: str,
        service_accounts: ServiceAccountTokens,
        log_of: LogFiles,
        facts: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._store = store
        self._token = token.encode()
        self._service_accounts = service_accounts
        self._log_of = log_of
        self._facts = facts

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=_BODY_LIMIT, middlewares=[self._guard])
        add = app.router.add_route
        add("GET", DESCRIBE, self._describe)
        for path in ("/livez", "/readyz", "/healthz"):
            add("GET", path, self._healthy)
        add("GET", "/version", self._version)
        add("GET", "/api", self._versions)
        add("GET", "/apis", self._groups)
        add("GET", "/openapi/v3", self._openapi_paths)
        add("GET", "/openapi/v3/{base:.+}", self._openapi)
        for base in ("/api/{version:v1}", "/apis/{group}/{version}"):
            add("GET", base, self._resources)
            for scope in ("", "/namespaces/{namespace}"):
                collection = f"{base}{scope}/{{plural}}"
                add("GET", collection, self._list)
                add("POST", collection, self._create)
                add("DELETE", collection, self._delete_collection)
                for path in (f"{collection}/{{name}}", f"{collection}/{{name}}/{{sub:status|scale}}"):
                    add("GET", path, self._get)
                    add("PUT", path, self._replace)
                    add("PATCH", path, self._patch)
                add("DELETE", f"{collection}/{{name}}", self._delete)
        add("GET", "/api/{version:v1}/namespaces/{namespace}/{plural:pods}/{name}/{sub:log}", self._log)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._authorize(request)
            return await handler(request)
        except StatusError as error:
            return _json(error.status(), status=error.code)
        except web.HTTPException as error:
            reason = {404: "NotFound", 405: "MethodNotAllowed", 413: "RequestEntityTooLarge"}.get(error.status, "")
            message = "the cluster serves nothing at this path" if error.status == 404 else error.reason
            return _json(StatusError(error.status, reason, message).status(), status=error.status)
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            defect = StatusError(500, "InternalError", f"{type(error).__name__}: {error}")
            return _json(defect.status(), status=500)

    def _authorize(self, request: web.Request) -> None:
        """Raise StatusError unless the request's token allows the request."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and hmac.compare_digest(token.encode(), self._token):
            return
        account = self._service_accounts.account_of(token) if scheme == "Bearer" else None
        if account is None:
            raise StatusError(401, "Unauthorized", "expected a bearer token of the kubeconfig or of a running pod")
        if "plural" not in request.match_info:
            return  # discovery is open to every account, as in Kubernetes
        kind, namespace, name = _target(request)
        access = Access(_verb(request, name), kind, namespace, name, request.match_info.get("sub", ""))
        if not self._service_accounts.is_allowed(account, access):
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            raise forbidden(
                access.resource, name, f'User "{account}" cannot {access.verb} resource "{access.resource}"{where}'
            )

    # Reading

    async def _get(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        obj = self._store.get(kind, namespace, name)
        if request.match_info.get("sub") == "scale":
            return _json(_scale_of(kind, obj))
        if _wants_table(request):
            return _json(tables.table(kind, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]}))
        return _json(obj)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, _ = _target(request)
        labels = label_selector(request.query.get("labelSelector", ""))
        fields = field_selector(request.query.get("fieldSelector", ""))
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request, kind, namespace, lambda obj: labels(obj) and fields(obj))
        items = [obj for obj in self._store.find_all(kind, namespace) if labels(obj) and fields(obj)]
        metadata = {"resourceVersion": str(self._store.version)}
        if _wants_table(request):
            return _json(tables.table(kind, items, metadata))
        return _json({"apiVersion": kind.api_version, "kind": f"{kind.name}List", "metadata": metadata, "items": items})

    async def _watch(
        self, request: web.Request, kind: Kind, namespace: str, wanted: Callable[[Object], bool]
    ) -> web.StreamResponse:
        queue: asyncio.Queue[ObjectEvent] = asyncio.Queue()
        since = request.query.get("resourceVersion", "")
        initial = request.query.get("sendInitialEvents") == "true"
        if since not in ("", "0") and not initial:
            for event in self._store.since(int(since)):
                queue.put_nowait(event)
        else:
            for obj in self._store.find_all(kind, namespace):
                queue.put_nowait(ObjectEvent("ADDED", kind, obj, self._store.version))
        if initial:
            metadata = {
                "resourceVersion": str(self._store.version),
                "annotations": {_INITIAL_EVENTS_END: "true"},
                "creationTimestamp": None,
            }
            mark = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
            queue.put_nowait(ObjectEvent("BOOKMARK", kind, mark, self._store.version))
        stop = self._store.listen(queue.put_nowait)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            seconds = request.query.get("timeoutSeconds")
            async with asyncio.timeout(float(seconds) if seconds else None):
                while True:
                    event = await queue.get()
                    there = not namespace or namespace_of(event.object) == namespace
                    is_match = event.kind is kind and there and event.type != "BOOKMARK" and wanted(event.object)
                    if not is_match and event.type != "BOOKMARK":
                        continue
                    obj = event.object
                    if _wants_table(request):
                        rows = [obj] if is_match else []
                        obj = tables.table(kind, rows, obj["metadata"])
                    line = json.dumps({"type": event.type, "object": obj}, separators=(",", ":"))
                    await response.write(line.encode() + b"\n")
        except TimeoutError:
            await response.write_eof()
        except ConnectionResetError:  # the client has seen enough
            pass
        finally:
            stop()
        return response

    async def _log(self, request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        pod = self._store.get(POD, namespace, name)
        container = _container_of(pod, request.query.get("container", ""))
        previous = request.query.get("previous") in ("1", "true")
        file = self._log_of(pod, container, previous=previous)
        if not file.exists():
            state = _status_of(pod, container).get("state") or {}
            why = (state.get("waiting") or {}).get("reason", "it has not started")
            raise bad_request(f'container "{container}" in pod "{name}" is waiting to start: {why}')
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
                ended = not follow or self._has_ended(namespace, name, container, file)
                while chunk := log.read(65536):
                    await response.write(chunk)
                if ended:
                    break
                await asyncio.sleep(_FOLLOW)
        await response.write_eof()
        return response

    def _has_ended(self, namespace: str, name: str, container: str, file: Path) -> bool:
        pod = self._store.find(POD, namespace, name)
        if pod is None or self._log_of(pod, container) != file:
            return True
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return True
        is_initial = any(item["name"] == container for item in pod["spec"].get("initContainers") or ())
        return is_initial and "terminated" in (_status_of(pod, container).get("state") or {})

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
        body = await _body(request)
        if request.match_info.get("sub") == "scale":
            return self._scale(request, kind, old, body)
        return self._write(request, kind, old, _placed(kind, namespace, name, body))

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        type_ = request.content_type
        change = await _body(request)
        if request.match_info.get("sub") == "scale":
            old = self._store.get(kind, namespace, name)
            return self._scale(request, kind, old, patches.merge(_scale_of(kind, old), change))
        if type_ == patches.APPLY:
            return self._apply(request, kind, namespace, name, change)
        old = self._store.get(kind, namespace, name)
        if type_ == patches.MERGE:
            new = patches.merge(old, change)
        elif type_ == patches.STRATEGIC and kind.group != _CUSTOM_GROUP:
            new = patches.strategic_merge(old, change)
        else:
            raise StatusError(415, "UnsupportedMediaType", f"{type_} is not supported for {kind.plural}")
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

    def _scale(self, request: web.Request, kind: Kind, old: Object, scale: Object) -> web.StreamResponse:
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        new = {**old, "spec": {**old["spec"], "replicas": replicas}}
        admit(self._store, kind, namespace_of(old), new, old)
        if not _is_dry(request):
            new = self._store.replace(kind, namespace_of(old), name_of(old), new)
        return _json(_scale_of(kind, new))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        options = await _body(request, required=False)
        obj = self._store.get(kind, namespace, name)
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != obj["metadata"]["uid"]:
            raise StatusError(409, "Conflict", f"the uid of {kind.plural} {name!r} is not {wanted}")
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
        default = "Orphan" if kind is JOB else "Background"  # of batch/v1, for compatibility with old clients
        policy = request.query.get("propagationPolicy") or options.get("propagationPolicy") or default
        if policy not in ("Background", "Foreground", "Orphan"):
            raise bad_request(f"unknown propagationPolicy {policy!r}")
        grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        if kind is POD and grace is not None:
            seconds = int(grace)
            self._store.modify(kind, obj, lambda target: target["metadata"].update(deletionGracePeriodSeconds=seconds))
        return self._store.delete(kind, namespace_of(obj), name_of(obj), propagation=policy)

    # Facts about the server

    async def _describe(self, request: web.Request) -> web.StreamResponse:
        return _json(self._facts())

    async def _healthy(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _version(self, request: web.Request) -> web.StreamResponse:
        return _json(discovery.version())

    async def _versions(self, request: web.Request) -> web.StreamResponse:
        return _json(discovery.core_versions())

    async def _groups(self, request: web.Request) -> web.StreamResponse:
        return _json(discovery.api_groups())

    async def _resources(self, request: web.Request) -> web.StreamResponse:
        return _json(discovery.api_resources(request.match_info.get("group", ""), request.match_info["version"]))

    async def _openapi_paths(self, request: web.Request) -> web.StreamResponse:
        return _json(discovery.openapi_paths())

    async def _openapi(self, request: web.Request) -> web.StreamResponse:
        document = await asyncio.to_thread(discovery.openapi_document, request.match_info["base"])
        return web.Response(body=document, headers={"Content-Type": "application/json"})


def _json(body: Mapping[str, Any], status: int = 200) -> web.Response:
    """Return a response with exactly the media type `application/json`, which clients compare."""
    content = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(status=status, body=content, headers={"Content-Type": "application/json"})


def _target(request: web.Request) -> tuple[Kind, str, str]:
    """Return the kind, namespace and name of a request's path; a namespace's own name counts as its name."""
    info = request.match_info
    kind = kind_at(info.get("group", ""), info["version"], info["plural"])
    if kind is None or (info.get("sub") == "scale" and not kind.scales):
        where = "/".join(filter(None, (info.get("group"), info["version"])))
        raise StatusError(404, "NotFound", f"the cluster does not serve {info['plural']} of {where}")
    if kind.namespaced and "namespace" not in info and (request.method != "GET" or "name" in info):
        raise bad_request(f"{kind.plural} are namespaced")
    return kind, info.get("namespace", ""), info.get("name", "")


def _verb(request: web.Request, name: str) -> str:
    """Return the RBAC verb of a request."""
    if request.method == "GET":
        if request.query.get("watch") in ("1", "true"):
            return "watch"
        return "get" if name else "list"
    if request.method == "DELETE":
        return "delete" if name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}[request.method]


def _placed(kind: Kind, namespace: str, name: str, obj: Object) -> Object:
    """Return an object with the name and namespace of its path; raise StatusError if its own differ."""
    found = obj.get("apiVersion", kind.api_version), obj.get("kind", kind.name)
    if found != (kind.api_version, kind.name):
        raise bad_request(f"expected an object of {kind.api_version} {kind.name}, found {found[0]} {found[1]}")
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        raise bad_request("the object has no metadata")
    # kubectl writes `creationTimestamp: null`, which the published schemas do not allow.
    metadata = {key: value for key, value in metadata.items() if value is not None}
    for key, value in (("name", name), ("namespace", namespace if kind.namespaced else "")):
        if value and metadata.setdefault(key, value) != value:
            raise bad_request(f"metadata.{key}: expected {value!r} as in the path, found {metadata[key]!r}")
    return {**obj, "apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}


def _container_of(pod: Object, name: str) -> str:
    """Return the name of a container of a pod, the main one by default; raise StatusError if there is none."""
    names = [item["name"] for key in ("containers", "initContainers") for item in pod["spec"].get(key) or ()]
    if name and name not in names:
        raise bad_request(f"container {name} is not valid for pod {name_of(pod)}: expected one of {', '.join(names)}")
    return name or str(names[0])


def _status_of(pod: Object, container: str) -> dict[str, Any]:
    status = pod.get("status") or {}
    for key in ("containerStatuses", "initContainerStatuses"):
        for item in status.get(key) or ():
            if item["name"] == container:
                return dict(item)
    return {}


def _scale_of(kind: Kind, obj: Object) -> Object:
    metadata = {
        key: obj["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    selector = selector_text(obj["spec"].get("selector") or {})
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {"replicas": (obj.get("status") or {}).get("replicas", 0), "selector": selector},
    }


async def _body(request: web.Request, *, required: bool = True) -> dict[str, Any]:
    if "protobuf" in request.content_type:
        # `kubectl create <kind>` with flags, unlike with `-f`.
        message = "protobuf is not supported: add `--dry-run=client -o yaml` and pipe it to `kubectl apply -f -`"
        raise StatusError(415, "UnsupportedMediaType", message)
    text = await request.text()
    if not text and not required:
        return {}
    try:
        # Server-side apply is YAML by its media type; most clients send JSON.
        is_yaml = request.content_type.endswith("yaml") and not text.lstrip().startswith("{")
        body = yaml.safe_load(text) if is_yaml else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body cannot be read: {error}") from error
    if not isinstance(body, dict):
        raise bad_request("the body is not an object")
    return body


def _wants_table(request: web.Request) -> bool:
    return tables.MEDIA_TYPE in request.headers.get("Accept", "")


def _is_dry(request: web.Request) -> bool:
    return bool(request.query.get("dryRun"))
