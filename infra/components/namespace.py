"""A Kubernetes namespace of an environment: restricted pods, and no traffic unless a network policy allows it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from infra.components.labels import labels, metadata, owner_annotations
from infra.scopes import Environment

POD_SECURITY_VERSION = "v1.33"
"""Version of the Pod Security Standards. Pinned, so an upgrade of the cluster does not change what is enforced."""


@dataclass(frozen=True, kw_only=True)
class NamespaceArgs:
    """Arguments of `Namespace`.

    Attributes:
        environment: the environment that the namespace belongs to.
        adopting: Kubernetes provider that takes over a namespace that exists; None for the default provider.
        name: the namespace's name; None for that of the environment's jobs and endpoints.
        protected: whether Pulumi must refuse to delete it, unless the environment is disposable.
    """

    environment: Environment
    adopting: k8s.Provider | None = None
    name: str | None = None
    protected: bool = True


class Namespace(pulumi.ComponentResource):
    """A namespace that denies all traffic by default.

    Attributes:
        name: the namespace's name; an output, so that its users wait for the namespace.
    """

    def __init__(self, name: str, args: NamespaceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:cluster:Namespace", name, None, opts)
        environment, own = args.environment, args.name or args.environment.config.namespace
        child = pulumi.ResourceOptions(parent=self)
        security = {
            f"pod-security.kubernetes.io/{mode}{suffix}": value
            for mode in ("enforce", "audit", "warn")
            for suffix, value in (("", "restricted"), ("-version", POD_SECURITY_VERSION))
        }
        # A pod becomes ready only after the load balancer has found it healthy.
        endpoints = {} if args.name else {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}
        namespace = k8s.core.v1.Namespace(
            name,
            metadata={
                "name": own,
                "labels": {**labels(environment, own, None), **security, **endpoints},
                "annotations": owner_annotations(environment, None),
            },
            opts=pulumi.ResourceOptions.merge(
                child, pulumi.ResourceOptions(protect=environment.protected and args.protected, provider=args.adopting)
            ),
        )
        self.name: pulumi.Output[str] = namespace.metadata["name"]
        k8s.networking.v1.NetworkPolicy(
            "default-deny",
            metadata={
                "name": "default-deny",
                "namespace": self.name,
                **metadata(environment, "default-deny", None),
            },
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
            opts=child,
        )
        self.register_outputs({"name": self.name})
