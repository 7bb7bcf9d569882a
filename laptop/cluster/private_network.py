"""Who may connect to whom in the private network of a realistic cluster: callers, security groups, NetworkPolicies.

The proxy of the cluster stands in for the network, and clients name themselves to it: a pod by the proxy's address that
it gets, a program outside of pods by the security groups that its shell asked for. Pure functions over objects.
"""

from __future__ import annotations

import binascii
import ipaddress
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.cluster.objects import Object, annotations_of, name_of, namespace_of
from laptop.cluster.ports import container_port
from laptop.cluster.selectors import matches

INSTANCE_ADDRESS = "10.0.255.10"
"""Address of programs that are inside of the network, but in no pod."""

LOAD_BALANCER_ADDRESS = "10.0.240.10"
"""Address from which load balancers connect to pods."""

_POD, _GROUPS = "pod.", "sg-"
_PREFIX = "alb.ingress.kubernetes.io/"
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"  # Kubernetes gives it to every namespace

PodByUid = Callable[[str], Object | None]


@dataclass(frozen=True)
class NetworkPeer:
    """A client or a server of the private network.

    Attributes:
        address: its IP address.
        groups: ids of its security groups, as far as they are known.
        pod: the pod that it is, or None.
    """

    address: str
    groups: frozenset[str] = frozenset()
    pod: Object | None = None

    def __str__(self) -> str:
        """Return its name in messages about what it connects to."""
        if self.pod is not None:
            return f"the pod {namespace_of(self.pod)}/{name_of(self.pod)}"
        groups = f" with {', '.join(sorted(self.groups))}" if self.groups else ""
        return f"the caller at {self.address}{groups}"

    @property
    def place(self) -> str:
        """Its name in messages about who connects to it."""
        return self.address if self.pod is None else f"{namespace_of(self.pod)}/{name_of(self.pod)}"


LOAD_BALANCER = NetworkPeer(LOAD_BALANCER_ADDRESS)

