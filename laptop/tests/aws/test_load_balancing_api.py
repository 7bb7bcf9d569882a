"""Load balancers of the cluster, as Elastic Load Balancing describes them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laptop.aws import account as aws
from laptop.aws.cloud import Cloud
from laptop.cluster.kinds import ROLLOUT
from laptop.delays import realistic
from laptop.github.command_forks.site import laptop_names
from laptop.tests.cluster.running_cluster import RunningCluster, SetClock, new_namespace, phase, rollout, wait_for
from laptop.tests.cluster.test_realistic_cluster import expose

pytestmark = pytest.mark.slow

RESOURCE = "elb/m-m-stable:80"


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def eks(tmp_path: Path, clock: SetClock) -> Iterator[RunningCluster]:
    (tmp_path / "home").mkdir()
    realistic(["iam-policy=0"]).write(tmp_path / "home")
    account = aws.start(tmp_path / "home" / "aws")
    running = RunningCluster(tmp_path, time_scale=0.01, delays=realistic(["image-pull=0"]), clock=clock)
    yield running
    running.close()
    account.stop()


def described(api: Any, address: str) -> tuple[str, list[int], dict[str, int], dict[str, list[str]]]:
    """Return the state, the listeners, and weights and target states by the tag of each target group."""
    (balancer,) = [one for one in api.describe_load_balancers()["LoadBalancers"] if one["DNSName"] == address]
    arn = balancer["LoadBalancerArn"]
    listeners = api.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    groups = [one["TargetGroupArn"] for one in api.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"]]
    tags = {}
    if groups:
        for one in api.describe_tags(ResourceArns=groups)["TagDescriptions"]:
            tags[one["ResourceArn"]] = {tag["Key"]: tag["Value"] for tag in one["Tags"]}["ingress.k8s.aws/resource"]
    (rule,) = api.describe_rules(ListenerArn=listeners[0]["ListenerArn"])["Rules"]
    forward = rule["Actions"][0].get("ForwardConfig", {}).get("TargetGroups", [])
    health = {
        tags[group]: [
            one["TargetHealth"]["State"]
            for one in api.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        ]
        for group in groups
    }
    weights = {tags[one["TargetGroupArn"]]: one["Weight"] for one in forward}
    return balancer["State"]["Code"], [one["Port"] for one in listeners], weights, health


def test_the_account_describes_load_balancers_of_the_cluster(eks: RunningCluster, clock: SetClock) -> None:
    found = aws.running(eks.home / "aws")
    assert found is not None
    api = Cloud(found.environ(), found.home).client("elbv2")
    assert api.describe_load_balancers()["LoadBalancers"] == []
    namespace = new_namespace(eks, "elb")
    address = expose(eks, namespace, ("m-stable", "m-canary"), "m-stable")
    assert described(api, address) == ("provisioning", [80], {}, {})
    eks.create(ROLLOUT, namespace, rollout("v1", [{"setWeight": 50}], replicas=2))
    phase(eks, namespace, "Healthy")
    assert described(api, address)[2] == {}
    clock.pass_time(10)
    wait_for(lambda: described(api, address)[3].get(RESOURCE) == ["initial", "initial"])
    clock.pass_time(1000)
    state, _, weights, health = described(api, address)
    assert (state, weights[RESOURCE], health[RESOURCE]) == ("active", 100, ["healthy", "healthy"])


def test_a_runner_looks_a_name_up_late_and_cannot_reach_it(
    eks: RunningCluster, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)  # put back at the end
    laptop_names.install(json.loads((eks.home / "cluster" / "cluster.json").read_text())["proxy"])
    namespace = new_namespace(eks, "elb")
    address = expose(eks, namespace, ("m-stable", "m-canary"), "m-stable")
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(address, 80)
    clock.pass_time(119)
    assert socket.getaddrinfo(address, 80)
    with pytest.raises(OSError, match=r"refused|unreachable|assign"):
        socket.create_connection((address, 80), timeout=5)
    assert socket.getaddrinfo("127.0.0.1", 80)
