"""Types of fields, compiled from the published schemas: what each field holds, and how lists and maps are merged."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Literal

from laptop.cluster.kinds import Kind
from laptop.cluster.manifest_schemas import definitions, schema_of

Form = Literal["scalar", "object", "list", "any"]
ListType = Literal["atomic", "set", "map"]

_KEY_DEFAULTS = {"protocol": "TCP"}
"""Values of list keys that a manifest may leave out."""


class FieldType:
    """Type of one field.

    Attributes:
        form: scalar, object (a struct or a map), list, or any, for which nothing is known.
        scalar: `string`, `integer`, `number`, `boolean`, `quantity` or `int-or-string`.
        format: format of a scalar, such as `byte`.
        fields: fields of a struct.
        required: fields that a struct must have.
        element: type of the items of a list or of the values of a map.
        is_struct: True if only `fields` are known names.
        atomic: a map or list that has one owner as a whole.
        list_type: how the items of a list are owned.
        keys: fields that identify an item of a list of type `map`.
        merge_key: field by which a strategic merge patch finds items, "" for none.
        merges: a strategic merge patch merges the list instead of replacing it.
        retains_keys: a strategic merge patch drops the fields that it does not name, if it says so.
    """

    __slots__ = (
        "_properties",
        "atomic",
        "element",
        "enum",
        "form",
        "format",
        "is_struct",
        "keys",
        "list_type",
        "merge_key",
        "merges",
        "required",
        "scalar",
    )

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.form: Form = "any"
        self.scalar = ""
        self.format: str = schema.get("format", "")
        self.required: tuple[str, ...] = tuple(schema.get("required", ()))
        self.element: FieldType | None = None
        self.is_struct = False
        self.atomic = schema.get("x-kubernetes-map-type") == "atomic"
        self.list_type: ListType = schema.get("x-kubernetes-list-type", "atomic")
        self.keys: tuple[str, ...] = tuple(schema.get("x-kubernetes-list-map-keys", ()))
        self.merge_key: str = schema.get("x-kubernetes-patch-merge-key", "")
        self.merges = "merge" in schema.get("x-kubernetes-patch-strategy", "")
        self.enum: tuple[Any, ...] = tuple(schema.get("enum", ()))
        self._properties: Mapping[str, Any] = schema.get("properties", {})
        types = schema.get("type", [])
        (type_,) = [name for name in ([types] if isinstance(types, str) else types) if name != "null"][:1] or [""]
        if "oneOf" in schema:
            is_quantity = any("number" in each.get("type", ()) for each in schema["oneOf"])
            self.form, self.scalar = "scalar", "quantity" if is_quantity else "int-or-string"
        elif type_ == "array":
            self.form = "list"
            self.element = _resolved(schema.get("items", {}))
            self.atomic = self.list_type == "atomic"
        elif self._properties:
            self.form, self.is_struct = "object", True
        elif isinstance(schema.get("additionalProperties"), dict):
            self.form = "object"
            self.element = _resolved(schema["additionalProperties"])
        elif type_ == "object":
            self.form = "object"
        elif type_:
            self.form, self.scalar = "scalar", type_

    def field(self, name: str) -> FieldType | None:
        """Return the type of a field of a struct or of a value of a map, or None if it is not known."""
        if self.is_struct:
            schema = self._properties.get(name)
            return None if schema is None else _resolved(schema)
        return self.element

    def is_named(self, name: str) -> bool:
        """Return whether a struct declares a field."""
        return name in self._properties

    @property
    def names(self) -> list[str]:
        """Fields that a struct declares."""
        return list(self._properties)


ANY = FieldType({})
"""Type of a field without a schema."""

_by_text: dict[int, tuple[Any, FieldType]] = {}


def _resolved(schema: Mapping[str, Any]) -> FieldType:
    """Return the type of a schema; references are followed, and compiled once."""
    known = _by_text.get(id(schema))
    if known is not None:
        return known[1]
    target = schema.get("$ref")
    if isinstance(target, str):
        found = {**_definition(target), **{key: value for key, value in schema.items() if key.startswith("x-")}}
        type_ = _by_definition(target) if len(found) == len(_definition(target)) else FieldType(found)
    else:
        type_ = FieldType(schema)
    _by_text[id(schema)] = (schema, type_)  # the schema is kept, so that its id stays its own
    return type_


@functools.cache
def _by_definition(target: str) -> FieldType:
    return FieldType(_definition(target))


def _definition(target: str) -> Mapping[str, Any]:
    name = target.rpartition("/")[2]
    found: Mapping[str, Any] = definitions().get(name) or _argo_definitions().get(name, {})
    return found


@functools.cache
def _argo_definitions() -> dict[str, Any]:
    from laptop.cluster.kinds import ROLLOUT

    found: dict[str, Any] = schema_of(ROLLOUT)["$defs"]
    return found


@functools.cache
def type_of(kind: Kind) -> FieldType:
    """Return the type of the objects of a kind."""
    return _resolved(schema_of(kind))


def item_key(type_: FieldType, item: Any, index: int) -> str:
    """Return the name of a list's item in a field set: `k:{"name":"x"}`, `v:"x"` or `i:0`."""
    if type_.list_type == "map" and isinstance(item, dict):
        keys = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in sorted(type_.keys)}
        return "k:" + json.dumps(
            {key: value for key, value in keys.items() if value is not None}, separators=(",", ":")
        )
    if type_.list_type == "set":
        return "v:" + json.dumps(item, separators=(",", ":"))
    return f"i:{index}"
