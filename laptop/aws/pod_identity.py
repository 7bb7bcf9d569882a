"""EKS Pod Identity associations in a file, which the cluster's credentials agent reads.

moto has no EKS Pod Identity. The file maps a cluster's name to its associations:
`{"mlops": [{"associationId": …, "namespace": …, "serviceAccount": …, "roleArn": …}]}`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError

FILE = "pod-identity.json"


@dataclass(frozen=True)
class Association:
    """The role of one service account of one cluster.

    Attributes:
        changed_at: seconds since 1970 of its creation or last change; set when it is stored.
    """

    id: str
    namespace: str
    service_account: str
    role_arn: str
    changed_at: float = 0.0


def role_of(home: Path, cluster: str, namespace: str, service_account: str) -> str | None:
    """Return the ARN of the role for the pods of a service account; None without an association.

    Args:
        home: folder of the account.
    """
    for association in associations(home, cluster):
        if (association.namespace, association.service_account) == (namespace, service_account):
            return association.role_arn
    return None


def associations(home: Path, cluster: str) -> tuple[Association, ...]:
    """Return the associations of a cluster."""
    return _read(home / FILE).get(cluster, ())


def cluster_of(home: Path, association_id: str) -> str:
    """Return the name of the cluster that has an association; "" if none has."""
    for cluster, found in _read(home / FILE).items():
        if any(association.id == association_id for association in found):
            return cluster
    return ""


def associate(home: Path, cluster: str, association: Association) -> None:
    """Add an association, or change the one with the same id.

    Raises:
        MlopsError: the service account has another association, which EKS refuses too.
    """
    with _changing(home) as found:
        others = [known for known in found.get(cluster, ()) if known.id != association.id]
        for other in others:
            if (other.namespace, other.service_account) == (association.namespace, association.service_account):
                raise MlopsError(
                    f"the service account {other.namespace}/{other.service_account} of the cluster {cluster} "
                    f"already has a pod identity association ({other.id}, {other.role_arn})",
                    fix="remove one of the two: EKS allows one role per service account.",
                )
        same = [known for known in found.get(cluster, ()) if replace(known, changed_at=0.0) == association]
        found[cluster] = (*others, *(same or [replace(association, changed_at=time.time())]))


def dissociate(home: Path, cluster: str, association_id: str) -> None:
    """Remove an association. A missing one is not an error."""
    with _changing(home) as found:
        left = tuple(known for known in found.get(cluster, ()) if known.id != association_id)
        found[cluster] = left
        if not left:
            del found[cluster]


def _read(path: Path) -> dict[str, tuple[Association, ...]]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise MlopsError(f"{path} is not JSON: {error}", fix="restart the laptop.") from error
    return {
        cluster: tuple(
            Association(
                item["associationId"],
                item["namespace"],
                item["serviceAccount"],
                item["roleArn"],
                float(item.get("changedAt", 0.0)),
            )
            for item in items
        )
        for cluster, items in held.items()
    }


def _written(item: Association) -> dict[str, str | float]:
    """Return an association in the form of EKS."""
    return {
        "associationId": item.id,
        "namespace": item.namespace,
        "serviceAccount": item.service_account,
        "roleArn": item.role_arn,
        "changedAt": item.changed_at,
    }


@contextmanager
def _changing(home: Path) -> Iterator[dict[str, tuple[Association, ...]]]:
    """Yield the associations for a change, under a lock across processes."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(home / f".{FILE}.lock"):
        found = _read(home / FILE)
        yield found
        text = json.dumps(
            {cluster: [_written(item) for item in items] for cluster, items in sorted(found.items())}, indent=1
        )
        write_atomically(home / FILE, text + "\n")
