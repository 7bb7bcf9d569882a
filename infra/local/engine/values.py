"""Property values: from Pulumi's wire format to plain Python and back, with what is secret or unknown kept.

A property bag is a plain dict; which places of it are secret is a set of paths beside it. So everything that
compares or applies values works on plain ones, and nothing loses the marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf import struct_pb2
from pulumi.runtime import rpc

from pipelines.declarations.errors import MlopsError

PropertyPath = tuple[str | int, ...]
"""Where a value stands in a property bag: keys and list indexes."""

NO_SECRETS: frozenset[PropertyPath] = frozenset()


class Unknown:
    """The type of `UNKNOWN`, a value that only an `up` will know."""

    _only: ClassVar[Unknown | None] = None

    def __new__(cls) -> Unknown:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "[unknown]"

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, memo: object) -> Unknown:
        return self


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Properties:
    """A property bag and the paths in it that are secret."""

    values: dict[str, Any]
    secrets: frozenset[PropertyPath] = NO_SECRETS


def has_unknown(value: Any) -> bool:
    """Whether `UNKNOWN` stands anywhere in a value."""
    if value is UNKNOWN:
        return True
    if isinstance(value, dict):
        return any(has_unknown(item) for item in value.values())
    return isinstance(value, list) and any(has_unknown(item) for item in value)


def known_only(properties: Properties) -> Properties:
    """The properties without those that have an unknown anywhere."""
    values = {key: value for key, value in properties.values.items() if not has_unknown(value)}
    return Properties(values, frozenset(path for path in properties.secrets if path[0] in values))


def leaves(value: Any, at: PropertyPath = ()) -> Iterator[tuple[PropertyPath, Any]]:
    """Every value below that is neither an object nor a list, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*at, index))
    else:
        yield at, value


_MISSING = object()


def lookup(value: Any, path: PropertyPath, default: Any = None) -> Any:
    """What stands at a path, or the default."""
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value):
            value = value[part]
        else:
            return default
    return value


def is_at(value: Any, path: PropertyPath) -> bool:
    """Whether anything stands at a path."""
    return lookup(value, path, _MISSING) is not _MISSING


def still_secret(secrets: Iterable[PropertyPath], values: dict[str, Any]) -> frozenset[PropertyPath]:
    """Secret paths, as far as they stand in the values; one that moved makes its whole property secret."""
    kept: set[PropertyPath] = set()
    for path in secrets:
        if is_at(values, path):
            kept.add(path)
        elif path[0] in values:
            kept.add(path[:1])
    return frozenset(kept)


SHORTEST_TRACED_SECRET = 8
"""Characters a secret string needs before copies of it inside other strings are looked for."""


def secret_outputs(inputs: Properties, outputs: dict[str, Any], additional: Iterable[str]) -> frozenset[PropertyPath]:
    """Which outputs are secret: what was secret as input, copies of it, and what the program names.

    Args:
        additional: top-level output names from `additionalSecretOutputs`.
    """
    secrets = set(still_secret(inputs.secrets, outputs))
    secrets |= {(name,) for name in additional if name in outputs}
    needles = {
        leaf
        for path in inputs.secrets
        for _, leaf in leaves(lookup(inputs.values, path))
        if isinstance(leaf, str) and len(leaf) >= SHORTEST_TRACED_SECRET
    }
    if needles:
        for path, leaf in leaves(outputs):
            if isinstance(leaf, str) and any(needle in leaf for needle in needles):
                secrets.add(path)
    return frozenset(secrets)


# Pulumi marks special values with signature keys; see sdk/go/common/resource/properties.go.
_SIGNATURE = rpc._special_sig_key
_SECRET = rpc._special_secret_sig
_REFERENCE = rpc._special_resource_sig
_OUTPUT = rpc._special_output_value_sig
_SENTINEL = rpc.UNKNOWN


def decode(struct: struct_pb2.Struct) -> Properties:
    """Plain values from a wire structure.

    A reference to a resource becomes its id (its URN when it is a component); a number without a fraction
    becomes an int; a key whose value is null is left out.
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
            f"`{where}` is an asset or an archive, which the local target does not take",
            fix="put the content into the property as text.",
        )
    decoded = {key: _decode(item, (*at, key), secrets) for key, item in fields.items()}
    return {key: item for key, item in decoded.items() if item is not None}


def encode(properties: Properties) -> struct_pb2.Struct:
    """A wire structure from plain values."""
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
