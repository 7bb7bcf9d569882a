"""The Kubernetes REST API: the verbs that clients such as lightkube and kubectl use."""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from aiohttp import web

from laptop.cluster import discovery, openapi_v2, patches, port_forward, protobuf_bodies, reviews, tables
from laptop.cluster.api_listener import RESTART
from laptop.cluster.kinds import JOB, POD, ROLLOUT, SERVICE_ACCOUNT, Kind, is_served, kind_at
from laptop.cluster.object_writer import ObjectWriter, WriteOptions, Written
from laptop.cluster.objects import Object, ObjectEvent, ObjectStore, is_deleting, name_of, namespace_of, now
from laptop.cluster.paging import page_of
from laptop.cluster.refusals import (
    FORBIDDEN,
    INVALID,
    NOT_SUPPORTED,
    REQUIRED,
    TOO_LONG,
    FieldProblem,
    StatusError,
    bad_request,
    forbidden,
    invalid,
    method_not_allowed,
    not_acceptable,
    nowhere,
    precondition_failed,
    too_large,
    unsupported_media_type,
)
from laptop.cluster.selectors import field_selector, label_selector, selector_text
from laptop.cluster.service_accounts import Access, PodAccount, ServiceAccountTokens
from laptop.faults import API_STATUSES

_log = logging.getLogger(__name__)

DESCRIBE = "/laptop"
"""Path of the facts about the cluster that `mlops laptop status` shows."""

_BODY_LIMIT = 3 * 1024 * 1024  # bytes, the real API server's limit
_FOLLOW = 0.05  # seconds between reads of a log that is followed
_LOOK = 1.0  # seconds between looks for a fault that ends a watch
_WATCH_CLOSED = "watch-closed"
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"

_RETURNED = {"Pod", "ResourceQuota", "Service", "ServiceAccount"}
"""Kinds whose deletion is answered with the object."""

PATCH_OPTIONS = Kind("meta.k8s.io", "v1", "PatchOptions", "patchoptions")
TOKEN_REQUEST = Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")
_TOKEN_LASTS, _TOKEN_LASTS_AT_LEAST = 3600, 600  # seconds
CREATE_OPTIONS = Kind("meta.k8s.io", "v1", "CreateOptions", "createoptions")
UPDATE_OPTIONS = Kind("meta.k8s.io", "v1", "UpdateOptions", "updateoptions")
DELETE_OPTIONS = Kind("meta.k8s.io", "v1", "DeleteOptions", "deleteoptions")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NodeApi(Protocol):
    """What the API server needs from the node."""

    def log_of(self, pod: Object, container: str, *, previous: bool = False) -> Path:
        """Return the log file of a container, which may not exist yet; `previous` is the run before its restart."""
        ...

    def port_of(self, pod: Object, port: int) -> int | None:
        """Return the port on 127.0.0.1 of a declared containerPort, or None if no container runs that declares it."""
        ...


