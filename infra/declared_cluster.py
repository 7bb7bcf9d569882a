"""The declared cluster of an environment, and the Kubernetes provider that reaches it and no other."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from infra.kubeconfig import find_context, read_kubeconfigs
from infra.mistakes import reported
from infra.scopes import Environment
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.live_models import check_foundation_only, check_models, released
from pipelines.declarations.placement import Placement, authority_digest, check_placement, placement_of


@dataclass(frozen=True)
class DeclaredCluster:
    """The EKS cluster that an environment's configuration names.

    Attributes:
        arn: its ARN.
        authority: its certificate authority, PEM.
    """

    arn: str
    authority: bytes

    @property
    def identity(self) -> str:
        """The cluster's identity, which a cluster that is created again under the same name does not have."""
        return f"{self.arn}#{authority_digest(self.authority)}"


def find_cluster(environment: Environment) -> DeclaredCluster:
    """Ask EKS for the declared cluster.

    Raises:
        MlopsError: it does not exist, or may not be described.
    """
    name = environment.config.cluster
    try:
        found = aws.eks.get_cluster(name=name)
    except Exception as error:  # the SDK raises no narrower class for a call that failed
        raise MlopsError(
            f"the cluster {name} of {environment.name} cannot be found: expected an EKS cluster in the account "
            f"{environment.account}, region {environment.region}, found {error}",
            fix=f"create it, or correct `cluster` in Pulumi.{environment.name}.yaml",
        ) from error
    return DeclaredCluster(found.arn, base64.b64decode(found.certificate_authorities[0].data))


@dataclass(frozen=True)
class ClusterProviders:
    """Kubernetes providers of the declared cluster.

    Attributes:
        ordinary: serves every resource but the Namespace.
        adopting: takes over what exists: the Namespace, which an administrator creates with the roles in it.
    """

    ordinary: k8s.Provider
    adopting: k8s.Provider


def cluster_providers(
    environment: Environment,
    cluster: DeclaredCluster,
    before: pulumi.Output[Any],
    models: Sequence[str],
    *,
    foundation_only: bool,
) -> ClusterProviders:
    """Return the Kubernetes providers of an environment: the declared cluster, whatever the current context is.

    Args:
        environment: the environment.
        cluster: its cluster.
        before: the outputs of the stack's last update.
        models: the declared models.
        foundation_only: whether every release is left out.

    Raises:
        MlopsError: KUBECONFIG does not lead to the cluster, the environment would move, or an endpoint would be lost:
            its model is no longer declared, or releases are left out.
    """
    context = find_context(read_kubeconfigs(os.environ.get("KUBECONFIG")), cluster.authority)
    if context is None:
        raise MlopsError(
            f"KUBECONFIG does not lead to the cluster {cluster.arn} of {environment.name}: expected a context whose "
            "cluster has its certificate authority, found none",
            fix=f"aws eks update-kubeconfig --name {environment.config.cluster} --region {environment.region}",
        )
    now = placement(environment, cluster)

    @reported()
    def identify(outputs: Mapping[str, Any]) -> str:
        check_placement(environment.name, placement_of(outputs), now, environment.config.cluster_authority)
        check_models(environment.name, released(outputs), models)
        if foundation_only:
            check_foundation_only(environment.name, released(outputs))
        return cluster.identity

    # Without a value, the SDK records the path in KUBECONFIG, which the next run may not have.
    identity = before.apply(identify)
    return ClusterProviders(
        k8s.Provider("cluster", kubeconfig="", context=context, cluster_identifier=identity),
        k8s.Provider(
            "adopting",
            kubeconfig="",
            context=context,
            cluster_identifier=identity,
            upsert_existing_objects=True,
        ),
    )


def placement(environment: Environment, cluster: DeclaredCluster) -> Placement:
    """Return where an environment lives."""
    return Placement(
        account=environment.account,
        region=environment.region,
        cluster=environment.config.cluster,
        namespace=environment.config.namespace,
        cluster_authority=authority_digest(cluster.authority),
    )


def last_outputs() -> pulumi.Output[Any]:
    """Return the outputs of the last update of the stack that Pulumi is running; empty before the first."""
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    return pulumi.StackReference("last-update", stack_name=name).outputs
