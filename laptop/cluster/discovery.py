"""Discovery and OpenAPI documents of the Kubernetes API, limited to what clients such as kubectl read."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from laptop.cluster import reviews
from laptop.cluster.kinds import KINDS, POD, SERVICE_ACCOUNT, Kind
from laptop.cluster.manifest_schemas import KUBERNETES_VERSION, referenced_schema, schema_of
from laptop.cluster.refusals import nowhere

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def version() -> dict[str, Any]:
    """Return the response of `/version`."""
    major, minor = KUBERNETES_VERSION.split(".")
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{KUBERNETES_VERSION}.0+laptop",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    }


def core_versions() -> dict[str, Any]:
    """Return the `APIVersions` of `/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def api_groups() -> dict[str, Any]:
    """Return the `APIGroupList` of `/apis`."""
    groups = []
    for group, served in dict.fromkeys((kind.group, kind.version) for kind in KINDS if kind.group):
        only = {"groupVersion": f"{group}/{served}", "version": served}
        groups.append({"name": group, "versions": [only], "preferredVersion": only})
    for group in reviews.RESOURCES:
        only = {"groupVersion": f"{group}/v1", "version": "v1"}
        groups.append({"name": group, "versions": [only], "preferredVersion": only})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def api_resources(group: str, served: str) -> dict[str, Any]:
    """Return the `APIResourceList` of a group and version.

    Raises:
        StatusError: 404, the cluster does not serve it.
    """
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == (group, served)]
    if group in reviews.RESOURCES and served == "v1":
        named = [
            {"name": plural, "singularName": name.lower(), "namespaced": False, "kind": name, "verbs": ["create"]}
            for plural, name in reviews.RESOURCES[group]
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{group}/v1", "resources": named}
    if not kinds:
        raise nowhere()
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": kinds[0].api_version,
        "resources": [resource for kind in kinds for resource in _resources(kind)],
    }


def _resources(kind: Kind) -> Iterator[dict[str, Any]]:
    named: dict[str, Any] = {"namespaced": kind.namespaced, "kind": kind.name}
    resource = {"name": kind.plural, "singularName": kind.name.lower(), **named, "verbs": _VERBS}
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.in_all:
        resource["categories"] = ["all"]
    yield resource
    if kind.has_status:
        yield {"name": f"{kind.plural}/status", "singularName": "", **named, "verbs": ["get", "patch", "update"]}
    if kind.scales:
        scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        yield {"name": f"{kind.plural}/scale", "singularName": "", **named, "verbs": ["get", "patch", "update"]} | scale
    if kind is SERVICE_ACCOUNT:
        token = {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}
        yield {"name": "serviceaccounts/token", "singularName": "", "namespaced": True, "verbs": ["create"]} | token
    if kind is POD:
        yield {"name": "pods/log", "singularName": "", **named, "verbs": ["get"]}
        options = {"namespaced": True, "kind": "PodPortForwardOptions", "verbs": ["create", "get"]}
        yield {"name": "pods/portforward", "singularName": ""} | options


def openapi_paths() -> dict[str, Any]:
    """Return the index of `/openapi/v3`."""
    bases = dict.fromkeys(kind.base.removeprefix("/") for kind in KINDS)
    return {"paths": {base: {"serverRelativeURL": f"/openapi/v3/{base}?hash={KUBERNETES_VERSION}"} for base in bases}}


@functools.cache
def openapi_document(base: str) -> bytes:
    """Return the OpenAPI v3 document of a group and version, as JSON.

    It holds the schemas, for `kubectl explain`, and the `fieldValidation` parameter, by which `kubectl apply` sees that
    the server validates.

    Args:
        base: path without the leading slash, such as `apis/batch/v1`.

    Raises:
        StatusError: 404, the cluster does not serve it.
    """
    kinds = [kind for kind in KINDS if kind.base == f"/{base}"]
    if not kinds:
        raise nowhere()
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for kind in kinds:
        identity = {"group": kind.group, "version": kind.version, "kind": kind.name}
        component = ".".join((kind.group or "core", kind.version, kind.name))
        schemas[component] = {**_collect(schema_of(kind), schemas), "x-kubernetes-group-version-kind": [identity]}
        answer = {"description": "OK", "content": {"application/json": {"schema": _reference(component)}}}
        operation = {
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "responses": {"200": answer},
            "x-kubernetes-group-version-kind": identity,
        }
        path = kind.path("{namespace}" if kind.namespaced else "", "{name}")
        paths[path] = {"get": operation, "patch": operation}
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _reference(component: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{component}"}


def _collect(schema: Any, into: dict[str, Any]) -> Any:
    """Return a schema with OpenAPI references, and add every definition it refers to."""
    if isinstance(schema, list):
        return [_collect(item, into) for item in schema]
    if not isinstance(schema, dict):
        return schema
    target = schema.get("$ref")
    if isinstance(target, str):
        name, known = referenced_schema(target)
        if name not in into:
            into[name] = {}  # definitions may refer to themselves
            into[name] = _collect(known, into)
        described = {key: value for key, value in schema.items() if key == "description"}
        return {"allOf": [_reference(name)], **described} if described else _reference(name)
    return {key: _collect(value, into) for key, value in schema.items() if not key.startswith("$")} | _typed(schema)


def _typed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the single type of `type: [string, null]`, which OpenAPI 3.0 writes as `nullable`."""
    types = schema.get("type")
    if not isinstance(types, list):
        return {}
    known = [name for name in types if name != "null"]
    return {"type": known[0], "nullable": True} if len(known) == 1 else {"type": "string"}
