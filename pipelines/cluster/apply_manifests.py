"""Apply manifests to the cluster that KUBECONFIG names, by server-side apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightkube.codecs import from_dict

from pipelines.cluster.connection import connect

MANAGER = "mlops-administrator"
"""Field manager of what an administrator applies; the program has its own."""


def apply_manifests(objects: Iterable[Mapping[str, Any]], log: Callable[[str], None]) -> None:
    """Create or update objects. Idempotent.

    Args:
        objects: manifests of kinds that Kubernetes has built in.
        log: receives a line for each object.

    Raises:
        MlopsError: the cluster cannot be reached, or refuses an object.
    """
    with connect("default") as client:
        for manifest in objects:
            metadata = manifest["metadata"]
            client.apply(from_dict(dict(manifest)), field_manager=MANAGER)
            where = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
            log(f"applied {manifest['kind']} {where}{metadata['name']}")
