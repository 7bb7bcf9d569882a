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

PodByUid = Callable[[str], Object | None]


@dataclass(frozen=True)
class NetworkCaller:
    """A client of the private network.

    Attributes:
        address: its IP address.
        groups: ids of its security groups, as far as they are known.
        pod: the pod that it is, or None.
    """

    address: str
    groups: frozenset[str] = frozenset()
    pod: Object | None = None

    def __str__(self) -> str:
        """Return what to call it in a message."""
        if self.pod is not None:
            return f"the pod {namespace_of(self.pod)}/{name_of(self.pod)}"
        groups = f" with {', '.join(sorted(self.groups))}" if self.groups else ""
        return f"the caller at {self.address}{groups}"


LOAD_BALANCER = NetworkCaller(LOAD_BALANCER_ADDRESS)


def proxy_for_pod(proxy: str, uid: str) -> str:
    """Return the address of the proxy by which a pod names itself."""
    return _with_user(proxy, f"{_POD}{uid}")


def proxy_for_groups(proxy: str, groups: Sequence[str]) -> str:
    """Return the address of the proxy by which a program names its security groups; the same address without any."""
    return _with_user(proxy, ".".join(groups)) if groups else proxy


def _with_user(proxy: str, user: str) -> str:
    # Some clients send no user without a password.
    return proxy.replace("http://", f"http://{user}:laptop@")


def caller_of(authorization: str, find: PodByUid) -> NetworkCaller:
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
        return NetworkCaller(str((pod.get("status") or {}).get("podIP") or INSTANCE_ADDRESS), pod=pod)
    groups = frozenset(user.split(".")) if user.startswith(_GROUPS) else frozenset()
    return NetworkCaller(INSTANCE_ADDRESS, groups)


def groups_of(ingress: Object) -> list[str]:
    """Return the ids of the security groups that an Ingress gives its load balancer; [] for those of the controller."""
    return _listed(ingress, "security-groups")


def balancer_refusal(
    ingress: Object, caller: NetworkCaller, port: int, groups: Sequence[Mapping[str, Any]]
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


def _permits(rule: Mapping[str, Any], caller: NetworkCaller, port: int) -> bool:
    if rule["IpProtocol"] not in ("tcp", "-1"):
        return False
    if rule["IpProtocol"] == "tcp" and not rule["FromPort"] <= port <= rule["ToPort"]:
        return False
    ranges = [str(each["CidrIp"]) for each in rule.get("IpRanges") or ()]
    pairs = {str(pair.get("GroupId")) for pair in rule.get("UserIdGroupPairs") or ()}
    return _is_in(caller.address, ranges) or bool(pairs & caller.groups)


def policy_refusal(
    policies: Sequence[Object], namespaces: Sequence[Object], target: Object, caller: NetworkCaller, port: int
) -> str | None:
    """Return why the NetworkPolicies of a pod drop a connection; None if they let it pass.

    Args:
        policies: all NetworkPolicies of the pod's namespace.
        namespaces: all namespaces.
        target: the pod.
        caller: who connects.
        port: the containerPort.
    """
    labels = target["metadata"].get("labels") or {}
    about = [
        policy
        for policy in policies
        if "Ingress" in (policy["spec"].get("policyTypes") or ("Ingress",))
        and matches(policy["spec"].get("podSelector") or {}, labels)
    ]
    home = {name_of(each): each["metadata"].get("labels") or {} for each in namespaces}
    rules = [rule for policy in about for rule in policy["spec"].get("ingress") or ()]
    if not about or any(_admits(rule, home, target, caller, port) for rule in rules):
        return None
    names = ", ".join(sorted(name_of(policy) for policy in about))
    return f"the NetworkPolicy {names} does not let {caller} connect to {namespace_of(target)}/{name_of(target)}"


def _admits(
    rule: Mapping[str, Any], home: Mapping[str, Mapping[str, str]], target: Object, caller: NetworkCaller, port: int
) -> bool:
    ports = rule.get("ports") or ()
    if ports and not any(_is_port(each, target, port) for each in ports):
        return False
    peers = rule.get("from") or ()
    return not peers or any(_is_peer(peer, home, namespace_of(target), caller) for peer in peers)


def _is_port(entry: Mapping[str, Any], target: Object, port: int) -> bool:
    if entry.get("protocol", "TCP") != "TCP":
        return False
    if entry.get("port") is None:
        return True
    first = container_port(target["spec"]["containers"][0], entry["port"])
    return first is not None and first <= port <= int(entry.get("endPort") or first)


def _is_peer(
    peer: Mapping[str, Any], home: Mapping[str, Mapping[str, str]], namespace: str, caller: NetworkCaller
) -> bool:
    if block := peer.get("ipBlock"):
        return _is_in(caller.address, [block["cidr"]]) and not _is_in(caller.address, block.get("except") or ())
    if caller.pod is None:
        return False
    where, selector = namespace_of(caller.pod), peer.get("namespaceSelector")
    if selector is None and where != namespace:
        return False
    if selector is not None and not matches(selector, {**home.get(where, {})}):
        return False
    return matches(peer.get("podSelector") or {}, caller.pod["metadata"].get("labels") or {})


def _is_in(address: str, ranges: Iterable[str]) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(each, strict=False) for each in ranges)


def _listed(ingress: Object, annotation: str) -> list[str]:
    text = annotations_of(ingress).get(f"{_PREFIX}{annotation}", "")
    return [item.strip() for item in text.split(",") if item.strip()]