DNS = NetworkPeer(
    "10.0.241.10",
    pod={
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"containers": [{"ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
    },
)
"""Pod that answers look-ups of names on AWS; the laptop runs none."""

DNS_PORT = 53


def proxy_for_pod(proxy: str, uid: str) -> str:
    """Return the address of the proxy by which a pod names itself."""
    return _with_user(proxy, f"{_POD}{uid}")


def proxy_for_groups(proxy: str, groups: Sequence[str]) -> str:
    """Return the address of the proxy by which a program names its security groups; the same address without any."""
    return _with_user(proxy, ".".join(groups)) if groups else proxy


def _with_user(proxy: str, user: str) -> str:
    # Some clients send no user without a password.
    return proxy.replace("http://", f"http://{user}:laptop@")


def caller_of(authorization: str, find: PodByUid) -> NetworkPeer:
    """Return the client that sent a request to the proxy.

    Args:
        authorization: the header `Proxy-Authorization`, or "".
        find: returns the pod with a uid, or None.
    """
    try:
        scheme, _, encoded = authorization.partition(" ")
        user = b64decode(encoded, validate=True).decode().partition(":")[0] if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        user = ""
    if user.startswith(_POD) and (pod := find(user.removeprefix(_POD))) is not None:
        return peer_of(pod)
    groups = frozenset(user.split(".")) if user.startswith(_GROUPS) else frozenset()
    return NetworkPeer(INSTANCE_ADDRESS, groups)


def peer_of(pod: Object) -> NetworkPeer:
    """Return a pod as a client or a server."""
    return NetworkPeer(str((pod.get("status") or {}).get("podIP") or INSTANCE_ADDRESS), pod=pod)


def groups_of(ingress: Object) -> list[str]:
    """Return the ids of the security groups that an Ingress gives its load balancer; [] for those of the controller."""
    return _listed(ingress, "security-groups")


def balancer_refusal(
    ingress: Object, caller: NetworkPeer, port: int, groups: Sequence[Mapping[str, Any]]
) -> str | None:
    """Return why the security groups of a load balancer drop a connection; None if they let it pass.

    Args:
        ingress: the Ingress.
        caller: who connects.
        port: port of the listener.
        groups: the security groups that the Ingress names, as `ec2:DescribeSecurityGroups` returns them.
    """
    named = groups_of(ingress)
    if named:
        if any(_permits(rule, caller, port) for group in groups for rule in group["IpPermissions"]):
            return None
        return f"no inbound rule of {', '.join(named)} lets {caller} connect to port {port}"
    ranges = _listed(ingress, "inbound-cidrs")
    if not ranges or _is_in(caller.address, ranges):
        return None
    return f"{', '.join(ranges)} does not contain {caller}, at {caller.address}"


def _permits(rule: Mapping[str, Any], caller: NetworkPeer, port: int) -> bool:
    if rule["IpProtocol"] not in ("tcp", "-1"):
        return False
    if rule["IpProtocol"] == "tcp" and not rule["FromPort"] <= port <= rule["ToPort"]:
        return False
    ranges = [str(each["CidrIp"]) for each in rule.get("IpRanges") or ()]
    pairs = {str(pair.get("GroupId")) for pair in rule.get("UserIdGroupPairs") or ()}
    return _is_in(caller.address, ranges) or bool(pairs & caller.groups)


def ingress_refusal(
    policies: Sequence[Object], namespaces: Sequence[Object], target: Object, caller: NetworkPeer, port: int
) -> str | None:
    """Return why the NetworkPolicies of a pod drop a connection to it; None if they let it pass.

    Args:
        policies: all NetworkPolicies of the pod's namespace.
        namespaces: all namespaces.
        target: the pod.
        caller: who connects.
        port: the containerPort.
    """
    about = _about(policies, target, "Ingress")
    rules = [rule for policy in about for rule in policy["spec"].get("ingress") or ()]
    home = _labels_of(namespaces)
    if not about or any(
        _is_any_port(rule, target, port) and _is_any_peer(rule.get("from"), home, namespace_of(target), caller)
        for rule in rules
    ):
        return None
    return f"{_named(about)} does not let {caller} connect to {namespace_of(target)}/{name_of(target)}"


def egress_refusal(
    policies: Sequence[Object],
    namespaces: Sequence[Object],
    caller: Object,
    target: NetworkPeer,
    port: int,
    *,
    protocol: str = "TCP",
) -> str | None:
    """Return why the NetworkPolicies of a pod drop a connection from it; None if they let it pass.

    Args:
        policies: all NetworkPolicies of the pod's namespace.
        namespaces: all namespaces.
        caller: the pod.
        target: whom it connects to: a pod, or an address.
        port: the containerPort of a pod, or the port of the address.
        protocol: TCP or UDP.
    """
    about = _about(policies, caller, "Egress")
    rules = [rule for policy in about for rule in policy["spec"].get("egress") or ()]
    home = _labels_of(namespaces)
    if not about or any(
        _is_any_port(rule, target.pod, port, protocol)
        and _is_any_peer(rule.get("to"), home, namespace_of(caller), target)
        for rule in rules
    ):
        return None
    where = f"the pod {namespace_of(caller)}/{name_of(caller)}"
    return f"{_named(about)} does not let {where} connect to {target.place}, port {port}"


def _about(policies: Sequence[Object], pod: Object, direction: str) -> list[Object]:
    """Return the policies that select a pod and are about a direction."""
    labels = pod["metadata"].get("labels") or {}
    return [
        policy
        for policy in policies
        if direction in _directions(policy["spec"]) and matches(policy["spec"].get("podSelector") or {}, labels)
    ]


def _directions(spec: Mapping[str, Any]) -> Sequence[str]:
    return spec.get("policyTypes") or (("Ingress", "Egress") if spec.get("egress") else ("Ingress",))


def _named(policies: Sequence[Object]) -> str:
    return f"the NetworkPolicy {', '.join(sorted(name_of(policy) for policy in policies))}"


def _labels_of(namespaces: Sequence[Object]) -> dict[str, Mapping[str, str]]:
    return {
        name_of(each): {**(each["metadata"].get("labels") or {}), _NAMESPACE_LABEL: name_of(each)}
        for each in namespaces
    }


def _is_any_port(rule: Mapping[str, Any], target: Object | None, port: int, protocol: str = "TCP") -> bool:
    ports = rule.get("ports") or ()
    return not ports or any(_is_port(each, target, port, protocol) for each in ports)


def _is_port(entry: Mapping[str, Any], target: Object | None, port: int, protocol: str) -> bool:
    if entry.get("protocol", "TCP") != protocol:
        return False
    named = entry.get("port")
    if named is None:
        return True
    if isinstance(named, str):  # a port of the target
        containers = target["spec"]["containers"] if target is not None else ()
        return any(container_port(each, named) == port for each in containers)
    return int(named) <= port <= int(entry.get("endPort") or named)


def _is_any_peer(
    peers: Sequence[Mapping[str, Any]] | None,
    home: Mapping[str, Mapping[str, str]],
    namespace: str,
    other: NetworkPeer,
) -> bool:
    return not peers or any(_is_peer(peer, home, namespace, other) for peer in peers)


def _is_peer(
    peer: Mapping[str, Any], home: Mapping[str, Mapping[str, str]], namespace: str, other: NetworkPeer
) -> bool:
    if block := peer.get("ipBlock"):
        return _is_in(other.address, [block["cidr"]]) and not _is_in(other.address, block.get("except") or ())
    if other.pod is None:
        return False
    where, selector = namespace_of(other.pod), peer.get("namespaceSelector")
    if selector is None and where != namespace:
        return False
    if selector is not None and not matches(selector, {**home.get(where, {})}):
        return False
    return matches(peer.get("podSelector") or {}, other.pod["metadata"].get("labels") or {})


def _is_in(address: str, ranges: Iterable[str]) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(each, strict=False) for each in ranges)


def _listed(ingress: Object, annotation: str) -> list[str]:
    text = annotations_of(ingress).get(f"{_PREFIX}{annotation}", "")
    return [item.strip() for item in text.split(",") if item.strip()]
