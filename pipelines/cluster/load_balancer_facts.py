"""Facts about the load balancer of an endpoint: what the Ingress asks for, and what AWS has made of it so far.

The AWS API answers from anywhere. The load balancer itself is private, so a runner outside of the VPC cannot ask it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.resources.networking_v1 import Ingress

from pipelines.cluster.connection import read_with_retry
from pipelines.declarations.errors import MlopsError

PREFIX = "alb.ingress.kubernetes.io/"
"""Prefix of the annotations that the AWS Load Balancer Controller reads."""

RESOURCE_TAG = "ingress.k8s.aws/resource"
"""Tag with which the AWS Load Balancer Controller marks a target group: `<namespace>/<ingress>-<service>:<port>`."""

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_TAGS_AT_ONCE = 20  # most resources that elasticloadbalancing:DescribeTags takes


@dataclass(frozen=True)
class WantedLoadBalancer:
    """What an Ingress asks for.

    Attributes:
        address: DNS name or IP address of the load balancer; "" before there is one.
        ports: ports of its listeners.
        weights: tag of a target group → its share of the traffic in percent; empty before Argo Rollouts sets it.
    """

    address: str
    ports: tuple[int, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_elastic(self) -> bool:
        """True if Elastic Load Balancing made it."""
        return ".elb." in self.address and self.address.endswith((".amazonaws.com", ".amazonaws.com.cn"))


@dataclass(frozen=True)
class TargetHealth:
    """Health of a target as the load balancer sees it.

    Attributes:
        state: `initial`, `healthy`, `unhealthy`, `unused`, `draining`, …
        reason: code such as `Target.Timeout`, or "".
    """

    state: str
    reason: str = ""


@dataclass(frozen=True)
class FoundLoadBalancer:
    """What AWS has made of an Ingress so far.

    Attributes:
        state: state of the load balancer, `provisioning`, `active`, `active_impaired` or `failed`; "" if AWS has none
            with that name.
        ports: ports of its listeners.
        weights: tag of a target group → its weight in the rules of the listeners.
        targets: tag of a target group → address of a target → its health.
    """

    state: str = ""
    ports: tuple[int, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, TargetHealth]] = field(default_factory=dict)


def wanted_load_balancer(client: Client, ingress: str) -> WantedLoadBalancer:
    """Read what an Ingress asks for.

    Args:
        client: client of the Ingress's namespace.
        ingress: name of the Ingress.

    Raises:
        MlopsError: the Ingress does not exist, or its annotations are not valid.
    """
    try:
        found = read_with_retry(lambda: client.get(Ingress, ingress))
    except ApiError as error:
        if error.status.code != 404:
            raise
        raise MlopsError(f"no Ingress {ingress!r} in namespace {client.namespace!r}") from None
    annotations = (found.metadata.annotations if found.metadata else None) or {}
    balancer = found.status.loadBalancer if found.status else None
    addresses = (balancer.ingress if balancer else None) or []
    address = (addresses[0].hostname or addresses[0].ip or "") if addresses else ""
    try:
        listeners = json.loads(annotations.get(f"{PREFIX}listen-ports", "[]"))
        named = [f"{PREFIX}actions.{name}" for name in _actions_of(found)]
        actions = [json.loads(annotations[key]) for key in named if key in annotations]
        ports = tuple(int(port) for listener in listeners for port in listener.values())
        weights = {
            f"{client.namespace}/{ingress}-{group['ServiceName']}:{group['ServicePort']}": int(group["Weight"])
            for action in actions
            for group in action["ForwardConfig"]["TargetGroups"]
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MlopsError(
            f"annotations of the Ingress {ingress!r} in {client.namespace!r} are not valid: {error}"
        ) from None
    return WantedLoadBalancer(address, ports, weights)


def _actions_of(ingress: Ingress) -> list[str]:
    """Return the names of the actions that the rules of an Ingress lead to. An earlier version may have left others."""
    found = []
    for rule in (ingress.spec.rules if ingress.spec else None) or []:
        for path in (rule.http.paths if rule.http else None) or []:
            service = path.backend.service
            if service and service.name and service.port and service.port.name == "use-annotation":
                found.append(service.name)
    return found


def found_load_balancer(address: str, region: str) -> FoundLoadBalancer | None:
    """Read what AWS has made of an Ingress; None if the caller may not see it.

    Args:
        address: DNS name of the load balancer.
        region: its AWS region.

    Raises:
        MlopsError: AWS does not answer.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    api = boto3.client("elbv2", region_name=region, config=Config(retries={"mode": "standard", "max_attempts": 8}))
    try:
        pages = api.get_paginator("describe_load_balancers").paginate()
        listed = (one for page in pages for one in page["LoadBalancers"])
        # DNS names ignore case, and Kubernetes writes them in lower case.
        found = next((one for one in listed if str(one["DNSName"]).lower() == address.lower()), None)
        return _describe(api, found) if found is not None else FoundLoadBalancer()
    except ClientError as error:
        if _code_of(error) in _DENIED:
            return None
        raise MlopsError(f"AWS does not say how the load balancer {address} is: {error}") from None
    except BotoCoreError as error:
        raise MlopsError(f"AWS does not say how the load balancer {address} is: {error}") from None


def _describe(api: Any, balancer: dict[str, Any]) -> FoundLoadBalancer:
    arn = balancer["LoadBalancerArn"]
    listeners = _all(api, "describe_listeners", "Listeners", LoadBalancerArn=arn)
    groups = [one["TargetGroupArn"] for one in _all(api, "describe_target_groups", "TargetGroups", LoadBalancerArn=arn)]
    names: dict[str, str] = {}
    for start in range(0, len(groups), _TAGS_AT_ONCE):
        for described in api.describe_tags(ResourceArns=groups[start : start + _TAGS_AT_ONCE])["TagDescriptions"]:
            tags = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
            if RESOURCE_TAG in tags:
                names[described["ResourceArn"]] = tags[RESOURCE_TAG]
    weights: dict[str, int] = {}
    for listener in listeners:
        for rule in _all(api, "describe_rules", "Rules", ListenerArn=listener["ListenerArn"]):
            for action in rule["Actions"]:
                for group in (action.get("ForwardConfig") or {}).get("TargetGroups") or ():
                    if (name := names.get(group["TargetGroupArn"])) is not None:
                        weights[name] = int(group.get("Weight", 1))
    targets = {
        name: {
            one["Target"]["Id"]: TargetHealth(one["TargetHealth"]["State"], one["TargetHealth"].get("Reason", ""))
            for one in api.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        }
        for group, name in names.items()
        if weights.get(name)
    }
    return FoundLoadBalancer(balancer["State"]["Code"], tuple(one["Port"] for one in listeners), weights, targets)


def _all(api: Any, operation: str, key: str, **request: str) -> list[dict[str, Any]]:
    """Return all results of an operation; [] if what it is about does not exist yet, or no more."""
    from botocore.exceptions import ClientError

    try:
        return [one for page in api.get_paginator(operation).paginate(**request) for one in page[key]]
    except ClientError as error:
        if _code_of(error).endswith("NotFound"):
            return []
        raise


def _code_of(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def resolves(name: str) -> bool:
    """Return whether this machine can look a DNS name up."""
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False
