"""Rules for network access and for RBAC in the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.policies.pod_owners import pod_owners
from infra.policies.pods import NAMESPACE
from infra.policies.resource_graph import UNKNOWN, Graph, PlannedResource, at, elements
from infra.policies.rule import Finding, rule

_POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
_INGRESS = "kubernetes:networking.k8s.io/v1:Ingress"
_SERVICE = "kubernetes:core/v1:Service"
_RBAC = "kubernetes:rbac.authorization.k8s.io/v1:"
_ANY_ADDRESS = ("0.0.0.0/0", "::/0")
_READ = {"get", "list", "watch", "*"}
_MAKE_PODS = {"pods", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "cronjobs", "rollouts", "*"}


@rule("k8s-default-deny", "A namespace denies all traffic that no network policy allows", "CKV2_K8S_6")
def default_deny(graph: Graph) -> Iterator[Finding]:
    policies = graph.of_type(_POLICY)
    for namespace in graph.of_type(NAMESPACE):
        if not any(_denies_all(policy) and _inside(policy, namespace) for policy in policies):
            yield namespace, "has no policy that denies all traffic"
    for owner in pod_owners(graph):
        named = [policy for policy in policies if policy.at("spec", "podSelector", "matchLabels")]
        if not any(owner.selected_by(policy.at("spec", "podSelector")) for policy in named):
            yield owner.resource, "has no network policy"


def _inside(policy: PlannedResource, namespace: PlannedResource) -> bool:
    names = (policy.at("metadata", "namespace"), namespace.at("metadata", "name"))
    return UNKNOWN in names or names[0] == names[1]


def _denies_all(policy: PlannedResource) -> bool:
    spec = policy.at("spec")
    return spec is UNKNOWN or (
        not at(spec, "podSelector")
        and set(elements(at(spec, "policyTypes"))) == {"Ingress", "Egress"}
        and not at(spec, "ingress")
        and not at(spec, "egress")
    )


@rule("k8s-network-policy-named", "A network policy names peers and ports")
def network_policy_named(graph: Graph) -> Iterator[Finding]:
    for policy in graph.of_type(_POLICY):
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for opened in elements(policy.at("spec", direction)):
                if not at(opened, side):
                    yield policy, f"allows {direction} for all peers"
                if not at(opened, "ports"):
                    yield policy, f"allows {direction} on all ports"
                open_to_all = [p for p in elements(at(opened, side)) if at(p, "ipBlock", "cidr") in _ANY_ADDRESS]
                if direction == "ingress" and open_to_all:
                    yield policy, "allows ingress from all addresses"


@rule("k8s-internal-endpoint", "An endpoint is not reachable from the internet")
def internal_endpoint(graph: Graph) -> Iterator[Finding]:
    for ingress in graph.of_type(_INGRESS):
        annotations = ingress.at("metadata", "annotations")
        scheme = at(annotations, "alb.ingress.kubernetes.io/scheme")
        if scheme not in (UNKNOWN, "internal"):
            yield ingress, f"has the scheme {scheme}"
    for service in graph.of_type(_SERVICE):
        if service.at("spec", "type") in ("LoadBalancer", "NodePort"):
            yield service, f"is of type {service.at('spec', 'type')}"


@rule("k8s-rbac-named", "No RBAC role allows everything or reads all secrets", "CKV_K8S_49", "CKV2_K8S_5")
def rbac_named(graph: Graph) -> Iterator[Finding]:
    for role in graph.of_type(f"{_RBAC}Role", f"{_RBAC}ClusterRole"):
        for allowed in elements(role.at("rules")):
            verbs, resources = set(elements(at(allowed, "verbs"))), set(elements(at(allowed, "resources")))
            if "*" in verbs | resources | set(elements(at(allowed, "apiGroups"))):
                yield role, "allows everything"
            elif "secrets" in resources and verbs & _READ and not elements(at(allowed, "resourceNames")):
                yield role, "reads all secrets"
    for binding in graph.of_type(f"{_RBAC}RoleBinding", f"{_RBAC}ClusterRoleBinding"):
        if binding.at("roleRef", "name") == "cluster-admin":
            yield binding, "grants cluster-admin"


@rule(
    "k8s-pod-creator-apart",
    "Who may create pods does so in a namespace that holds no other component's service accounts",
)
def pod_creator_apart(graph: Graph) -> Iterator[Finding]:
    """Find roles by which a pod could run as the service account of any other workload, and use its IAM role."""
    accounts = graph.of_type("kubernetes:core/v1:ServiceAccount")
    for role in graph.of_type(f"{_RBAC}Role", f"{_RBAC}ClusterRole"):
        if not any(_creates_pods(allowed) for allowed in elements(role.at("rules"))):
            continue
        if role.type == f"{_RBAC}ClusterRole":
            yield role, "may create pods in every namespace"
            continue
        for account in accounts:
            places = (role.at("metadata", "namespace"), account.at("metadata", "namespace"))
            if (
                UNKNOWN not in places
                and places[0] == places[1]
                and graph.outermost(account) is not graph.outermost(role)
            ):
                yield role, f"may create pods that run as {account.name}, of another component"


def _creates_pods(allowed: Any) -> bool:
    return bool({"create", "*"} & set(elements(at(allowed, "verbs")))) and bool(
        _MAKE_PODS & set(elements(at(allowed, "resources")))
    )
