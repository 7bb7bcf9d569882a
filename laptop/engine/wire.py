"""Convert property values between Pulumi's wire format and plain Python."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2
from pulumi.runtime import rpc

from infra.policies.resource_graph import UNKNOWN
from laptop.engine.values import Properties, PropertyPath
from pipelines.declarations.errors import MlopsError

# Pulumi marks special values with signature keys: sdk/go/common/resource/properties.go.
_SIGNATURE = rpc._special_sig_key
_SECRET = rpc._special_secret_sig
_REFERENCE = rpc._special_resource_sig
_OUTPUT = rpc._special_output_value_sig
_SENTINEL = rpc.UNKNOWN


def decode(struct: struct_pb2.Struct) -> Properties:
    """Decode a wire structure.

    A resource reference becomes its id (the URN of a component), a whole number becomes an int, and keys with a
    null value are dropped.

    Raises:
        MlopsError: a value is an asset or an archive.
    """
    secrets: set[PropertyPath] = set()
    values: dict[str, Any] = {}
    for key, item in struct.fields.items():
        value = _decode(item, (key,), secrets)
        if value is not None:
            values[key] = value
    return Properties(values, frozenset(secrets))


def _decode(value: struct_pb2.Value, at: PropertyPath, secrets: set[PropertyPath]) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == _SENTINEL else value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_decode(item, (*at, index), secrets) for index, item in enumerate(value.list_value.values)]
    if kind == "struct_value":
        return _decode_struct(value.struct_value, at, secrets)
    return None


def _decode_struct(struct: struct_pb2.Struct, at: PropertyPath, secrets: set[PropertyPath]) -> Any:
    fields = struct.fields
    if _SIGNATURE in fields:
        signature = fields[_SIGNATURE].string_value
        if signature in (_SECRET, _OUTPUT):
            if signature == _SECRET or fields["secret"].bool_value:
                secrets.add(at)
            return _decode(fields["value"], at, secrets) if "value" in fields else UNKNOWN
        if signature == _REFERENCE:
            identity = fields["id"] if "id" in fields else fields["urn"]
            return UNKNOWN if identity.string_value in ("", _SENTINEL) else identity.string_value
        where = ".".join(str(part) for part in at)
        raise MlopsError(
            f"`{where}` is an asset or an archive, which the laptop does not support",
            fix="put the content into the property as text.",
        )
    decoded = {key: _decode(item, (*at, key), secrets) for key, item in fields.items()}
    return {key: item for key, item in decoded.items() if item is not None}


def encode(properties: Properties) -> struct_pb2.Struct:
    """Encode plain values as a wire structure."""
    return struct_pb2.Struct(
        fields={key: _encode(item, (key,), properties.secrets) for key, item in properties.values.items()}
    )


def _encode(value: Any, at: PropertyPath, secrets: frozenset[PropertyPath]) -> struct_pb2.Value:
    encoded = _encode_plain(value, at, secrets)
    if at not in secrets:
        return encoded
    signature = struct_pb2.Value(string_value=_SECRET)
    return struct_pb2.Value(struct_value=struct_pb2.Struct(fields={_SIGNATURE: signature, "value": encoded}))


def _encode_plain(value: Any, at: PropertyPath, secrets: frozenset[PropertyPath]) -> struct_pb2.Value:
    if value is UNKNOWN:
        return struct_pb2.Value(string_value=_SENTINEL)
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, dict):
        fields = {str(key): _encode(item, (*at, key), secrets) for key, item in value.items()}
        return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=fields))
    if isinstance(value, list | tuple):
        items = [_encode(item, (*at, index), secrets) for index, item in enumerate(value)]
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
    where = ".".join(str(part) for part in at)
    raise TypeError(f"a provider returned {type(value).__name__} at `{where}`; expected a JSON-like value")
