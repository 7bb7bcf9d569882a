"""Elastic Load Balancing's Describe operations, for the load balancers of the cluster.

The AWS Load Balancer Controller creates them on AWS. Here the cluster reports them, and only a realistic one has any.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from laptop.aws.access.principals import ACCOUNT

REPORT = "/laptop/load-balancers"
"""Path at the proxy of the cluster with its load balancers."""

_TAG = "ingress.k8s.aws/resource"

Balancers = list[dict[str, Any]]


def balancers_of_cluster(home: Path) -> Balancers:
    """Return the load balancers of the running cluster; [] if it has none or does not answer.

    Args:
        home: the laptop's home.
    """
    try:
        proxy = json.loads((home / "cluster" / "cluster.json").read_text(encoding="utf-8"))["proxy"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{proxy}{REPORT}", timeout=5) as answer:
            found: Balancers = json.load(answer)
            return found
    except (OSError, urllib.error.URLError, ValueError, KeyError):
        return []


def describe(operation: str, request: Callable[[str], Any], balancers: Balancers, region: str) -> dict[str, Any]:
    """Answer a Describe operation.

    Args:
        operation: `DescribeLoadBalancers`, …
        request: returns a parameter of the request, or None.
        balancers: load balancers of the cluster.
        region: region of the account.

    Returns:
        The result in the form that moto serializes: as the API's, with tags as a mapping.
    """
    named = {_arn("loadbalancer/app", one["dnsName"], region): one for one in balancers}
    groups = {_arn("targetgroup", group["resource"], region): group for one in balancers for group in one["groups"]}
    if operation == "DescribeLoadBalancers":
        return {"LoadBalancers": [_balancer(arn, one) for arn, one in named.items()]}
    if operation == "DescribeTags":
        return {
            "TagDescriptions": [
                {
                    "ResourceArn": arn,
                    "Tags": {_TAG: groups[arn]["resource"]} if arn in groups else {},
                }
                for arn in request("ResourceArns") or ()
            ]
        }
    if operation == "DescribeTargetHealth":
        group = groups.get(request("TargetGroupArn"), {"targets": []})
        return {"TargetHealthDescriptions": [_health(target) for target in group["targets"]]}
    if operation == "DescribeRules":
        return {"Rules": [rule for one in balancers for rule in _rules(one, request("ListenerArn"), region)]}
    one = named.get(request("LoadBalancerArn"), {"dnsName": "", "listeners": [], "groups": []})
    if operation == "DescribeListeners":
        return {"Listeners": _listeners(one, region)}
    return {"TargetGroups": [_group(group, region) for group in one["groups"]]}


OPERATIONS = {
    "DescribeLoadBalancers": "describe_load_balancers",
    "DescribeListeners": "describe_listeners",
    "DescribeRules": "describe_rules",
    "DescribeTags": "describe_tags",
    "DescribeTargetGroups": "describe_target_groups",
    "DescribeTargetHealth": "describe_target_health",
}
"""Operation → moto's method that answers it."""


def patch_elbv2(home: Path) -> None:
    """Make moto answer from the cluster.

    Args:
        home: the laptop's home.
    """
    from moto.core.responses import ActionResult
    from moto.elbv2.responses import ELBV2Response

    def answer(operation: str) -> Any:
        def method(self: Any) -> ActionResult:
            return ActionResult(describe(operation, self._get_param, balancers_of_cluster(home), self.region))

        return method

    for operation, method in OPERATIONS.items():
        setattr(ELBV2Response, method, answer(operation))


def _balancer(arn: str, one: dict[str, Any]) -> dict[str, Any]:
    return {
        "LoadBalancerArn": arn,
        "DNSName": one["dnsName"],
        "LoadBalancerName": arn.split("/")[-2],
        "Scheme": "internal",
        "State": {"Code": one["state"]},
        "Type": "application",
    }


def _listeners(one: dict[str, Any], region: str) -> list[dict[str, Any]]:
    return [
        {
            "ListenerArn": _arn("listener/app", f"{one['dnsName']}:{port}", region),
            "LoadBalancerArn": _arn("loadbalancer/app", one["dnsName"], region),
            "Port": port,
            "Protocol": protocol,
            "Certificates": [{"CertificateArn": one["certificate"]}] if protocol == "HTTPS" else [],
        }
        for protocol, port in one["listeners"]
    ]


def _rules(one: dict[str, Any], listener: str, region: str) -> list[dict[str, Any]]:
    if listener not in [each["ListenerArn"] for each in _listeners(one, region)]:
        return []
    if not one["groups"]:
        action: dict[str, Any] = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}}
    else:
        groups = [
            {"TargetGroupArn": _arn("targetgroup", group["resource"], region), "Weight": group["weight"]}
            for group in one["groups"]
        ]
        action = {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}
    return [{"RuleArn": f"{listener}/1", "Priority": "1", "Conditions": [], "Actions": [action], "IsDefault": False}]


def _group(group: dict[str, Any], region: str) -> dict[str, Any]:
    arn = _arn("targetgroup", group["resource"], region)
    return {"TargetGroupArn": arn, "TargetGroupName": arn.split("/")[-2], "TargetType": "ip", "Protocol": "HTTP"}


def _health(target: dict[str, Any]) -> dict[str, Any]:
    reason = {"Reason": target["reason"]} if "reason" in target else {}
    return {"Target": {"Id": target["address"]}, "TargetHealth": {"State": target["state"], **reason}}


def _arn(kind: str, name: str, region: str) -> str:
    digest = hashlib.sha256(name.encode()).hexdigest()
    short = "".join(letter for letter in name if letter.isalnum())[:24]
    return f"arn:aws:elasticloadbalancing:{region}:{ACCOUNT}:{kind}/{short}/{digest[:16]}"
