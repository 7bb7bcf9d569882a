"""Placement: where an environment was created. It never changes; a move is another environment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipelines.declarations.documents import Declaration
from pipelines.declarations.errors import MlopsError

MOVE = "docs/platform-engineer.md#move-an-environment"
RECREATED = "docs/platform-engineer.md#a-cluster-was-created-again"


class Placement(Declaration):
    """Where an environment lives: the stack's output `placement`.

    Attributes:
        account, region: the AWS account and region.
        cluster: name of the EKS cluster.
        namespace: the Kubernetes namespace.
        cluster_authority: digest of the cluster's certificate authority, which no other cluster has; None in the output
            of an earlier version of the program.
    """

    account: str
    region: str
    cluster: str
    namespace: str
    cluster_authority: str | None = None


def authority_digest(certificate: bytes) -> str:
    """Return the digest of a certificate authority: `sha256:` and 64 hexadecimal digits.

    Args:
        certificate: the certificate as PEM, as EKS and kubeconfigs have it.
    """
    return f"sha256:{hashlib.sha256(certificate.strip()).hexdigest()}"


def placement_of(outputs: Mapping[str, Any]) -> Placement | None:
    """Return the placement in the outputs of a stack; None if the stack was never up.

    Earlier versions of the program exported a descriptor only.
    """
    held = outputs.get("placement") or outputs.get("descriptor")
    if not isinstance(held, Mapping):
        return None
    return Placement.model_validate({name: held[name] for name in Placement.model_fields if name in held})


def check_placement(environment: str, before: Placement | None, now: Placement, accepted: str | None) -> None:
    """Refuse an environment that is to live elsewhere than where it was created.

    Args:
        environment: its name.
        before: where it was created; None if it was never up.
        now: where its configuration and the caller's credentials place it.
        accepted: `cluster_authority` of the environment's configuration: a cluster of the same name that was created
            again is accepted if it has this authority.

    Raises:
        MlopsError: the placement changed.
    """
    if before is None:
        return
    file = f"Pulumi.{environment}.yaml"
    keys = {"account": "AWS account", "region": "region", "cluster": "cluster", "namespace": "namespace"}
    for key, word in keys.items():
        old, new = getattr(before, key), getattr(now, key)
        if old != new:
            undo = f"sign in to the account {old}" if key == "account" else f"write {old} back in {file}"
            raise MlopsError(
                f"{environment} cannot move to another {word}: expected {old}, where it was created, found {new}",
                fix=f"{undo}; to move, create another environment and promote to it: {MOVE}",
            )
    known = before.cluster_authority
    if known is not None and known != now.cluster_authority and accepted != now.cluster_authority:
        raise MlopsError(
            f"the cluster {now.cluster} is not the one that {environment} was created in: expected the certificate "
            f"authority {known}, found {now.cluster_authority}",
            fix=f"if the cluster was created again, follow {RECREATED}",
        )
