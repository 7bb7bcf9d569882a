"""Who may connect to whom in the private network of a realistic cluster."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import urlsplit

import pytest

from laptop.cluster.private_network import (
    DNS,
    DNS_PORT,
    INSTANCE_ADDRESS,
    LOAD_BALANCER,
    NetworkPeer,
    balancer_refusal,
    caller_of,
    egress_refusal,
    ingress_refusal,
    proxy_for_groups,
    proxy_for_pod,
)

OPEN, OTHER = "sg-0aaaaaaaaaaaaaaa1", "sg-0bbbbbbbbbbbbbbb2"
PROXY = "http://127.0.0.1:3128"
NAMESPACES = [
    {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": name[0]}}}
    for name in ("models", "shop", "prometheus")
]


def pod(namespace: str = "models", address: str = "10.0.0.9", **labels: str) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": 8080}]
    return {
        "metadata": {"name": "p", "namespace": namespace, "uid": f"u-{namespace}", "labels": labels},
        "spec": {"containers": [{"name": "serve", "ports": ports}]},
        "status": {"podIP": address},
    }


def caller(namespace: str = "models", address: str = "10.0.0.9", **labels: str) -> NetworkPeer:
    return NetworkPeer(address, pod=pod(namespace, address, **labels))


def ingress(**annotations: str) -> dict[str, Any]:
    named = {f"alb.ingress.kubernetes.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"metadata": {"name": "m", "namespace": "models", "uid": "i", "annotations": named}, "spec": {}}


def policy(*rules: dict[str, Any], types: tuple[str, ...] = ("Ingress", "Egress")) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": {"app": "m"}}, "policyTypes": [*types], "ingress": [*rules]}
    return {"metadata": {"name": "serve-m", "namespace": "models"}, "spec": spec}


def basic(user: str) -> str:
    return f"Basic {b64encode(f'{user}:x'.encode()).decode()}"


def header(proxy: str) -> str:
    """Return the header that a client sends to a proxy."""
    return basic(urlsplit(proxy).username or "")


class TestCallers:
    def find(self, uid: str) -> dict[str, Any] | None:
        return pod("shop") if uid == "u-shop" else None

    def test_a_pod_names_itself(self) -> None:
        found = caller_of(header(proxy_for_pod(PROXY, "u-shop")), self.find)
        assert (found.address, str(found)) == ("10.0.0.9", "the pod shop/p")

    def test_a_shell_names_its_security_groups(self) -> None:
        assert caller_of(header(proxy_for_groups(PROXY, [OPEN, OTHER])), self.find).groups == {OPEN, OTHER}
        assert proxy_for_groups(PROXY, []) == PROXY

    @pytest.mark.parametrize("sent", ["", "Basic", "Basic !", "Bearer x", basic("pod.gone"), basic("me")])
    def test_everything_else_is_an_instance(self, sent: str) -> None:
        assert caller_of(sent, self.find) == NetworkPeer(INSTANCE_ADDRESS)


class TestSecurityGroups:
    def group(self, **rule: Any) -> list[dict[str, Any]]:
        return [{"IpPermissions": [{"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, **rule}]}]

    def test_without_groups_and_ranges_everybody_may_connect(self) -> None:
        assert balancer_refusal(ingress(), caller(), 443, []) is None

    @pytest.mark.parametrize(("ranges", "may"), [("10.1.0.0/16", False), ("10.1.0.0/16, 10.0.0.0/24", True)])
    def test_ranges_name_who_may(self, ranges: str, may: bool) -> None:
        assert (balancer_refusal(ingress(inbound_cidrs=ranges), caller(), 443, []) is None) == may

    def test_a_rule_names_the_group_of_the_caller(self) -> None:
        groups = self.group(UserIdGroupPairs=[{"GroupId": OTHER}])
        named = ingress(security_groups=OPEN)
        assert balancer_refusal(named, NetworkPeer("10.0.0.1", frozenset({OTHER})), 443, groups) is None
        assert balancer_refusal(named, NetworkPeer("10.0.0.1", frozenset({OPEN})), 443, groups) == (
            f"no inbound rule of {OPEN} lets the caller at 10.0.0.1 with {OPEN} connect to port 443"
        )

    def test_a_rule_is_about_ports_ranges_and_tcp(self) -> None:
        named, ranges = ingress(security_groups=OPEN), [{"CidrIp": "10.0.0.0/24"}]
        assert balancer_refusal(named, caller(), 443, self.group(IpRanges=ranges)) is None
        assert balancer_refusal(named, caller(address="10.0.1.1"), 443, self.group(IpRanges=ranges))
        assert balancer_refusal(named, caller(), 80, self.group(IpRanges=ranges))
        assert balancer_refusal(named, caller(), 443, self.group(IpRanges=ranges, IpProtocol="udp"))
        assert balancer_refusal(named, caller(), 80, self.group(IpRanges=ranges, IpProtocol="-1")) is None

    def test_groups_win_over_ranges(self) -> None:
        assert balancer_refusal(ingress(security_groups=OPEN, inbound_cidrs="10.0.0.0/8"), caller(), 443, [])


class TestNetworkPolicies:
    def refused(self, by: NetworkPeer, *policies: dict[str, Any], port: int = 8080) -> bool:
        return ingress_refusal(policies, NAMESPACES, pod(app="m"), by, port) is not None

    def test_a_pod_without_policies_takes_every_connection(self) -> None:
        assert not self.refused(caller("shop"))
        assert not self.refused(caller("shop"), policy(types=("Egress",)))

    def test_a_policy_without_rules_takes_none(self) -> None:
        assert ingress_refusal([policy()], NAMESPACES, pod(app="m"), caller("shop"), 8080) == (
            "the NetworkPolicy serve-m does not let the pod shop/p connect to models/p"
        )

    def test_pods_of_the_same_namespace_are_chosen_by_labels(self) -> None:
        rule = {"from": [{"podSelector": {"matchLabels": {"app": "check"}}}]}
        assert not self.refused(caller(app="check"), policy(rule))
        assert self.refused(caller(app="other"), policy(rule))
        assert self.refused(caller("shop", app="check"), policy(rule))

    def test_namespaces_are_chosen_by_labels(self) -> None:
        peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prometheus"}}}
        assert not self.refused(caller("prometheus"), policy({"from": [peer]}))
        assert self.refused(caller("shop"), policy({"from": [peer]}))
        both = {**peer, "podSelector": {"matchLabels": {"app": "scraper"}}}
        assert self.refused(caller("prometheus"), policy({"from": [both]}))

    def test_ranges_have_exceptions(self) -> None:
        block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/24"]}}
        assert not self.refused(LOAD_BALANCER, policy({"from": [block]}))
        assert self.refused(caller("shop"), policy({"from": [block]}))

    def test_ports_are_numbers_or_names(self) -> None:
        rules = [{"ports": [{"protocol": "TCP", "port": port}]} for port in (8080, "http")]
        assert not any(self.refused(caller("shop"), policy(rule)) for rule in rules)
        assert all(self.refused(caller("shop"), policy(rule), port=9090) for rule in rules)
        assert self.refused(caller("shop"), policy({"ports": [{"protocol": "UDP", "port": 8080}]}))


def leaving(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a policy about the connections of the pods `app: m`."""
    made = {"podSelector": {"matchLabels": {"app": "m"}}, "policyTypes": ["Egress"], "egress": [*rules], **spec}
    return {"metadata": {"name": "serve-m", "namespace": "models"}, "spec": made}


