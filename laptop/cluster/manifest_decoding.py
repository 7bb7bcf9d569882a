"""Decoding of manifests as the API server does it: types are checked, unknown fields found, empty values left out."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from laptop.cluster.object_validation import is_quantity
from laptop.cluster.typed_schemas import FieldType

_LIMIT = 20  # unknown fields that are reported


@dataclass
class Decoded:
    """A decoded manifest.

    Attributes:
        object: manifest with known fields only.
        unknown: paths of the fields that were dropped.
        mistyped: errors about values of a wrong type; with one, the manifest cannot be read.
    """

    object: Any = None
    unknown: list[str] = field(default_factory=list)
    mistyped: list[tuple[str, str]] = field(default_factory=list)


def decode(type_: FieldType, value: Any, *, keep_unknown: bool = False) -> Decoded:
    """Decode a manifest.

    Args:
        type_: type of the object.
        value: manifest as JSON.
        keep_unknown: keep unknown fields, which are still reported, and empty values, as for custom resources.
    """
    result = Decoded()
    result.object = _Decoder(result, keep_unknown).value(type_, value, "")
    return result


class _Decoder:
    def __init__(self, result: Decoded, keep_unknown: bool) -> None:
        self._result = result
        self._keep_unknown = keep_unknown

    def value(self, type_: FieldType, value: Any, path: str) -> Any:
        form = type_.form
        if form == "scalar":
            if not _fits(type_.scalar, value) or (type_.format == "byte" and not _is_base64(value)):
                self._mistyped(path, value, type_.scalar)
            return int(value) if type_.scalar == "integer" and isinstance(value, float) else value
        if form == "list":
            if not isinstance(value, list):
                self._mistyped(path, value, "array")
                return value
            element = type_.element
            if element is None or (element.form == "any"):
                return value
            return [self.value(element, item, f"{path}[{index}]") for index, item in enumerate(value)]
        if form == "object":
            if not isinstance(value, dict):
                self._mistyped(path, value, "object")
                return value
            return self._struct(type_, value, path) if type_.is_struct else self._map(type_, value, path)
        return value

    def _struct(self, type_: FieldType, value: dict[str, Any], path: str) -> dict[str, Any]:
        result = {}
        for name, item in value.items():
            inner = type_.field(name)
            here = f"{path}.{name}" if path else name
            if inner is None:
                self._result.unknown.append(here)
                if self._keep_unknown:
                    result[name] = item
            elif item is not None:
                found = self.value(inner, item, here)
                is_empty = found in ({}, []) and (
                    inner.form == "list" or (inner.form == "object" and not inner.is_struct)
                )
                if not is_empty or name in type_.required or inner.form == "any" or self._keep_unknown:
                    result[name] = found
        return result

    def _map(self, type_: FieldType, value: dict[str, Any], path: str) -> dict[str, Any]:
        element = type_.element
        if element is None or element.form == "any":
            return value
        return {
            name: "" if item is None and element.scalar == "string" else self.value(element, item, f"{path}.{name}")
            for name, item in value.items()
        }

    def _mistyped(self, path: str, value: Any, wanted: str) -> None:
        self._result.mistyped.append((path, f"cannot unmarshal {_name_of(value)} into a field of type {wanted}"))


def _fits(scalar: str, value: Any) -> bool:
    if scalar == "string":
        return isinstance(value, str)
    if scalar == "integer":
        return (
            (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
            and value is not True
            and (value is not False)
        )
    if scalar == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if scalar == "boolean":
        return isinstance(value, bool)
    if scalar == "quantity":
        return not isinstance(value, bool) and isinstance(value, str | int | float) and is_quantity(value)
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except ValueError:
        return False
    return True


def _name_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def unknown_fields(paths: list[str]) -> str:
    """Return unknown fields as text: `unknown field "spec.a", unknown field "spec.b"`."""
    return ", ".join(f'unknown field "{path}"' for path in paths[:_LIMIT])
