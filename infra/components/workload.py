"""The identity of a workload's pods: an IAM role, the service account that assumes it, and a network policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as k8s

from infra.components.grants import Statements
from infra.components.labels import metadata, selector
from infra.scopes import Environment
from pipelines.declarations.environment import PORT_OF_HTTP, PORT_OF_HTTPS, service_namespace
from pipelines.declarations.model import Model

_POD_IDENTITY_AGENTS = ("169.254.170.23/32", "fd00:ec2::23/128")
"""Addresses of the EKS Pod Identity agent (EKS user guide, "Set up the Amazon EKS Pod Identity Agent")."""

_NODE_SERVICES = (("0.0.0.0/0", ("169.254.0.0/16",)), ("::/0", ("fe80::/10", "fd00:ec2::/32")))
"""Range of all addresses → ranges of the node's own services, such as the instance metadata."""


@dataclass(frozen=True, kw_only=True)
class WorkloadArgs:
    """Arguments of `Workload`.

    Attributes:
        environment: the environment that the workload runs in.
        namespace: the Kubernetes namespace.
        statements: statements of the role's policy.
        model: the model that the workload belongs to; None if all models share it.
        ingress: ingress rules of the network policy; none to accept no connections.
        egress: egress rules to add to those for DNS, AWS and Pod Identity.
        namespace_name: name of the namespace; None for the environment's own.
        pod_labels: labels that select the pods; None for the name label.
    """

    environment: Environment
    namespace: pulumi.Input[str]
    statements: Statements
    model: Model | None = None
    ingress: Sequence[Mapping[str, Any]] = ()
    egress: Sequence[Mapping[str, Any]] = ()
    namespace_name: str | None = None
    pod_labels: Mapping[str, str] | None = None


class Workload(pulumi.ComponentResource):
    """The identity of a workload's pods.

    Attributes:
        name: name of the workload, of its service account, and value of its pods' name label.
        role_arn: ARN of the IAM role.
        association: gives pods of the service account this role.
    """

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:identity:Workload", name, None, opts)
        environment = args.environment
        child = pulumi.ResourceOptions(parent=self)
        object_metadata = {"name": name, "namespace": args.namespace, **metadata(environment, name, args.model)}
        role = aws.iam.Role(
            name,
            name=environment.role_name(name),
            description=f"Permissions of the pods of {name} in {environment.prefix}",
            assume_role_policy=pulumi.Output.json_dumps(_trust_policy(args, name)),
            permissions_boundary=environment.permissions_boundary,
            tags=environment.tags(args.model),
            opts=child,
        )
        aws.iam.RolePolicy(
            name,
            name="workload",
            role=role.name,
            policy=pulumi.Output.json_dumps({"Version": "2012-10-17", "Statement": args.statements}),
            opts=child,
        )
        account = k8s.core.v1.ServiceAccount(
            name, metadata=object_metadata, automount_service_account_token=False, opts=child
        )
        self.association = aws.eks.PodIdentityAssociation(
            name,
            cluster_name=environment.config.cluster,
            namespace=args.namespace,
            service_account=account.metadata["name"],
            role_arn=role.arn,
            tags=environment.tags(args.model),
            opts=child,
        )
        k8s.networking.v1.NetworkPolicy(
            name,
            metadata=object_metadata,
            spec={
                "podSelector": {"matchLabels": dict(args.pod_labels or selector(name))},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": list(args.ingress),
                "egress": [*_egress(environment.config.dns_cidrs), *args.egress],
            },
            opts=child,
        )
        self.name = name
        self.role_arn: pulumi.Output[str] = role.arn
        self.register_outputs({"role_arn": role.arn})


def _trust_policy(args: WorkloadArgs, service_account: str) -> dict[str, Any]:
    """Trust EKS Pod Identity, and only for one service account of the environment's cluster.

    Source: EKS user guide, "Create IAM role with trust policy required by EKS Pod Identity".
    """
    environment = args.environment
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
                        "aws:RequestTag/kubernetes-namespace": args.namespace_name or environment.config.namespace,
                        "aws:RequestTag/kubernetes-service-account": service_account,
                    }
                },
            }
        ],
    }


def egress_anywhere(port: int) -> dict[str, Any]:
    """Return an egress rule to a port of every address but the node's own services."""
    peers = [{"ipBlock": {"cidr": every, "except": list(node)}} for every, node in _NODE_SERVICES]
    return {"to": peers, "ports": [{"protocol": "TCP", "port": port}]}


def egress_to(url: str, pod_port: int | None = None) -> list[dict[str, Any]]:
    """Return the egress rules of a workload that connects to a server. HTTPS may go anywhere already.

    Args:
        url: URL of the server. A name that ends in `.svc` is a Service of the cluster.
        pod_port: port of its pods, if it is a Service of the cluster; None for the port of the URL.
    """
    target = urlsplit(url)
    port = target.port or (PORT_OF_HTTPS if target.scheme == "https" else PORT_OF_HTTP)
    namespace = service_namespace(url)
    if namespace is not None:
        # The policy sees the pod behind the Service.
        return [{"to": [all_pods_of(namespace)], "ports": [{"protocol": "TCP", "port": pod_port or port}]}]
    return [] if port == PORT_OF_HTTPS else [egress_anywhere(port)]


def all_pods_of(namespace: str) -> dict[str, Any]:
    """Return the peer of all pods in a namespace."""
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}


def _egress(dns_cidrs: Sequence[str]) -> list[dict[str, Any]]:
    """Return the peers that every workload may reach: DNS, AWS and the Pod Identity agent, by IPv4 and IPv6.

    Args:
        dns_cidrs: ranges of DNS servers that are not pods of the cluster.
    """
    dns = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
    in_cluster = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return [
        {"to": [in_cluster, *({"ipBlock": {"cidr": cidr}} for cidr in dns_cidrs)], "ports": dns},
        # The addresses of AWS APIs are not known in advance, so HTTPS may go anywhere except to the node's services.
        egress_anywhere(PORT_OF_HTTPS),
        {
            "to": [{"ipBlock": {"cidr": agent}} for agent in _POD_IDENTITY_AGENTS],
            "ports": [{"protocol": "TCP", "port": 80}],
        },
    ]
