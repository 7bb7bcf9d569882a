"""Check the network of an environment's EKS cluster: its API endpoint, subnets, and the route to AWS; read-only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.targets.checking import check
from pipelines.targets.target import Finding

if TYPE_CHECKING:
    import boto3

INTERNAL_TAG = "kubernetes.io/role/internal-elb"
"""Tag of the subnets that get internal load balancers (AWS Load Balancer Controller, "Subnet auto-discovery")."""

FEWEST_ZONES = 2
"""Availability zones that an Application Load Balancer needs."""

SERVICES = ("s3", "kms", "glue", "sts", "ecr.api", "ecr.dkr", "eks-auth")
"""AWS APIs that pods and nodes use, by the last part of a VPC endpoint's name."""


def check_network(
    session: boto3.Session, config: Any, environment: str, region: str, cluster: str
) -> Iterator[Finding]:
    """Check the network of a cluster.

    Args:
        session: AWS session.
        config: configuration of clients.
        environment: name of the environment, for the findings.
        region, cluster: its EKS cluster.
    """
    described: dict[str, Any] = {}

    def vpc() -> dict[str, Any]:
        if not described:
            client = session.client("eks", region_name=region, config=config)
            described.update(client.describe_cluster(name=cluster)["cluster"]["resourcesVpcConfig"])
        return described

    def subnets() -> tuple[bool, str]:
        ec2 = session.client("ec2", region_name=region, config=config)
        found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc()["vpcId"]]}])["Subnets"]
        return judge_subnets(found)

    def route_to_aws() -> tuple[bool, str]:
        ec2 = session.client("ec2", region_name=region, config=config)
        own = [{"Name": "vpc-id", "Values": [vpc()["vpcId"]]}]
        gateways = ec2.describe_nat_gateways(Filters=own)["NatGateways"]
        endpoints = ec2.describe_vpc_endpoints(Filters=own)["VpcEndpoints"]
        return judge_route_to_aws(gateways, endpoints)

    yield check(
        f"API endpoint of {environment}",
        "make the endpoint public, or run the jobs on runners inside the VPC",
        lambda: judge_endpoint(vpc()),
    )
    yield check(
        f"subnets of {environment}",
        f"tag private subnets in {FEWEST_ZONES} zones with {INTERNAL_TAG} = 1",
        subnets,
    )
    yield check(
        f"route to AWS of {environment}",
        f"create a NAT gateway, or VPC endpoints for {', '.join(SERVICES)}",
        route_to_aws,
    )


def judge_endpoint(vpc: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether runners outside the VPC reach the API, and what was found.

    Args:
        vpc: `resourcesVpcConfig` of a cluster.
    """
    if not vpc.get("endpointPublicAccess", True):
        return False, "private: only runners inside the VPC reach it"
    ranges = vpc.get("publicAccessCidrs") or ["0.0.0.0/0"]
    return True, "public" if "0.0.0.0/0" in ranges else f"public for {', '.join(ranges)}: runners must be in there"


def judge_subnets(subnets: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    """Return whether an internal load balancer can be made, and what was found.

    Args:
        subnets: the subnets of the VPC, as EC2 describes them.
    """
    tagged = [one for one in subnets if any(_is_internal(tag) for tag in one.get("Tags", ()))]
    zones = sorted({str(one["AvailabilityZone"]) for one in tagged})
    found = f"{len(tagged)} of {len(subnets)} are tagged {INTERNAL_TAG}, in {len(zones)} zones"
    return len(zones) >= FEWEST_ZONES, found


def _is_internal(tag: Mapping[str, Any]) -> bool:
    return tag.get("Key") == INTERNAL_TAG and tag.get("Value") in ("1", "")


def judge_route_to_aws(
    gateways: Sequence[Mapping[str, Any]], endpoints: Sequence[Mapping[str, Any]]
) -> tuple[bool, str]:
    """Return whether pods in private subnets reach the APIs of AWS, and what was found.

    Args:
        gateways: NAT gateways of the VPC.
        endpoints: endpoints of the VPC.
    """
    if any(one.get("State") == "available" for one in gateways):
        return True, "a NAT gateway"
    names = [str(one.get("ServiceName", "")) for one in endpoints if str(one.get("State", "")).lower() == "available"]
    missing = [service for service in SERVICES if not any(name.endswith(f".{service}") for name in names)]
    if not missing:
        return True, "VPC endpoints"
    return False, f"no NAT gateway, and no VPC endpoint for {', '.join(missing)}"
