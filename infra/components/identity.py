"""Who a pod is: a role of its own, the service account that assumes it, and whom it may talk to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from infra.components.grants import Statements
from infra.components.labels import labels, ownership, selector
from infra.environment import Environment
from pipelines.declarations.model import Model

_POD_IDENTITY_AGENT = "169.254.170.23/32"
_LINK_LOCAL = "169.254.0.0/16"


@dataclass(frozen=True)
class WorkloadArgs:
    """What a workload may do.

    Attributes:
        environment: where it runs.
        namespace: the Kubernetes namespace.
        statements: of its role's policy.
        model: the model it works for; None where it works for all.
        ingress: rules of its network policy for who may reach it; none: nobody.
        egress: more rules for whom it may reach, besides names, AWS and its credentials.
    """

    environment: Environment
    namespace: pulumi.Input[str]
    statements: Statements
    model: Model | None = None
    ingress: Sequence[Mapping[str, Any]] = ()
    egress: Sequence[Mapping[str, Any]] = ()


class Workload(pulumi.ComponentResource):
    """The identity of the pods of one workload.

    Attributes:
        name: of the workload, its service account and its pods' label.
        role_arn: of its role.
    """

    def __init__(self, name: str, args: WorkloadArgs, *, parent: pulumi.Resource) -> None:
        super().__init__("mlops:identity:Workload", name, None, pulumi.ResourceOptions(parent=parent))
        environment = args.environment
        options = pulumi.ResourceOptions(parent=self)
        metadata = {
            "name": name,
            "namespace": args.namespace,
            "labels": labels(environment, name, args.model),
            "annotations": ownership(environment, args.model),
        }
        role = aws.iam.Role(
            name,
            name=environment.role_name(name),
            description=f"What the pods of {name} in {environment.prefix} may do",
            assume_role_policy=pulumi.Output.json_dumps(_trust(environment, name)),
            permissions_boundary=environment.permissions_boundary,
            tags=environment.tags(args.model),
            opts=options,
        )
        aws.iam.RolePolicy(
            name,
            name="workload",
            role=role.name,
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": args.statements}),
            opts=options,
        )
        account = k8s.core.v1.ServiceAccount(
            name, metadata=metadata, automount_service_account_token=False, opts=options
        )
        aws.eks.PodIdentityAssociation(
            name,
            cluster_name=environment.config.cluster,
            namespace=args.namespace,
            service_account=account.metadata["name"],
            role_arn=role.arn,
            tags=environment.tags(args.model),
            opts=options,
        )
        k8s.networking.v1.NetworkPolicy(
            name,
            metadata=metadata,
            spec={
                "podSelector": {"matchLabels": selector(name)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": list(args.ingress),
                "egress": [*_EGRESS, *args.egress],
            },
            opts=options,
        )
        self.name = name
        self.role_arn: pulumi.Output[str] = role.arn
        self.register_outputs({"role_arn": role.arn})


def _trust(environment: Environment, service_account: str) -> dict[str, Any]:
    """Only EKS Pod Identity, only for this service account of this cluster.

    Source: EKS user guide, "Create IAM role with trust policy required by EKS Pod Identity".
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "PodIdentity",
                "Effect": "Allow",
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {
                    "StringEquals": {
                        "aws:SourceAccount": environment.account,
                        "aws:RequestTag/eks-cluster-name": environment.config.cluster,
                        "aws:RequestTag/kubernetes-namespace": environment.config.namespace,
                        "aws:RequestTag/kubernetes-service-account": service_account,
                    }
                },
            }
        ],
    }


# The addresses of AWS's APIs are not known beforehand, so HTTPS goes anywhere but to the node's own services.
_EGRESS = [
    {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    },
    {
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [_LINK_LOCAL]}}],
        "ports": [{"protocol": "TCP", "port": 443}],
    },
    {"to": [{"ipBlock": {"cidr": _POD_IDENTITY_AGENT}}], "ports": [{"protocol": "TCP", "port": 80}]},
]
