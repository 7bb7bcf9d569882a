"""The Kubernetes namespace of an environment: nothing privileged runs in it, and nothing talks unless it may."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as k8s

from infra.components.labels import labels, ownership
from infra.environment import Environment

POD_SECURITY_VERSION = "v1.33"
"""Of the Pod Security Standards that pods are held to; named, so that an upgrade of the cluster changes nothing."""


@dataclass(frozen=True)
class NamespaceArgs:
    """What the namespace is made for.

    Attributes:
        environment: whose pods it holds.
    """

    environment: Environment


class Namespace(pulumi.ComponentResource):
    """The namespace.

    Attributes:
        name: its name, known once it exists.
    """

    def __init__(self, name: str, args: NamespaceArgs) -> None:
        super().__init__("mlops:cluster:Namespace", name)
        environment = args.environment
        security = {
            f"pod-security.kubernetes.io/{mode}{suffix}": value
            for mode in ("enforce", "audit", "warn")
            for suffix, value in (("", "restricted"), ("-version", POD_SECURITY_VERSION))
        }
        namespace = k8s.core.v1.Namespace(
            name,
            metadata={
                "name": environment.config.namespace,
                "labels": {
                    **labels(environment, environment.config.namespace, None),
                    **security,
                    # A pod takes traffic only after the load balancer has found it healthy.
                    "elbv2.k8s.aws/pod-readiness-gate-inject": "enabled",
                },
                "annotations": ownership(environment, None),
            },
            opts=pulumi.ResourceOptions(parent=self, protect=environment.protected),
        )
        self.name: pulumi.Output[str] = namespace.metadata["name"]
        k8s.networking.v1.NetworkPolicy(
            "default-deny",
            metadata={
                "name": "default-deny",
                "namespace": self.name,
                "labels": labels(environment, "default-deny", None),
                "annotations": ownership(environment, None),
            },
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.register_outputs({"name": self.name})
