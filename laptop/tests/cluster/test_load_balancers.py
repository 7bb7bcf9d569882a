"""Load balancers of a realistic cluster, on a clock that the test moves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from laptop.cluster.alb import DRAINING, HEALTHY, INITIAL, INTERNET, LoadBalancers, gate_of, hostname_of
from laptop.cluster.routes import ACTIONS, PodAddress, forward_action
from laptop.delays import Delays
from laptop.tests.cluster.running_cluster import SetClock

DELAYS = Delays(
    {
        "load-balancer": 100.0,
        "dns": 60.0,
        "dns-negative-cache": 30.0,
        "target-health": 15.0,
        "target-deregistration": 5.0,
        "weights": 10.0,
    }
)
POD, OTHER = PodAddress("pod-1", 8001), PodAddress("pod-2", 8002)


def ingress(weight: int | None = None) -> dict[str, Any]:
    annotations = {"other": "kept"}
    if weight is not None:
        annotations[f"{ACTIONS}stable"] = forward_action(80, {"canary": weight, "stable": 100 - weight})
    return {"metadata": {"name": "m", "namespace": "n", "uid": "i-1", "annotations": annotations}, "spec": {}}


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def faults() -> set[str]:
    """Faults that the laptop has; tests change it."""
    return set()


@pytest.fixture
def balancers(clock: SetClock, faults: set[str]) -> LoadBalancers:
    return LoadBalancers(DELAYS, clock, lambda: faults)


def weight_of(found: dict[str, Any]) -> int:
    action = json.loads(found["metadata"]["annotations"][f"{ACTIONS}stable"])
    return int(action["ForwardConfig"]["TargetGroups"][0]["Weight"])


def test_a_load_balancer_has_its_name_at_once_and_is_active_later(balancers: LoadBalancers, clock: SetClock) -> None:
    name = balancers.see(ingress(), "eu-west-1")
    assert name == hostname_of(ingress(), "eu-west-1")
    assert name.startswith("internal-k8s-n-m-")
    assert name.endswith(".eu-west-1.elb.amazonaws.com")
    clock.pass_time(99)
    assert not balancers.is_active("i-1")
    assert balancers.seconds_to_active("i-1") == 1
    clock.pass_time(1)
    assert balancers.is_active("i-1")


def test_a_name_resolves_later(balancers: LoadBalancers, clock: SetClock) -> None:
    name = balancers.see(ingress(), "eu-west-1")
    clock.pass_time(60)
    assert balancers.resolve(name.upper())
    balancers.forget("i-1")
    assert not balancers.resolve(name)


def test_a_resolver_that_asked_too_early_repeats_its_answer(balancers: LoadBalancers, clock: SetClock) -> None:
    name = balancers.see(ingress(), "eu-west-1")
    clock.pass_time(50)
    assert not balancers.resolve(name, "early")
    clock.pass_time(29)
    assert balancers.resolve(name, "late")
    assert not balancers.resolve(name, "early")
    clock.pass_time(1)
    assert balancers.resolve(name, "early")


def test_weights_take_effect_later(balancers: LoadBalancers, clock: SetClock) -> None:
    balancers.see(ingress(0), "eu-west-1")
    clock.pass_time(50)
    balancers.see(ingress(20), "eu-west-1")
    clock.pass_time(5)
    balancers.see(ingress(40), "eu-west-1")
    clock.pass_time(4)
    assert weight_of(balancers.in_force(ingress(40))) == 0
    clock.pass_time(1)
    assert weight_of(balancers.in_force(ingress(40))) == 20
    clock.pass_time(5)
    found = balancers.in_force(ingress(40))
    assert weight_of(found) == 40
    assert found["metadata"]["annotations"]["other"] == "kept"


def test_a_target_is_healthy_after_a_check_by_an_active_load_balancer(
    balancers: LoadBalancers, clock: SetClock
) -> None:
    balancers.see(ingress(), "eu-west-1")
    balancers.register("n", "stable", [POD])
    clock.pass_time(114)
    assert balancers.health("n", "stable", "pod-1", ["i-1"]) == INITIAL
    assert balancers.routable("n", "stable", ["i-1"]) == []
    clock.pass_time(1)
    assert balancers.health("n", "stable", "pod-1", ["i-1"]) == HEALTHY
    assert balancers.routable("n", "stable", ["i-1"]) == [POD]
    balancers.register("n", "stable", [POD, OTHER])
    clock.pass_time(14)
    assert balancers.routable("n", "stable", ["i-1"]) == [POD]
    clock.pass_time(1)
    assert balancers.routable("n", "stable", ["i-1"]) == [POD, OTHER]


def test_a_target_of_no_load_balancer_is_never_healthy(balancers: LoadBalancers, clock: SetClock) -> None:
    balancers.register("n", "stable", [POD])
    clock.pass_time(10_000)
    assert balancers.health("n", "stable", "pod-1", []) == INITIAL
    assert balancers.health("n", "stable", "pod-2", []) == ""


def test_a_target_that_leaves_still_gets_requests_for_a_while(balancers: LoadBalancers, clock: SetClock) -> None:
    balancers.see(ingress(), "eu-west-1")
    balancers.register("n", "stable", [POD])
    clock.pass_time(200)
    balancers.register("n", "stable", [])
    assert balancers.health("n", "stable", "pod-1", ["i-1"]) == DRAINING
    clock.pass_time(4)
    assert balancers.routable("n", "stable", ["i-1"]) == [POD]
    assert balancers.seconds_to_gone("n", "stable") == [1]
    clock.pass_time(1)
    assert balancers.routable("n", "stable", ["i-1"]) == []
    balancers.register("n", "stable", [])
    assert not balancers.is_target("n", "stable", "pod-1")


def test_a_stuck_load_balancer_is_active_once_the_fault_ends(
    balancers: LoadBalancers, clock: SetClock, faults: set[str]
) -> None:
    other = {"metadata": {**ingress()["metadata"], "uid": "i-2"}, "spec": {}}
    balancers.see(other, "eu-west-1")
    clock.pass_time(150)
    balancers.see(ingress(), "eu-west-1")
    balancers.register("n", "stable", [POD])
    clock.pass_time(10)
    faults.add("load-balancer-stuck")
    assert (balancers.is_active("i-1"), balancers.is_active("i-2")) == (False, True)
    clock.pass_time(10_000)
    assert (balancers.is_active("i-1"), balancers.is_active("i-2")) == (False, True)
    assert balancers.health("n", "stable", "pod-1", ["i-1"]) == INITIAL
    faults.clear()
    assert balancers.is_active("i-1")
    assert balancers.health("n", "stable", "pod-1", ["i-1"]) == HEALTHY


def test_nobody_need_look_while_a_load_balancer_gets_stuck(
    balancers: LoadBalancers, clock: SetClock, faults: set[str]
) -> None:
    faults |= {"load-balancer-stuck", "targets-stuck"}
    balancers.see(ingress(), "eu-west-1")
    balancers.register("n", "stable", [POD])
    clock.pass_time(10_000)
    assert not balancers.is_active("i-1")
    faults.remove("load-balancer-stuck")
    assert balancers.is_active("i-1")
    assert balancers.routable("n", "stable", ["i-1"]) == []


def test_stuck_targets_leave_healthy_ones_alone(balancers: LoadBalancers, clock: SetClock, faults: set[str]) -> None:
    balancers.see(ingress(), "eu-west-1")
    balancers.register("n", "stable", [POD])
    clock.pass_time(150)
    faults.add("targets-stuck")
    assert balancers.routable("n", "stable", ["i-1"]) == [POD]
    balancers.register("n", "stable", [POD, OTHER])
    clock.pass_time(10_000)
    assert balancers.routable("n", "stable", ["i-1"]) == [POD]
    faults.clear()
    assert balancers.routable("n", "stable", ["i-1"]) == [POD, OTHER]


def test_a_name_that_is_gone_is_gone_for_runners_only(
    balancers: LoadBalancers, clock: SetClock, faults: set[str]
) -> None:
    name = balancers.see(ingress(), "eu-west-1")
    clock.pass_time(1000)
    faults.add("dns-gone")
    assert (balancers.resolve(name, INTERNET), balancers.resolve(name, "private network")) == (False, True)
    faults.clear()
    assert balancers.resolve(name, INTERNET)


def test_host_names_in_rules_lead_to_the_load_balancer(balancers: LoadBalancers) -> None:
    balancers.see({**ingress(), "spec": {"rules": [{"host": "m.example.com"}]}}, "eu-west-1")
    assert balancers.find("M.example.com") == "i-1"
    assert balancers.find("n.example.com") is None


def test_gates_of_different_services_differ() -> None:
    assert gate_of("n", "m-stable") == gate_of("n", "m-stable")
    assert len({gate_of("n", "m-stable"), gate_of("n", "m-canary"), gate_of("o", "m-stable")}) == 3