class TestEgress:
    def refused(
        self, to: NetworkPeer, *policies: dict[str, Any], port: int = 8080, protocol: str = "TCP", app: str = "m"
    ) -> bool:
        found = egress_refusal(policies, NAMESPACES, pod(app=app), to, port, protocol=protocol)
        return found is not None

    def test_a_pod_that_no_policy_selects_connects_to_everybody(self) -> None:
        assert not self.refused(LOAD_BALANCER)
        assert not self.refused(LOAD_BALANCER, policy(types=("Ingress",)))
        assert not self.refused(LOAD_BALANCER, leaving(), app="other")

    def test_a_policy_without_rules_lets_it_connect_to_nobody(self) -> None:
        assert egress_refusal([leaving()], NAMESPACES, pod(app="m"), LOAD_BALANCER, 443) == (
            "the NetworkPolicy serve-m does not let the pod models/p connect to 10.0.240.10, port 443"
        )
        assert egress_refusal([leaving()], NAMESPACES, pod(app="m"), caller("shop"), 8080) == (
            "the NetworkPolicy serve-m does not let the pod models/p connect to shop/p, port 8080"
        )

    def test_rules_of_a_policy_without_types_count(self) -> None:
        elsewhere = leaving({"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}, policyTypes=[])
        assert self.refused(LOAD_BALANCER, elsewhere)
        assert not self.refused(LOAD_BALANCER, leaving(policyTypes=[]))

    def test_pods_are_chosen_by_labels_and_namespace(self) -> None:
        here = leaving({"to": [{"podSelector": {"matchLabels": {"app": "serve"}}}]})
        assert not self.refused(caller(app="serve"), here)
        assert self.refused(caller(app="other"), here)
        assert self.refused(caller("shop", app="serve"), here)
        there = leaving({"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}]})
        assert not self.refused(caller("shop"), there)
        assert self.refused(caller(), there)
        assert self.refused(LOAD_BALANCER, there)

    def test_the_port_is_that_of_the_pod_behind_a_service(self) -> None:
        for port, to_8080, to_9090 in ((8080, False, True), ("http", False, True), (80, True, True)):
            rule = leaving({"ports": [{"protocol": "TCP", "port": port}]})
            assert self.refused(caller("shop"), rule) == to_8080
            assert self.refused(caller("shop"), rule, port=9090) == to_9090
        several = leaving({"ports": [{"port": 8000, "endPort": 8080}]})
        assert not self.refused(caller("shop"), several)
        assert self.refused(caller("shop"), several, port=8081)

    def test_a_look_up_of_a_name_needs_dns(self) -> None:
        servers = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        }
        both = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        namespaces: list[dict[str, Any]] = [*NAMESPACES, {"metadata": {"name": "kube-system"}}]
        for ports, refused in ((both, False), (both[1:], True)):
            policies = [leaving({"to": [servers], "ports": ports})]
            found = egress_refusal(policies, namespaces, pod(app="m"), DNS, DNS_PORT, protocol="UDP")
            assert (found is not None) == refused
