"""Decoding of request bodies in Kubernetes' protobuf format, which `kubectl create` and `kubectl auth` send.

The fields of the messages are in `protobuf_fields.json`, made by `tools/protobuf_fields.py`.
"""

from __future__ import annotations

import base64
import functools
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from typing import Any

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_MAGIC = b"k8s\x00"
_INTEGERS = ("int32", "int64", "uint32", "uint64")
_PACKAGES = {
    "": "core",
    "rbac.authorization.k8s.io": "rbac",
    "networking.k8s.io": "networking",
    "authorization.k8s.io": "authorization",
    "authentication.k8s.io": "authentication",
}


class ProtobufError(Exception):
    """A body is not a Kubernetes object in protobuf format."""


def decode(body: bytes) -> dict[str, Any]:
    """Return the object in a body.

    Raises:
        ProtobufError: the body is not one.
    """
    if not body.startswith(_MAGIC):
        raise ProtobufError("the body does not start with the magic number of Kubernetes")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        type_ = {number: value.decode() for number, value in _fields(envelope[1])}
        api_version, kind = type_[1], type_[2]
        group, _, version = api_version.rpartition("/")
        message = f"{_PACKAGES.get(group, group)}.{version}.{kind}"
        if kind == "DeleteOptions":
            message = "meta.v1.DeleteOptions"
        if message not in _messages():
            raise ProtobufError(f"{api_version} {kind} is not known in protobuf")
        return {"apiVersion": api_version, "kind": kind, **_object(message, envelope.get(2, b""))}
    except (KeyError, IndexError, ValueError, struct.error, AttributeError, TypeError) as error:
        raise ProtobufError(f"the body cannot be read: {error}") from error


@functools.cache
def _messages() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(
        resources.files(__package__).joinpath("protobuf_fields.json").read_text()
    )
    return found


def _object(message: str, data: bytes) -> dict[str, Any]:
    fields = _messages()[message]
    result: dict[str, Any] = {}
    for number, raw in _fields(data):
        described = fields.get(str(number))
        if described is None:
            continue
        name, type_, *rest = described.split()
        flags = rest[0] if rest else ""
        if "{}" in flags:
            entry = dict(_fields(raw))
            result.setdefault(name, {})[entry.get(1, b"").decode()] = _value(type_, entry.get(2, b""))
        elif "[]" in flags:
            result.setdefault(name, []).append(_value(type_, raw))
        elif "<" in flags:
            result |= _object(type_, raw)
        else:
            value = _value(type_, raw)
            # A plain field is always written; one that is empty was not set.
            if value not in ("", 0, False, None) or ("*" in flags and value is not None):
                result[name] = value
    return result


def _value(type_: str, raw: Any) -> Any:
    if type_ == "string":
        return raw.decode()
    if type_ == "bytes":
        return base64.b64encode(raw).decode()
    if type_ == "bool":
        return bool(raw)
    if type_ in _INTEGERS:
        return raw - (1 << 64) if raw >> 63 else raw
    if type_ == "double":
        return struct.unpack("<d", raw)[0]
    if type_ in ("meta.v1.Time", "meta.v1.MicroTime"):
        seconds = dict(_fields(raw)).get(1)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if type_ == "api.resource.Quantity":
        return dict(_fields(raw)).get(1, b"0").decode()
    if type_ == "util.intstr.IntOrString":
        parts = dict(_fields(raw))
        return parts[3].decode() if parts.get(1) else _value("int32", parts.get(2, 0))
    if type_ == "meta.v1.FieldsV1":
        return json.loads(dict(_fields(raw)).get(1, b"{}"))
    return _object(type_, raw)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field: an integer, or bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, position = _varint(data, position)
        elif wire == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("a field is longer than the body")
            value = data[position : position + length]
            position += length
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value = data[position : position + size]
            position += size
        else:
            raise ValueError(f"unknown wire type {wire}")
        yield number, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
