"""Environment variables of a container, from its manifest and the cluster. Nothing is inherited from this process."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

from laptop.cluster.kinds import CONFIG_MAP, SECRET, Kind
from laptop.cluster.objects import Object, ObjectStore, namespace_of

NODE_NAME = "laptop"
"""Name of the one node."""

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class ConfigurationError(Exception):
    """A container names a ConfigMap, a Secret or a key that does not exist (yet)."""


def environment_of(
    store: ObjectStore,
    pod: Object,
    container: dict[str, Any],
    base: Mapping[str, str],
    replace: Callable[[str], str] = str,
) -> dict[str, str]:
    """Return the variables of a container in Kubernetes' order of precedence: base, envFrom, env.

    Args:
        store: objects of the cluster.
        pod: pod of the container.
        container: container.
        base: variables that every container gets.
        replace: maps values in the manifest to those on this machine.

    Raises:
        ConfigurationError: a ConfigMap, a Secret or a key does not exist.
    """
    result = dict(base)
    namespace = namespace_of(pod)
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix", "")
        for kind, key in ((CONFIG_MAP, "configMapRef"), (SECRET, "secretRef")):
            if key in source:
                data = _data(store, kind, namespace, source[key])
                result |= {f"{prefix}{name}": replace(value) for name, value in data.items()}
    for variable in container.get("env") or ():
        value = variable.get("value") or ""
        if "valueFrom" in variable:
            found = _value_from(store, pod, variable["valueFrom"])
            if found is None:
                continue
            value = replace(found)
        else:
            value = expand(replace(value), result)
        result[variable["name"]] = value
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as a kubelet does: `$$` stands for `$`, and an unknown name is left unchanged."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return _REFERENCE.sub(value, text)


def _value_from(store: ObjectStore, pod: Object, source: dict[str, Any]) -> str | None:
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    for kind, key in ((CONFIG_MAP, "configMapKeyRef"), (SECRET, "secretKeyRef")):
        if key in source:
            reference = source[key]
            data = _data(store, kind, namespace_of(pod), reference)
            if reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            raise ConfigurationError(
                f"couldn't find key {reference['key']} in {kind.name} {namespace_of(pod)}/{reference['name']}"
            )
    return None


def _field(pod: Object, path: str) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    match = re.fullmatch(r"metadata\.(labels|annotations)\['?([^']+)'?\]", path)
    if match:
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    return {
        "metadata.name": str(metadata["name"]),
        "metadata.namespace": str(metadata["namespace"]),
        "metadata.uid": str(metadata["uid"]),
        "spec.serviceAccountName": str(spec.get("serviceAccountName") or "default"),
        "spec.nodeName": NODE_NAME,
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
    }[path]


def _data(store: ObjectStore, kind: Kind, namespace: str, reference: dict[str, Any]) -> dict[str, str]:
    obj = store.find(kind, namespace, reference["name"])
    if obj is None:
        if reference.get("optional"):
            return {}
        raise ConfigurationError(f'{kind.name.lower()} "{reference["name"]}" not found')
    if kind is CONFIG_MAP:
        return dict(obj.get("data") or {})
    return {key: base64.b64decode(value).decode() for key, value in (obj.get("data") or {}).items()} | dict(
        obj.get("stringData") or {}
    )
