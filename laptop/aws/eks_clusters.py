"""EKS clusters of the account. All of them are the one cluster that runs here; a file says which names exist.

moto invents an address and a certificate authority for each cluster. The account answers with those of the real one, so
that whoever asks EKS reaches it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.project import Project

FILE = "eks-clusters.json"
_ROLE = "arn:aws:iam::{account}:role/eks-cluster"


def declare_clusters(
    home: Path, kubeconfig: Path, clusters: Iterable[tuple[str, str]], *, cluster: str | None = None
) -> None:
    """Make EKS clusters exist in the account, in addition to those that exist.

    Args:
        home: folder of the account.
        kubeconfig: leads to the cluster that runs here.
        clusters: region and name of each.
        cluster: its name in the kubeconfig; the first one by default.
    """
    listed = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))["clusters"]
    found = next(item["cluster"] for item in listed if cluster in (None, item["name"]))
    authority = found.get("certificate-authority-data")
    if authority is None:
        authority = base64.b64encode(Path(found["certificate-authority"]).read_bytes()).decode()
    known = {tuple(one) for one in _read(home).get("clusters", ())}
    held = {
        "endpoint": found["server"],
        "certificateAuthority": authority,
        "clusters": sorted({*known, *clusters}),
    }
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(home / FILE, json.dumps(held, indent=1) + "\n")


def declared_clusters(project: Project) -> list[tuple[str, str]]:
    """Return the region and name of the cluster of each environment that can be read."""
    found = []
    for file in sorted(project.root.glob("Pulumi.*.yaml")):
        with suppress(Exception):  # `mlops validate` says what is wrong with a file
            config = project.stack(file.name.removeprefix("Pulumi.").removesuffix(".yaml")).config
            found.append((config.region, config.environment.cluster))
    return found


def serve_clusters(home: Path) -> None:
    """Patch moto in this process so that EKS has the clusters of the file.

    Args:
        home: folder of the account.
    """
    from moto.eks.models import EKSBackend

    describe, list_all = EKSBackend.describe_cluster, EKSBackend.list_clusters

    def synchronise(backend: Any) -> None:
        held = _read(home)
        for region, name in held.get("clusters", ()):
            if region == backend.region_name and name not in backend.clusters:
                backend.create_cluster(name, _ROLE.format(account=backend.account_id), {"subnetIds": []})
        for cluster in backend.clusters.values():
            if held:
                cluster.endpoint = held["endpoint"]
                cluster.certificate_authority = {"data": held["certificateAuthority"]}

    def described(self: Any, name: str) -> Any:
        synchronise(self)
        return describe(self, name)

    def listed(self: Any, max_results: int, next_token: str | None) -> Any:
        synchronise(self)
        return list_all(self, max_results, next_token)

    EKSBackend.describe_cluster = described  # type: ignore[method-assign]
    EKSBackend.list_clusters = listed  # type: ignore[method-assign]


def _read(home: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads((home / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return held