class ApiServer:
    """API server over a store.

    Args:
        store: objects.
        token: bearer token of the operator, who may do everything.
        service_accounts: tokens and permissions of pods.
        node: logs and ports of pods.
        facts: returns facts about the cluster, served at `DESCRIBE`.
        faults: returns the faults that the API has now; see `laptop.faults`.
    """

    def __init__(
        self,
        store: ObjectStore,
        token: str,
        service_accounts: ServiceAccountTokens,
        node: NodeApi,
        facts: Callable[[], Mapping[str, Any]],
        faults: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._faults = faults
        self._store = store
        self._writer = ObjectWriter(store)
        self._token = token.encode()
        self._service_accounts = service_accounts
        self._node = node
        self._facts = facts
        self._watches: set[asyncio.Queue[ObjectEvent | None]] = set()

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(client_max_size=_BODY_LIMIT, middlewares=[self._guard])
        app.cleanup_ctx.append(self._ending_watches)
        add = app.router.add_route
        add("GET", DESCRIBE, self._describe)
        for path in ("/livez", "/readyz", "/healthz"):
            add("GET", path, self._healthy)
        add("GET", "/version", self._version)
        add("GET", "/api", self._versions)
        add("GET", "/apis", self._groups)
        add("GET", "/openapi/v2", self._openapi_v2)
        add("GET", "/openapi/v3", self._openapi_paths)
        add("GET", "/openapi/v3/{base:.+}", self._openapi)
        for group, resources in reviews.RESOURCES.items():
            add("GET", f"/apis/{{group:{group}}}/{{version:v1}}", self._resources)
            for plural, _ in resources:
                add("POST", f"/apis/{{group:{group}}}/v1/{{review:{plural}}}", self._review)
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
        account = "/api/{version:v1}/namespaces/{namespace}/{plural:serviceaccounts}/{name}/{sub:token}"
        add("POST", account, self._issue_token)
        forward = "/api/{version:v1}/namespaces/{namespace}/{plural:pods}/{name}/{sub:portforward}"
        add("GET", forward, self._port_forward)
        add("POST", forward, self._port_forward)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._fail_if_asked(request)
            self._authorize(request)
            wants_yaml = _wants_yaml(request)
            response = await handler(request)
            return _as_yaml(response) if wants_yaml and isinstance(response, web.Response) else response
        except StatusError as error:
            return _json(error.status(), status=error.code)
        except web.HTTPException as error:
            if error.status == 404:
                return web.Response(status=404, text="404 page not found\n")
            refusal = method_not_allowed() if error.status == 405 else too_large()
            return _json(refusal.status(), status=error.status)
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.exception("%s %s", request.method, request.path)
            defect = StatusError(500, "InternalError", f"{type(error).__name__}: {error}")
            return _json(defect.status(), status=500)

    def _fail_if_asked(self, request: web.Request) -> None:
        """Refuse a request because of a fault that was injected."""
        for fault in self._faults() if "plural" in request.match_info else ():
            if fault == RESTART and request.transport is not None:  # before the listener has noticed
                request.transport.abort()
                raise ConnectionResetError
            if fault in API_STATUSES and (fault != "api-409" or request.method not in ("GET", "HEAD")):
                code, reason, message = API_STATUSES[fault]
                raise StatusError(code, reason, message)

    def _authorize(self, request: web.Request) -> None:
        """Raise StatusError unless the request's token allows the request."""
        account = self._account_of(request)
        if account is None or "plural" not in request.match_info:
            return  # discovery is open to every account, as in Kubernetes
        kind, namespace, name = _target(request)
        access = Access(_verb(request, name), kind, namespace, name, request.match_info.get("sub", ""))
        if not self._service_accounts.is_allowed(account, access):
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            group = f'"{access.resource}" in API group "{kind.group}"'
            why = f'User "{account}" cannot {access.verb} resource {group}{where}'
            raise forbidden(kind, name, why, access.resource)

    def _account_of(self, request: web.Request) -> PodAccount | None:
        """Return the account of a pod that sends a request, or None for the operator.

        Raises:
            StatusError: 401, it is neither.
        """
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and hmac.compare_digest(token.encode(), self._token):
            return None
        account = self._service_accounts.account_of(token) if scheme == "Bearer" else None
        if account is None:
            raise StatusError(401, "Unauthorized", "expected a bearer token of the kubeconfig or of a running pod")
        return account

    # Reading

    async def _get(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        obj = self._store.get(kind, namespace, name)
        if request.match_info.get("sub") == "scale":
            return _json(_scale_of(kind, obj))
        if _wants_table(request):
            return _json(tables.table(kind, [obj], {"resourceVersion": obj["metadata"]["resourceVersion"]}))
        return _json(_metadata_of(obj) if _wants_metadata(request) else obj)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, _ = _target(request)
        labels = label_selector(request.query.get("labelSelector", ""))
        fields = field_selector(kind, request.query.get("fieldSelector", ""))
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request, kind, namespace, lambda obj: labels(obj) and fields(obj))
        items = [obj for obj in self._sorted(kind, namespace) if labels(obj) and fields(obj)]
        items, metadata = page_of(items, request.query, self._store.version)
        if _wants_table(request):
            return _json(tables.table(kind, items, metadata))
        if _wants_metadata(request):
            found = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
            return _json({**found, "items": [_metadata_of(obj) for obj in items]})
        return _json(_list_of(kind, items, metadata))

    def _sorted(self, kind: Kind, namespace: str) -> list[Object]:
        """Return the objects of a kind by namespace and name, the order of the real API server."""
        return sorted(self._store.find_all(kind, namespace), key=lambda obj: (namespace_of(obj), name_of(obj)))

    async def _watch(
        self, request: web.Request, kind: Kind, namespace: str, wanted: Callable[[Object], bool]
    ) -> web.StreamResponse:
        queue: asyncio.Queue[ObjectEvent | None] = asyncio.Queue()
        since = request.query.get("resourceVersion", "")
        if since and not since.isdigit():
            says = f'Invalid value: "{since}": strconv.ParseUint: parsing "{since}": invalid syntax'
            raise StatusError(500, "", f"resourceVersion: {says}")
        initial = request.query.get("sendInitialEvents") == "true"
        if since not in ("", "0") and not initial:
            try:
                for missed in self._store.since(int(since)):
                    queue.put_nowait(missed)
            except StatusError as expired:
                return await _expired_watch(request, expired)
        else:
            for obj in self._store.find_all(kind, namespace):
                queue.put_nowait(ObjectEvent("ADDED", kind, obj, self._store.version))
        if initial:
            metadata = {
                "resourceVersion": str(self._store.version),
                "annotations": {_INITIAL_EVENTS_END: "true"},
            }
            mark = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata}
            queue.put_nowait(ObjectEvent("BOOKMARK", kind, mark, self._store.version))
        stop = self._store.listen(queue.put_nowait)
        self._watches.add(queue)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            seconds = request.query.get("timeoutSeconds")
            async with asyncio.timeout(float(seconds) if seconds else None):
                while (event := await queue.get()) is not None:
                    there = not namespace or namespace_of(event.object) == namespace
                    is_match = event.kind is kind and there and event.type != "BOOKMARK" and wanted(event.object)
                    if not is_match and event.type != "BOOKMARK":
                        continue
                    obj = event.object
                    if _wants_table(request):
                        rows = [obj] if is_match else []
                        obj = tables.table(kind, rows, obj["metadata"])
                    elif _wants_metadata(request):
                        obj = _metadata_of(obj)
                    line = json.dumps({"type": event.type, "object": obj}, separators=(",", ":"))
                    await response.write(line.encode() + b"\n")
            await response.write_eof()
        except TimeoutError:
            await response.write_eof()
        except ConnectionResetError:  # the client has seen enough
            pass
        finally:
            stop()
            self._watches.discard(queue)
        return response

    async def _ending_watches(self, app: web.Application) -> AsyncIterator[None]:
        """End every watch while a fault asks for it. None in its queue ends a watch."""

        async def look() -> None:
            while True:
                await asyncio.sleep(_LOOK)
                if _WATCH_CLOSED in self._faults():
                    for queue in self._watches:
                        queue.put_nowait(None)

        looking = asyncio.create_task(look())
        yield
        looking.cancel()

    async def _log(self, request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        pod = self._store.get(POD, namespace, name)
        container = _container_of(pod, request.query.get("container", ""))
        previous = request.query.get("previous") in ("1", "true")
        file = self._node.log_of(pod, container, previous=previous)
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
                if ended or _WATCH_CLOSED in self._faults():
                    break
                await asyncio.sleep(_FOLLOW)
        await response.write_eof()
        return response

    def _has_ended(self, namespace: str, name: str, container: str, file: Path) -> bool:
        pod = self._store.find(POD, namespace, name)
        if pod is None or self._node.log_of(pod, container) != file:
            return True
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return True
        is_initial = any(item["name"] == container for item in pod["spec"].get("initContainers") or ())
        return is_initial and "terminated" in (_status_of(pod, container).get("state") or {})

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        pod = self._store.get(POD, namespace, name)

        async def dial(port: int) -> port_forward.Connection:
            where = self._node.port_of(pod, port)
            if where is None:
                raise ConnectionRefusedError(
                    errno.ECONNREFUSED, f"no container that runs declares containerPort {port}"
                )
            return await asyncio.open_connection("127.0.0.1", where)

        if request.headers.get("Upgrade", "").lower() == "spdy/3.1":
            return await port_forward.serve_spdy(request, dial)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise bad_request("Upgrade request required")
        protocols = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if port_forward.TUNNELLED in protocols:
            return await port_forward.serve_tunnel(request, dial)
        return await port_forward.serve_channels(request, _ports(request), dial)

    # Writing

    async def _create(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, _ = _target(request)
        options = _options(request)
        return _written(self._writer.create(kind, namespace, await _body(request), options), options)

    async def _replace(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        options, body = _options(request), await _body(request)
        if options.subresource == "scale":
            old = self._store.get(kind, namespace, name)
            return _json(_scale_of(kind, self._writer.scale(kind, old, body, options)))
        return _written(self._writer.replace(kind, namespace, name, body, options), options)

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        options = _options(request)
        if request.content_type == patches.APPLY and not request.query.get("fieldManager"):
            problem = FieldProblem(REQUIRED, "fieldManager", detail="is required for apply patch")
            raise invalid(PATCH_OPTIONS, "", [problem])
        if options.force and request.content_type != patches.APPLY:
            raise invalid(
                PATCH_OPTIONS, "", [FieldProblem(FORBIDDEN, "force", detail="may not be specified for non-apply patch")]
            )
        change = await _content(request)
        if options.subresource == "scale":
            old = self._store.get(kind, namespace, name)
            scale = patches.merge(_scale_of(kind, old), change if isinstance(change, dict) else {})
            return _json(_scale_of(kind, self._writer.scale(kind, old, scale, options)))
        return _written(self._writer.patch(kind, namespace, name, request.content_type, change, options), options)

    async def _issue_token(self, request: web.Request) -> web.StreamResponse:
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        self._store.get(SERVICE_ACCOUNT, namespace, name)
        spec = (await _body(request)).get("spec") or {}
        seconds = spec.get("expirationSeconds") or _TOKEN_LASTS
        if not isinstance(seconds, int) or seconds < _TOKEN_LASTS_AT_LEAST:
            says = "may not specify a duration less than 10 minutes"
            problem = FieldProblem(INVALID, "spec.expirationSeconds", seconds, says)
            raise invalid(TOKEN_REQUEST, "", [problem])
        token, end = self._service_accounts.issue(PodAccount(namespace, name), seconds)
        return _json(
            {
                "kind": TOKEN_REQUEST.name,
                "apiVersion": TOKEN_REQUEST.api_version,
                "metadata": {"name": name, "namespace": namespace, "creationTimestamp": now()},
                "spec": {"audiences": [], "boundObjectRef": None, **spec, "expirationSeconds": seconds},
                "status": {"token": token, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ")},
            },
            status=201,
        )

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _target(request)
        options = await _body(request, required=False)
        obj = self._store.get(kind, namespace, name)
        _check_preconditions(kind, obj, options)
        left = self._remove(request, kind, obj, options)
        if is_deleting(left) or kind.name in _RETURNED:
            return _json(left)
        details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": obj["metadata"]["uid"]}
        details = {key: value for key, value in details.items() if value}
        return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    async def _delete_collection(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, _ = _target(request)
        options = await _body(request, required=False)
        labels = label_selector(request.query.get("labelSelector", ""))
        fields = field_selector(kind, request.query.get("fieldSelector", ""))
        found = [obj for obj in self._sorted(kind, namespace) if labels(obj) and fields(obj)]
        left = [self._remove(request, kind, obj, options) for obj in found]
        return _json(_list_of(kind, left, {"resourceVersion": str(self._store.version)}))

    def _remove(self, request: web.Request, kind: Kind, obj: Object, options: dict[str, Any]) -> Object:
        policy = request.query.get("propagationPolicy") or options.get("propagationPolicy")
        if policy is None and (request.query.get("orphanDependents") or options.get("orphanDependents")):
            policy = "Orphan"
        # For compatibility, Kubernetes keeps the pods of a Job unless the request says otherwise.
        policy = policy or ("Orphan" if kind is JOB else "Background")
        if policy not in ("Background", "Foreground", "Orphan"):
            known = ("Foreground", "Background", "Orphan", "nil")
            shown = ", ".join(f'"{name}"' for name in known)
            problem = FieldProblem(NOT_SUPPORTED, "propagationPolicy", policy, f"supported values: {shown}")
            raise invalid(DELETE_OPTIONS, "", [problem])
        if request.query.get("dryRun") or options.get("dryRun"):
            return obj
        grace = request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        if kind is POD and grace is not None:
            seconds = int(grace)
            self._store.modify(kind, obj, lambda target: target["metadata"].update(deletionGracePeriodSeconds=seconds))
        return self._store.delete(kind, namespace_of(obj), name_of(obj), propagation=policy)

    # Facts about the server

    async def _review(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        user, info = reviews.User(self._account_of(request)), request.match_info
        manager = _options(request).manager
        answer = reviews.review(user, self._service_accounts, info["group"], info["review"], body, manager)
        return _json(answer, status=201)

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

    async def _openapi_v2(self, request: web.Request) -> web.StreamResponse:
        is_protobuf = openapi_v2.PROTOBUF in request.headers.get("Accept", "")
        body = await asyncio.to_thread(openapi_v2.as_protobuf if is_protobuf else openapi_v2.as_json)
        type_ = openapi_v2.ANSWERED if is_protobuf else "application/json"
        return web.Response(body=body, headers={"Content-Type": type_})

    async def _openapi_paths(self, request: web.Request) -> web.StreamResponse:
        return _json(discovery.openapi_paths())

    async def _openapi(self, request: web.Request) -> web.StreamResponse:
        document = await asyncio.to_thread(discovery.openapi_document, request.match_info["base"])
        return web.Response(body=document, headers={"Content-Type": "application/json"})


async def _expired_watch(request: web.Request, expired: StatusError) -> web.StreamResponse:
    """Answer a watch of a version that is no longer kept: one event with the error, as the real API server does."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(json.dumps({"type": "ERROR", "object": expired.status()}).encode() + b"\n")
    await response.write_eof()
    return response


def _json(body: Mapping[str, Any], status: int = 200) -> web.Response:
    """Return a response with exactly the media type `application/json`, which clients compare."""
    content = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(status=status, body=content, headers={"Content-Type": "application/json"})


def _target(request: web.Request) -> tuple[Kind, str, str]:
    """Return the kind, namespace and name of a request's path; a namespace's own name counts as its name."""
    info = request.match_info
    kind = kind_at(info.get("group", ""), info["version"], info["plural"])
    sub = info.get("sub", "")
    if kind is None and not is_served(info.get("group", ""), info["version"]):
        raise web.HTTPNotFound
    if kind is None or (sub == "scale" and not kind.scales) or (sub == "status" and not kind.has_status):
        raise nowhere()
    if kind.namespaced and "namespace" not in info and (request.method != "GET" or "name" in info):
        raise nowhere() if "name" in info else method_not_allowed()
    if not kind.namespaced and "namespace" in info:
        raise nowhere()
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
    replicas = obj["spec"].get("replicas", 1)
    selector = selector_text(obj["spec"].get("selector") or {})
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": (obj.get("status") or {}).get("replicas", 0), "selector": selector},
    }


async def _body(request: web.Request, *, required: bool = True) -> dict[str, Any]:
    """Return the object in a request's body."""
    body = await _content(request, required=required)
    if not isinstance(body, dict):
        raise bad_request(f"the body is not an object: found {json.dumps(body)[:100]}")
    return body


async def _content(request: web.Request, *, required: bool = True) -> Any:
    """Return the value in a request's body, JSON or YAML."""
    type_ = request.content_type
    if not required and not request.can_read_body:
        return {}
    if request.method != "PATCH" and type_ not in _READABLE:
        known = ", ".join(("application/json", "application/yaml", protobuf_bodies.MEDIA_TYPE))
        raise unsupported_media_type(
            f"the body of the request was in an unknown format - accepted media types include: {known}"
        )
    if type_ == protobuf_bodies.MEDIA_TYPE:
        try:
            return protobuf_bodies.decode(await request.read())
        except protobuf_bodies.ProtobufError as error:
            raise bad_request(str(error)) from error
    try:
        text = await request.text()
        if not text and not required:
            return {}
        # Server-side apply is YAML by its media type; most clients send JSON.
        is_yaml = type_.endswith("yaml") and not text.lstrip().startswith("{")
        return yaml.safe_load(text) if is_yaml else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the object provided is unrecognized: the body cannot be read: {error}") from error


_READABLE = (
    "application/json",
    "application/yaml",
    protobuf_bodies.MEDIA_TYPE,
    "application/octet-stream",
    "text/plain",
)


def _options(request: web.Request) -> WriteOptions:
    """Return the options of a request that writes."""
    query = request.query
    dry = query.getall("dryRun", [])
    if any(value != "All" for value in dry):
        kind = {"POST": CREATE_OPTIONS, "PUT": UPDATE_OPTIONS}.get(request.method, PATCH_OPTIONS)
        shown = ", ".join(f'"{name}"' for name in ("All",))
        raise invalid(kind, "", [FieldProblem(NOT_SUPPORTED, "dryRun", dry[0], f"supported values: {shown}")])
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        kind = {"POST": CREATE_OPTIONS, "PUT": UPDATE_OPTIONS}.get(request.method, PATCH_OPTIONS)
        shown = '"Ignore", "Strict", "Warn"'
        raise invalid(
            kind, "", [FieldProblem(NOT_SUPPORTED, "fieldValidation", validation, f"supported values: {shown}")]
        )
    agent = request.headers.get("User-Agent", "").partition("/")[0]
    manager = query.get("fieldManager") or "".join(letter for letter in agent if letter.isprintable())[:128]
    if len(manager) > 128:
        kind = {"POST": CREATE_OPTIONS, "PUT": UPDATE_OPTIONS}.get(request.method, PATCH_OPTIONS)
        raise invalid(kind, "", [FieldProblem(TOO_LONG, "fieldManager", detail="may not be more than 128 bytes")])
    return WriteOptions(
        manager or "unknown",
        dry=bool(dry),
        force=query.get("force") in ("1", "true"),
        validation=validation,
        subresource=request.match_info.get("sub", ""),
    )


def _written(written: Written, options: WriteOptions) -> web.Response:
    """Return the response to a write, with its warnings."""
    response = _json(written.object, status=201 if written.created else 200)
    for text in options.warnings:
        response.headers.add("Warning", f"299 - {json.dumps(text)}")
    return response


def _check_preconditions(kind: Kind, obj: Object, options: Mapping[str, Any]) -> None:
    wanted = options.get("preconditions") or {}
    for key, what in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        found = obj["metadata"][key]
        if wanted.get(key) and wanted[key] != found:
            why = f"{what} in precondition: {wanted[key]}, {what} in object meta: {found}"
            raise precondition_failed(kind, name_of(obj), why)


def _ports(request: web.Request) -> list[int]:
    """Return the ports of a port-forward by WebSocket: `ports=8080,9090`."""
    words = [word for text in request.query.getall("ports", []) for word in text.split(",")]
    if not words:
        raise bad_request('query parameter "ports" is required')
    for word in words:
        if not word.isdigit() or not 0 < int(word) < 65536:
            raise bad_request(f"unable to parse {json.dumps(word)} as a port: expected 1 to 65535")
    return [int(word) for word in words]


def _list_of(kind: Kind, items: Sequence[Object], metadata: dict[str, Any]) -> Object:
    """Return a list. Its items do not repeat their kind, except those of custom resources."""
    if kind.group != ROLLOUT.group:
        items = [{key: value for key, value in obj.items() if key not in ("apiVersion", "kind")} for obj in items]
    return {"apiVersion": kind.api_version, "kind": f"{kind.name}List", "metadata": metadata, "items": list(items)}


def _wants_yaml(request: web.Request) -> bool:
    """Return whether the client prefers YAML to JSON.

    Raises:
        StatusError: 406, it accepts neither.
    """
    if "plural" not in request.match_info or request.match_info.get("sub") in ("log", "portforward"):
        return False
    accepted = [word.partition(";")[0].strip() for word in request.headers.get("Accept", "").split(",")]
    for type_ in accepted:
        if type_ in ("", "*/*", "application/*", "application/json"):
            return False
        if type_ == "application/yaml":
            return True
    raise not_acceptable()


def _as_yaml(response: web.Response) -> web.Response:
    if response.content_type != "application/json" or not isinstance(response.body, bytes):
        return response
    text = yaml.safe_dump(json.loads(response.body), allow_unicode=True)
    return web.Response(status=response.status, text=text, content_type="application/yaml")


def _wants_metadata(request: web.Request) -> bool:
    return "as=PartialObjectMetadata" in request.headers.get("Accept", "")


def _metadata_of(obj: Object) -> Object:
    """Return an object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _wants_table(request: web.Request) -> bool:
    return tables.MEDIA_TYPE in request.headers.get("Accept", "")
