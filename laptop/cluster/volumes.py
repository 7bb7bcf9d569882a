"""Volumes of pods: folders of files on this machine.

Pods are processes that share this machine's files, so nothing can be mounted at a `mountPath`. Instead a volume is a
folder of the pod, and every mention of the `mountPath` in the container's variables, `command` and `args` is replaced
by that folder, except in JSON objects. A container that has a path only in its code is refused (see `supported`). /tmp
is the exception: it is the pod's TMPDIR. Files are written once, before the container starts; later changes of a
ConfigMap have no effect.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laptop.cluster.container_env import ConfigurationError
from laptop.cluster.kinds import CONFIG_MAP, SECRET, Kind
from laptop.cluster.objects import Object, ObjectStore, namespace_of

SCRATCH = "/tmp"  # noqa: S108  the pod's own


def write_volumes(store: ObjectStore, pod: Object, folder: Path) -> dict[str, Path]:
    """Write the files of a pod's volumes.

    Args:
        store: objects of the cluster.
        pod: pod.
        folder: the pod's folder.

    Returns:
        Name of a volume → its folder.

    Raises:
        ConfigurationError: a ConfigMap, a Secret or a key does not exist.
    """
    written: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes") or ():
        target = folder / "volumes" / volume["name"]
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        for kind, source in ((CONFIG_MAP, "configMap"), (SECRET, "secret")):
            if source in volume:
                _write(_files(store, kind, namespace_of(pod), volume[source]), target)
        written[volume["name"]] = target
    return written


def mounts_of(container: Mapping[str, Any], volumes: Mapping[str, Path], scratch: Path) -> dict[str, Path]:
    """Return the mountPaths of a container and the folders they stand for.

    Args:
        container: container.
        volumes: name of a volume → its folder.
        scratch: the pod's TMPDIR, which every mount at /tmp is.
    """
    return {
        mount["mountPath"]: scratch if mount["mountPath"] == SCRATCH else volumes[mount["name"]]
        for mount in container.get("volumeMounts") or ()
    }


def replace_paths(text: str, mounts: Mapping[str, Path]) -> str:
    """Replace the mountPaths in a text by their folders, where they are a whole path or the beginning of one.

    A JSON object is left unchanged: its paths may be meant for another container, as in a pod template.
    """
    if text.startswith("{"):
        return text
    for path in sorted(mounts, key=len, reverse=True):
        pattern = rf"(?<![\w./-]){re.escape(path.rstrip('/'))}(?![\w.-])"
        text = re.sub(pattern, lambda _, folder=mounts[path]: str(folder), text)  # type: ignore[misc]
    return text


def mentions(path: str, container: Mapping[str, Any]) -> bool:
    """Return whether the variables or the command line of a container name a path."""
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    words += [str(variable.get("value") or "") for variable in container.get("env") or ()]
    here = {path: Path("\0")}
    return any(replace_paths(str(word), here) != word for word in words)


def _files(store: ObjectStore, kind: Kind, namespace: str, source: dict[str, Any]) -> dict[str, bytes]:
    name = source.get("name") or source.get("secretName")
    obj = store.find(kind, namespace, str(name))
    if obj is None:
        if source.get("optional"):
            return {}
        raise ConfigurationError(f'{kind.name.lower()} "{name}" not found')
    files = {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
    for key, value in (obj.get("data") or {}).items():
        files[key] = base64.b64decode(value) if kind is SECRET else value.encode()
    items = source.get("items")
    if items is None:
        return files
    if missing := [item["key"] for item in items if item["key"] not in files and not source.get("optional")]:
        raise ConfigurationError(f"{kind.name.lower()} {name!r} has no key {', '.join(missing)}")
    return {item["path"]: files[item["key"]] for item in items if item["key"] in files}


def _write(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.unlink(missing_ok=True)
        file.write_bytes(content)
        file.chmod(0o400)
