"""Waiting for the load balancer of an endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest

from pipelines.cluster import load_balancer as module
from pipelines.cluster.connection import connect
from pipelines.cluster.load_balancer import LoadBalancerVerdict, NotYetError, await_load_balancer, judge_load_balancer
from pipelines.cluster.load_balancer_facts import (
    FoundLoadBalancer,
    TargetHealth,
    WantedLoadBalancer,
    found_load_balancer,
    resolves,
    wanted_load_balancer,
)
from pipelines.cluster.rollout_pods import ServingPod
from pipelines.declarations.errors import MlopsError
from tests.aws import REGION, emulated_account
from tests.pipelines.cluster.conftest import Api
from tests.pipelines.cluster.test_rollout_pods import PODS, ROLLOUT, pod, rollout

INGRESS = "/apis/networking.k8s.io/v1/namespaces/models/ingresses/price"
NAME = "internal-k8s-models-price-1.eu-west-1.elb.amazonaws.com"
PING, PONG = "models/price-price-ping:80", "models/price-price-pong:80"
A, B = ServingPod("a", "10.0.0.97", 8080), ServingPod("b", "10.0.0.98", 8080)
WANTED = WantedLoadBalancer(NAME, (80,), {PING: 100, PONG: 0})
HEALTHY = TargetHealth("healthy")
FOUND = FoundLoadBalancer("active", (80,), {PING: 100, PONG: 0}, {PING: {A.address: HEALTHY, B.address: HEALTHY}})


def judge(
    wanted: WantedLoadBalancer = WANTED,
    found: FoundLoadBalancer | None = FOUND,
    pods: tuple[ServingPod, ...] = (A, B),
    name_resolves: bool = True,
) -> LoadBalancerVerdict:
    return judge_load_balancer(wanted, found, pods, name_resolves=name_resolves)


def test_a_load_balancer_that_sends_its_traffic_to_the_live_pods_needs_nothing() -> None:
    assert judge() == LoadBalancerVerdict()
    assert judge(found=replace(FOUND, state="active_impaired")) == LoadBalancerVerdict()


WAITING: dict[str, tuple[WantedLoadBalancer, FoundLoadBalancer, tuple[ServingPod, ...], str]] = {
    "no address": (WantedLoadBalancer(""), FOUND, (A,), "the load balancer has no address yet"),
    "not listed": (WANTED, FoundLoadBalancer(), (A,), "the load balancer is not listed by AWS; expected active"),
    "provisioning": (
        WANTED,
        replace(FOUND, state="provisioning"),
        (A,),
        "the load balancer is provisioning; expected active",
    ),
    "no listener": (WANTED, replace(FOUND, ports=(443,)), (A,), "the load balancer has no listener on port 80 yet"),
    "no weights": (replace(WANTED, weights={}), FOUND, (A,), "Argo Rollouts has not set the traffic weights yet"),
    "no rule": (WANTED, replace(FOUND, weights={}), (A,), f"weight of {PING}: expected 100, found no rule"),
    "old weights": (
        WANTED,
        replace(FOUND, weights={PING: 50, PONG: 0}),
        (A,),
        f"weight of {PING}: expected 100, found 50",
    ),
    "no pod": (WANTED, FOUND, (), "no pod is ready yet"),
    "not registered": (
        WANTED,
        replace(FOUND, targets={PING: {A.address: HEALTHY}}),
        (A, B),
        "the pod b is not registered with the load balancer yet",
    ),
    "registered where no traffic goes": (
        WANTED,
        replace(FOUND, targets={PONG: {A.address: HEALTHY}}),
        (A,),
        "the pod a is not registered with the load balancer yet",
    ),
    "initial": (
        WANTED,
        replace(FOUND, targets={PING: {A.address: TargetHealth("initial", "Elb.RegistrationInProgress")}}),
        (A,),
        "the load balancer finds the pod a initial (Elb.RegistrationInProgress)",
    ),
    "unhealthy": (
        WANTED,
        replace(FOUND, targets={PING: {A.address: TargetHealth("unhealthy", "Target.Timeout")}}),
        (A,),
        "the load balancer finds the pod a unhealthy (Target.Timeout)",
    ),
}


@pytest.mark.parametrize("case", WAITING)
def test_what_is_not_there_yet_is_waited_for(case: str) -> None:
    wanted, found, pods, says = WAITING[case]
    verdict = judge(wanted, found, pods)
    assert verdict.waiting == (says,)
    assert (verdict.wrong, verdict.unseen) == ((), ())


def test_a_name_that_does_not_resolve_is_told_apart() -> None:
    verdict = judge(name_resolves=False)
    assert (verdict.waiting, verdict.unresolved) == ((), f"the name {NAME} does not resolve yet")


def test_a_load_balancer_that_failed_is_wrong() -> None:
    verdict = judge(found=replace(FOUND, state="failed"))
    assert verdict.waiting == ()
    assert "its state is failed" in verdict.wrong[0]


def test_what_cannot_be_seen_is_said() -> None:
    assert "expected permission for elasticloadbalancing:Describe*" in judge(found=None).unseen[0]
    other = judge(WantedLoadBalancer("10.1.2.3", (80,), {PING: 100}), None)
    assert "10.1.2.3 is not a load balancer of AWS" in other.unseen[0]
    assert (other.waiting, other.wrong) == ((), ())


# --- facts ------------------------------------------------------------------------------------------------------------


def ingress(address: dict[str, str] | None, ping: int | None = 100) -> dict[str, Any]:
    annotations = {"alb.ingress.kubernetes.io/listen-ports": '[{"HTTP": 80}]'}
    if ping is not None:
        groups = [
            {"ServiceName": name, "ServicePort": "80", "Weight": weight}
            for name, weight in (("price-ping", ping), ("price-pong", 100 - ping))
        ]
        action = json.dumps({"Type": "forward", "ForwardConfig": {"TargetGroups": groups}})
        annotations["alb.ingress.kubernetes.io/actions.price-root"] = action
        annotations["alb.ingress.kubernetes.io/actions.price-stable"] = action.replace(
            "ping", "stable"
        )  # left by an earlier version
    backend = {"service": {"name": "price-root", "port": {"name": "use-annotation"}}}
    rule = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    return {
        "metadata": {"name": "price", "annotations": annotations},
        "spec": {"rules": [rule]},
        "status": {"loadBalancer": {"ingress": [address]} if address else {}},
    }


def wanted(api: Api, *answers: Any) -> WantedLoadBalancer:
    api.on("GET", INGRESS, *answers)
    with connect("models") as client:
        return wanted_load_balancer(client, "price")


def test_an_ingress_says_what_is_wanted(api: Api) -> None:
    assert wanted(api, ingress({"hostname": NAME})) == WANTED
    assert WANTED.is_elastic


def test_an_ingress_without_an_address_or_weights_is_no_error(api: Api) -> None:
    found = wanted(api, ingress(None, ping=None))
    assert (found.address, found.weights, found.is_elastic) == ("", {}, False)


def test_an_address_of_another_controller_is_told_apart(api: Api) -> None:
    found = wanted(api, ingress({"ip": "10.1.2.3"}))
    assert (found.address, found.is_elastic) == ("10.1.2.3", False)


def test_a_missing_or_broken_ingress_is_an_error(api: Api) -> None:
    broken = ingress(None)
    broken["metadata"]["annotations"]["alb.ingress.kubernetes.io/listen-ports"] = "80"
    with pytest.raises(MlopsError, match="annotations of the Ingress 'price' in 'models' are not valid"):
        wanted(api, broken)
    with connect("models") as client, pytest.raises(MlopsError, match="no Ingress 'other' in namespace 'models'"):
        wanted_load_balancer(client, "other")


class Balancer:
    """A load balancer in an emulated account, as the AWS Load Balancer Controller makes it."""

    def __init__(self) -> None:
        ec2, self.api = boto3.client("ec2"), boto3.client("elbv2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]
            for n, zone in enumerate("ab")
        ]
        made = self.api.create_load_balancer(
            Name="k8s-models-price", Scheme="internal", Subnets=[subnet["SubnetId"] for subnet in subnets]
        )["LoadBalancers"][0]
        self.name, self.arn = made["DNSName"], made["LoadBalancerArn"]
        self.groups = {
            tag: self.api.create_target_group(
                Name=f"k8s-{n}",
                Protocol="HTTP",
                Port=8080,
                VpcId=vpc,
                TargetType="ip",
                Tags=[{"Key": "ingress.k8s.aws/resource", "Value": tag}],
            )["TargetGroups"][0]["TargetGroupArn"]
            for n, tag in enumerate((PING, PONG))
        }
        self.api.create_target_group(Name="other", Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip")

    def listen(self, ping: int = 100) -> None:
        weights = {PING: ping, PONG: 100 - ping}
        groups = [{"TargetGroupArn": self.groups[tag], "Weight": weight} for tag, weight in weights.items()]
        listener = self.api.create_listener(
            LoadBalancerArn=self.arn,
            Protocol="HTTP",
            Port=80,
            DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}],
        )["Listeners"][0]
        self.api.create_rule(
            ListenerArn=listener["ListenerArn"],
            Priority=1,
            Conditions=[{"Field": "path-pattern", "Values": ["/*"]}],
            Actions=[{"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}],
        )

    def register(self, *pods: ServingPod) -> None:
        targets = [{"Id": pod.address, "Port": pod.port} for pod in pods]
        self.api.register_targets(TargetGroupArn=self.groups[PING], Targets=targets)


@pytest.fixture
def balancer() -> Iterator[Balancer]:
    with emulated_account():
        yield Balancer()


def test_the_facts_of_a_load_balancer_are_read_from_aws(balancer: Balancer) -> None:
    assert found_load_balancer("other.eu-west-1.elb.amazonaws.com", REGION) == FoundLoadBalancer()
    first = found_load_balancer(balancer.name.upper(), REGION)
    assert first is not None
    assert (first.state, first.ports, first.weights) == ("active", (), {})
    balancer.listen(ping=90)
    balancer.register(A, B)
    assert found_load_balancer(balancer.name, REGION) == replace(
        FOUND, weights={PING: 90, PONG: 10}, targets={**FOUND.targets, PONG: {}}
    )


def test_a_caller_without_permission_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.http_responder import http_server

    def denied(method: str, path: str, body: bytes) -> Any:
        return 403, b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"

    with emulated_account(), http_server(denied) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert found_load_balancer(NAME, REGION) is None


def test_an_unknown_name_does_not_resolve() -> None:
    assert resolves("127.0.0.1")
    assert not resolves("no-such-name.invalid")


# --- waiting ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(module, "resolves", lambda _: True)
    api.on("GET", ROLLOUT, rollout())
    api.on("GET", PODS, {"items": [pod("a"), pod("b")], "metadata": {}})
    return api


def script(monkeypatch: pytest.MonkeyPatch, *answers: FoundLoadBalancer | None) -> None:
    waiting = list(answers)
    monkeypatch.setattr(module, "found_load_balancer", lambda *_: waiting.pop(0) if len(waiting) > 1 else waiting[0])


def test_a_new_load_balancer_is_waited_for_and_each_change_is_logged_once(
    stage: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.on("GET", INGRESS, ingress(None), ingress({"hostname": NAME}))
    provisioning = replace(FOUND, state="provisioning")
    initial = replace(FOUND, targets={PING: {A.address: HEALTHY, B.address: TargetHealth("initial")}})
    script(monkeypatch, provisioning, provisioning, initial, FOUND)
    names = iter([False, False])
    monkeypatch.setattr(module, "resolves", lambda _: next(names, True))
    lines: list[str] = []
    await_load_balancer("models", "price", REGION, lines.append)
    unresolved = f"the name {NAME} does not resolve yet"
    assert lines == [
        "waiting: the load balancer has no address yet",
        f"waiting: the load balancer is provisioning; expected active; {unresolved}",
        "waiting: the load balancer finds the pod b initial",
    ]


def test_what_never_comes_is_not_taken_for_a_bad_release(stage: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.on("GET", INGRESS, ingress({"hostname": NAME}))
    script(monkeypatch, replace(FOUND, state="provisioning"))
    with pytest.raises(NotYetError, match=r"is not there yet after \d+ s: the load balancer is prov") as caught:
        await_load_balancer("models", "price", REGION, print, deadline_seconds=0.02)
    assert "deploy again" in caught.value.fix


def test_what_is_wrong_is_not_waited_for(stage: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.on("GET", INGRESS, ingress({"hostname": NAME}))
    script(monkeypatch, replace(FOUND, state="failed"))
    with pytest.raises(MlopsError, match="its state is failed") as caught:
        await_load_balancer("models", "price", REGION, print)
    assert not isinstance(caught.value, NotYetError)


def test_a_machine_that_cannot_resolve_the_name_goes_on_and_says_so(
    stage: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.on("GET", INGRESS, ingress({"hostname": NAME}))
    script(monkeypatch, None)
    monkeypatch.setattr(module, "resolves", lambda _: False)
    monkeypatch.setattr(module, "NAME_SECONDS", 0.01)
    lines: list[str] = []
    await_load_balancer("models", "price", REGION, lines.append)
    assert "the load balancer cannot be seen" in lines[0]
    assert lines[-1] == f"the name {NAME} does not resolve on this machine: not verified"
