"""Contexts of a kubeconfig, found by the cluster's certificate authority."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from pipelines.declarations.errors import MlopsError


def read_kubeconfigs(variable: str | None) -> list[Mapping[str, Any]]:
    """Read the files that kubectl would read; a missing one is left out, as kubectl does.

    Args:
        variable: value of KUBECONFIG: paths, separated as in PATH; `~/.kube/config` without it.

    Raises:
        MlopsError: a file cannot be read, or is not a kubeconfig.
    """
    paths = [Path(part) for part in (variable or "").split(os.pathsep) if part] or [Path.home() / ".kube" / "config"]
    found: list[Mapping[str, Any]] = []
    for path in paths:
        if not path.is_file():
            continue
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise MlopsError(f"{path} cannot be read: {reason}", fix="correct KUBECONFIG") from error
        if document is None:
            continue
        if not isinstance(document, dict):
            raise MlopsError(
                f"{path}: expected a kubeconfig, found {type(document).__name__}", fix="correct KUBECONFIG"
            )
        found.append({**document, "folder": path.parent})
    return found


def find_context(documents: Sequence[Mapping[str, Any]], authority: bytes) -> str | None:
    """Return the context whose cluster has a certificate authority; None if no context has.

    The authority identifies a cluster: a client refuses every other server. Name and address of the cluster may differ
    from those that EKS tells, for example behind a tunnel. The current context is preferred.

    Args:
        documents: kubeconfigs from `read_kubeconfigs`; as in kubectl, the first definition of a name counts.
        authority: the certificate as PEM.
    """
    clusters: dict[str, bytes] = {}
    contexts: dict[str, str] = {}
    for document in documents:
        for name, cluster in _named(document, "clusters", "cluster"):
            clusters.setdefault(name, _authority(cluster, document["folder"]))
        for name, context in _named(document, "contexts", "context"):
            contexts.setdefault(name, str(context.get("cluster", "")))
    leading = [name for name, cluster in contexts.items() if clusters.get(cluster, b"").strip() == authority.strip()]
    current = next((str(one["current-context"]) for one in documents if one.get("current-context")), "")
    return current if current in leading else next(iter(leading), None)


def _named(document: Mapping[str, Any], section: str, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for item in document.get(section) or ():
        if isinstance(item, dict) and isinstance(item.get(key), dict):
            yield str(item.get("name", "")), item[key]


def _authority(cluster: Mapping[str, Any], folder: Path) -> bytes:
    """Return the certificate authority of a cluster; empty if it has none that can be read."""
    with suppress(binascii.Error, ValueError, OSError):
        if data := cluster.get("certificate-authority-data"):
            return base64.b64decode(str(data), validate=True)
        if path := cluster.get("certificate-authority"):
            return (folder / str(path)).read_bytes()
    return b""
