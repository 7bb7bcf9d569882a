"""The network of a cluster: endpoint, subnets for load balancers, and the route to AWS."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto import mock_aws

from pipelines.targets.network_prerequisites import (
    INTERNAL_TAG,
    SERVICES,
    check_network,
    judge_endpoint,
    judge_route_to_aws,
    judge_subnets,
)


def subnet(zone: str, value: str | None = "1") -> dict[str, Any]:
    return {"AvailabilityZone": zone, "Tags": [{"Key": INTERNAL_TAG, "Value": value}] if value is not None else []}


def endpoint(service: str, state: str = "available") -> dict[str, str]:
    return {"ServiceName": f"com.amazonaws.eu-west-1.{service}", "State": state}


@pytest.mark.parametrize(
    ("subnets", "ok", "found"),
    [
        ([subnet("a"), subnet("b")], True, "2 of 2 are tagged"),
        ([subnet("a"), subnet("a")], False, "in 1 zones"),
        ([subnet("a"), subnet("b", None)], False, "1 of 2 are tagged"),
        ([subnet("a"), subnet("b", "0")], False, "1 of 2 are tagged"),
        ([], False, "0 of 0 are tagged"),
    ],
)
def test_an_internal_load_balancer_needs_tagged_subnets_in_two_zones(
    subnets: list[dict[str, Any]], ok: bool, found: str
) -> None:
    judged = judge_subnets(subnets)
    assert judged[0] is ok
    assert found in judged[1]


def test_pods_reach_aws_by_a_gateway_or_by_every_endpoint() -> None:
    every = [endpoint(service) for service in SERVICES]
    assert judge_route_to_aws([{"State": "available"}], []) == (True, "a NAT gateway")
    assert judge_route_to_aws([], every) == (True, "VPC endpoints")
    assert judge_route_to_aws([{"State": "deleted"}], every[1:]) == (
        False,
        "no NAT gateway, and no VPC endpoint for s3",
    )
    assert not judge_route_to_aws([], [*every[:-1], endpoint("eks-auth", "deleting")])[0]


def test_a_private_endpoint_is_found_and_a_restricted_one_is_said() -> None:
    assert judge_endpoint({"endpointPublicAccess": True}) == (True, "public")
    assert not judge_endpoint({"endpointPublicAccess": False})[0]
    assert "192.0.2.0/24" in judge_endpoint({"publicAccessCidrs": ["192.0.2.0/24"]})[1]


@mock_aws
def test_the_network_of_a_cluster_is_read_from_eks_and_ec2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    session, region = boto3.Session(), "eu-west-1"
    ec2 = session.client("ec2", region_name=region)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    for number, zone in enumerate("ab"):
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{region}{zone}")
        ec2.create_tags(Resources=[made["Subnet"]["SubnetId"]], Tags=[{"Key": INTERNAL_TAG, "Value": "1"}])
    described = {"cluster": {"resourcesVpcConfig": {"vpcId": vpc, "endpointPublicAccess": True}}}
    client = session.client

    def with_cluster(service: str, **options: Any) -> Any:
        made = client(service, **options)
        if service == "eks":
            monkeypatch.setattr(made, "describe_cluster", lambda name: described)
        return made

    monkeypatch.setattr(session, "client", with_cluster)
    findings = list(check_network(session, Config(), "dev", region, "mlops-dev"))
    assert {one.name: one.ok for one in findings} == {
        "API endpoint of dev": True,
        "subnets of dev": True,
        "route to AWS of dev": False,
    }
    assert "NAT gateway" in findings[-1].fix
