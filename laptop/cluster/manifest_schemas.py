"""Strict validation of manifests against the published Kubernetes schemas: unknown fields are errors.

Argo Rollouts' resources are validated against `argo.schema.json`, which holds the part that the cluster runs.
"""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from typing import Any

from laptop.cluster.kinds import CRON_JOB, NAMESPACE, ROLLOUT, SERVICE, Kind

KUBERNETES_VERSION = "1.34"

_SCHEMAS = f"kubernetes-json-schema/v{KUBERNETES_VERSION}.0-local-strict"
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def problems(kind: Kind, obj: Any, *, unknown: object = None) -> list[str]:
    """Return the errors in a manifest; [] if it is valid.

    Args:
        kind: kind of the object.
        obj: manifest.
        unknown: placeholder for values that are not known yet; they are not validated.
    """
    found = []
    for error in _validator(kind).iter_errors(obj):
        if error.instance is unknown and unknown is not None:
            continue
        found.append(f"{_where(error.absolute_path)}: {_say(error)}")
    return sorted(found) + _naming_problems(kind, obj, unknown)


def _say(error: Any) -> str:
    if error.validator == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        extra = sorted(set(error.instance) - set(known))
        return f"unknown field {', '.join(map(json.dumps, extra))}; known here: {', '.join(known)}"
    return str(error.message)[:300]


def _where(path: Any) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the object"


@functools.cache
def _validator(kind: Kind) -> Any:
    from jsonschema.validators import Draft202012Validator
    from referencing import Registry, Resource

    resource = Resource.from_contents(_definitions_document())
    registry = Registry().with_resource("https://kubernetes.io/api/_definitions.json", resource)
    return Draft202012Validator(schema_of(kind), registry=registry)


@functools.cache
def schema_of(kind: Kind) -> dict[str, Any]:
    """Return the JSON schema of a kind. Its references lead to `definitions` or to its own `$defs`."""
    from kubernetes_validate.utils import schema_contents

    if kind.group == "argoproj.io":
        argo = json.loads(resources.files(__package__).joinpath("argo.schema.json").read_text())
        return {**argo["kinds"][kind.name], "$defs": argo["$defs"], "$id": f"https://kubernetes.io/argo/{kind.name}"}
    group = kind.group.split(".")[0]
    file = f"{kind.name.lower()}-{group}-{kind.version}" if group else f"{kind.name.lower()}-{kind.version}"
    schema: dict[str, Any] = schema_contents(f"{_SCHEMAS}/{file}.json", KUBERNETES_VERSION)
    return schema


def definitions() -> dict[str, Any]:
    """Return the schemas of the Kubernetes API by name, such as `io.k8s.api.core.v1.PodSpec`."""
    found: dict[str, Any] = _definitions_document()["$defs"]
    return found


def referenced_schema(reference: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the schema of the definition to which a `$ref` leads."""
    name = reference.rpartition("/")[2]
    if (known := definitions().get(name)) is not None:
        return name, known
    return f"io.argoproj.v1alpha1.{name}", schema_of(ROLLOUT)["$defs"][name]


@functools.cache
def _definitions_document() -> Any:
    from kubernetes_validate.utils import schema_contents

    return schema_contents(f"{_SCHEMAS}/_definitions.json", KUBERNETES_VERSION)


def _naming_problems(kind: Kind, obj: Any, unknown: object) -> list[str]:
    """Check names and labels, which the schemas leave out (kubernetes.io: Object Names and IDs; Labels)."""
    metadata = obj.get("metadata") if isinstance(obj, dict) else None
    if not isinstance(metadata, dict):
        return ["metadata: missing"]
    found = []
    name = metadata.get("name", unknown)
    if isinstance(name, str):
        longest = {CRON_JOB: 52, NAMESPACE: 63, SERVICE: 63}.get(kind, 253)
        form = _LABEL if kind is SERVICE else _SUBDOMAIN
        if not form.fullmatch(name) or (kind is NAMESPACE and "." in name):
            found.append(f"metadata.name: {name!r} is not a lower-case DNS name: expected a-z, 0-9 and `-`")
        if len(name) > longest:
            found.append(f"metadata.name: {name!r} has {len(name)} characters: expected at most {longest}")
    elif name is None and not metadata.get("generateName"):
        found.append("metadata.name: missing")
    labels = metadata.get("labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if not _LABEL_KEY.fullmatch(key):
            found.append(f"metadata.labels: {key!r} is not a label key")
        if isinstance(value, str) and not _LABEL_VALUE.fullmatch(value):
            found.append(
                f"metadata.labels.{key}: {value!r} is not a label value: expected at most 63 characters of "
                "A-Z, a-z, 0-9, `-`, `_`, `.`, with a letter or digit at both ends"
            )
    return found
