"""The OpenAPI v2 document of the Kubernetes API (`/openapi/v2`): the schemas of the kinds that the cluster serves.

client-go reads it as a protobuf message only (`openapi.v2.Document` of the gnostic project), so both forms are made.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from laptop.cluster.kinds import KINDS, ROLLOUT, Kind
from laptop.cluster.manifest_schemas import KUBERNETES_VERSION, definitions, referenced_schema, schema_of

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""Media type of the protobuf form, as clients ask for it."""

ANSWERED = PROTOBUF.replace("@", ".")
"""Media type of the answer. Clients cannot parse an `@`."""

_GVK = "x-kubernetes-group-version-kind"
_PREFIX = "#/definitions/"
_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation", "force")
_MIXED = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": "string", "format": "int-or-string"},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": "string"},
}


@functools.cache
def as_json() -> bytes:
    """Return the document as JSON."""
    return json.dumps(document(), separators=(",", ":")).encode()


@functools.cache
def as_protobuf() -> bytes:
    """Return the document as protobuf."""
    return _document(document())


@functools.cache
def document() -> dict[str, Any]:
    """Return the document."""
    found: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for kind in KINDS:
        name = _name_of(kind)
        if name not in found:
            _collect(name, schema_of(kind) if kind.group == ROLLOUT.group else definitions()[name], found)
        identity = {"group": kind.group, "kind": kind.name, "version": kind.version}
        found[name] = {**found[name], _GVK: [identity]}
        paths[kind.path("{namespace}" if kind.namespaced else "", "{name}")] = {"patch": _operation(kind, name)}
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}.0"},
        "paths": paths,
        "definitions": dict(sorted(found.items())),
    }


def _operation(kind: Kind, name: str) -> dict[str, Any]:
    parameters = [{"name": each, "in": "query", "type": "string", "uniqueItems": True} for each in _PARAMETERS]
    return {
        "operationId": f"patch{kind.group.title().replace('.', '')}{kind.version.title()}{kind.name}",
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "schema": {"$ref": _PREFIX + name}}},
        _GVK: {"group": kind.group, "kind": kind.name, "version": kind.version},
    }


@functools.cache
def _names() -> dict[tuple[str, str, str], str]:
    return {
        (each["group"], each["version"], each["kind"]): name
        for name, schema in definitions().items()
        for each in schema.get(_GVK, ())
    }


def _name_of(kind: Kind) -> str:
    if kind.group == ROLLOUT.group:
        return f"io.argoproj.{kind.version}.{kind.name}"
    return _names()[kind.group, kind.version, kind.name]


def _collect(name: str, schema: Mapping[str, Any], into: dict[str, Any]) -> None:
    into[name] = {}  # definitions may refer to themselves
    into[name] = _converted(schema, into)


def _converted(schema: Any, into: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema as an OpenAPI v2 schema, and add every definition that it refers to."""
    target = schema.get("$ref")
    if isinstance(target, str):
        name, known = referenced_schema(target)
        if name not in into:
            if name in _MIXED:
                into[name] = {**_MIXED[name], "description": known.get("description", "")}
            else:
                _collect(name, known, into)
        rest = {key: value for key, value in schema.items() if key == "description" or key.startswith("x-")}
        return {**rest, "$ref": _PREFIX + name}
    result = {
        key: value
        for key, value in schema.items()
        if key in ("description", "format", "required") or (key.startswith("x-") and key != _GVK)
    }
    types = schema.get("type")
    known_types = [name for name in ([types] if isinstance(types, str) else types or ()) if name != "null"]
    if len(known_types) == 1:
        result["type"] = known_types[0]
    if isinstance(schema.get("items"), dict):
        result["items"] = _converted(schema["items"], into)
    if isinstance(schema.get("properties"), dict):
        result["properties"] = {key: _converted(value, into) for key, value in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _converted(schema["additionalProperties"], into)
    return result


# Protobuf. The numbers are those of the message's fields.


def _document(found: Mapping[str, Any]) -> bytes:
    info = _text(1, found["info"]["title"]) + _text(2, found["info"]["version"])
    paths = b"".join(_named(2, name, _path_item(item)) for name, item in found["paths"].items())
    schemas = b"".join(_named(1, name, _schema(item)) for name, item in found["definitions"].items())
    return _text(1, found["swagger"]) + _message(2, info) + _message(8, paths) + _message(9, schemas)


def _path_item(item: Mapping[str, Any]) -> bytes:
    operation = item["patch"]
    body = _text(5, operation["operationId"])
    for parameter in operation["parameters"]:
        query = _text(2, parameter["in"]) + _text(4, parameter["name"]) + _text(6, parameter["type"]) + _flag(20)
        body += _message(8, _message(1, _message(2, _message(3, query))))
    response = _text(1, "OK") + _message(2, _message(1, _schema(operation["responses"]["200"]["schema"])))
    body += _message(9, _named(1, "200", _message(1, response)))
    return _message(8, body + _extension(13, _GVK, operation[_GVK]))


def _schema(schema: Mapping[str, Any]) -> bytes:
    return b"".join(_schema_fields(schema))


def _schema_fields(schema: Mapping[str, Any]) -> Iterator[bytes]:
    yield _text(1, schema.get("$ref", ""))
    yield _text(2, schema.get("format", ""))
    yield _text(4, schema.get("description", ""))
    for name in schema.get("required", ()):
        yield _text(19, name)
    if "additionalProperties" in schema:
        yield _message(21, _message(1, _schema(schema["additionalProperties"])))
    if "type" in schema:
        yield _message(22, _text(1, schema["type"]))
    if "items" in schema:
        yield _message(23, _message(1, _schema(schema["items"])))
    if "properties" in schema:
        yield _message(25, b"".join(_named(1, name, _schema(item)) for name, item in schema["properties"].items()))
    for name, value in schema.items():
        if name.startswith("x-"):
            yield _extension(31, name, value)


def _extension(number: int, name: str, value: Any) -> bytes:
    return _named(number, name, _text(2, json.dumps(value)))  # JSON is YAML


def _named(number: int, name: str, value: bytes) -> bytes:
    return _message(number, _text(1, name) + _message(2, value))


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode()) if text else b""


def _flag(number: int) -> bytes:
    return _varint(number << 3) + b"\x01"


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
