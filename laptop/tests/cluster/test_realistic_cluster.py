"""A cluster whose load balancers, nodes and images are as late as those of EKS, on a clock that the test moves."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laptop.cluster.alb import GATE
from laptop.cluster.conditions import condition_of, is_true
from laptop.cluster.kinds import INGRESS, JOB, POD, ROLLOUT, SERVICE
from laptop.cluster.node_capacity import PODS_PER_NODE
from laptop.delays import realistic
from laptop.tests.cluster.running_cluster import (
    RunningCluster,
    SetClock,
    ending,
    job,
    new_namespace,
    phase,
    rollout,
    wait_for,
)

pytestmark = pytest.mark.slow

INJECT = {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"}
PING_PONG = {"pingPong": {"pingService": "m-ping", "pongService": "m-pong"}}


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def eks(tmp_path: Path, clock: SetClock) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path, time_scale=0.01, delays=realistic(["image-pull=0"]), clock=clock)
    yield running
    running.close()


def expose(eks: RunningCluster, namespace: str, services: tuple[str, ...], root: str) -> str:
    """Create the Services and the Ingress, and return the DNS name of the load balancer."""
    for name in services:
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        eks.create(SERVICE, namespace, {"metadata": {"name": name}, "spec": {"selector": {"app": "m"}, "ports": ports}})
    backend = {"service": {"name": root, "port": {"name": "use-annotation"}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    eks.create(INGRESS, namespace, {"metadata": {"name": "m"}, "spec": {"rules": rules}})
    found = eks.wait(INGRESS, namespace, "m", lambda obj: (obj.get("status") or {}).get("loadBalancer"))
    (balancer,) = found["status"]["loadBalancer"]["ingress"]
    assert balancer.keys() == {"hostname"}
    return str(balancer["hostname"])


def ask(eks: RunningCluster, hostname: str) -> tuple[int, str]:
    """Send a request from inside of the private network; return the status, and the version or the problem."""
    proxy = json.loads((eks.home / "cluster" / "cluster.json").read_text())["proxy"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
    try:
        with opener.open(f"http://{hostname}/", timeout=10) as answer:
            return int(answer.status), str(json.load(answer)["version"])
    except urllib.error.HTTPError as error:
        return error.code, str(json.load(error)["error"])


def pods(eks: RunningCluster, namespace: str, version: str) -> list[dict[str, Any]]:
    return [pod for pod in eks.find_all(POD, namespace) if version in pod["spec"]["containers"][0]["command"]]


def test_the_first_release_is_healthy_long_before_its_load_balancer_answers(
    eks: RunningCluster, clock: SetClock
) -> None:
    namespace = new_namespace(eks, "first", INJECT)
    hostname = expose(eks, namespace, ("m-stable", "m-canary"), "m-stable")
    eks.create(ROLLOUT, namespace, rollout("v1", [{"setWeight": 50}, {"pause": {}}], replicas=1))
    phase(eks, namespace, "Healthy")
    assert [pod["spec"].get("readinessGates") for pod in pods(eks, namespace, "v1")] == [None]

    assert ask(eks, hostname) == (502, f"{hostname}: no such name")
    clock.pass_time(59)
    assert ask(eks, hostname) == (502, f"{hostname}: no such name")
    clock.pass_time(60)
    status, problem = ask(eks, hostname)
    assert (status, "is not active" in problem) == (504, True)
    clock.pass_time(31)
    status, problem = ask(eks, hostname)
    assert (status, problem.startswith("no pod is ready")) == (503, True)
    clock.pass_time(15)
    wait_for(lambda: ask(eks, hostname) == (200, "v1"))


def test_runners_cannot_reach_a_load_balancer(eks: RunningCluster, clock: SetClock) -> None:
    namespace = new_namespace(eks, "outside", INJECT)
    hostname = expose(eks, namespace, ("m-stable", "m-canary"), "m-stable")
    clock.pass_time(1000)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.URLError):
        opener.open(f"http://{hostname}/", timeout=10)


def test_a_stable_and_a_canary_service_get_traffic_before_the_canary_is_healthy(
    eks: RunningCluster, clock: SetClock
) -> None:
    namespace = new_namespace(eks, "canary", INJECT)
    hostname = expose(eks, namespace, ("m-stable", "m-canary"), "m-stable")
    steps: list[dict[str, Any]] = [{"setWeight": 100}, {"pause": {}}]
    eks.create(ROLLOUT, namespace, rollout("v1", steps, replicas=1))
    phase(eks, namespace, "Healthy")
    clock.pass_time(1000)
    wait_for(lambda: ask(eks, hostname) == (200, "v1"))
    eks.merge(ROLLOUT, namespace, "m", {"spec": {"template": rollout("v2", [])["spec"]["template"]}})
    phase(eks, namespace, "Paused", step=1)
    # No Service selected the new pod when it was created.
    assert [pod["spec"].get("readinessGates") for pod in pods(eks, namespace, "v2")] == [None]
    assert ask(eks, hostname) == (200, "v1")  # the weights are not in force
    clock.pass_time(10)
    assert ask(eks, hostname)[0] == 503
    clock.pass_time(15)
    wait_for(lambda: ask(eks, hostname) == (200, "v2"))


def test_ping_pong_services_give_the_canary_no_traffic_before_it_is_healthy(
    eks: RunningCluster, clock: SetClock
) -> None:
    namespace = new_namespace(eks, "pingpong", INJECT)
    hostname = expose(eks, namespace, ("m-ping", "m-pong"), "m-ping")
    steps: list[dict[str, Any]] = [{"setWeight": 100}, {"pause": {}}]

    def release(version: str) -> dict[str, Any]:
        made = rollout(version, steps, replicas=1)
        canary = made["spec"]["strategy"]["canary"]
        for name in ("stableService", "canaryService"):
            del canary[name]
        canary |= PING_PONG
        canary["trafficRouting"]["alb"]["rootService"] = "m-ping"
        return made

    eks.create(ROLLOUT, namespace, release("v1"))
    phase(eks, namespace, "Healthy")
    clock.pass_time(1000)
    wait_for(lambda: ask(eks, hostname) == (200, "v1"))
    eks.merge(ROLLOUT, namespace, "m", {"spec": {"template": release("v2")["spec"]["template"]}})
    wait_for(lambda: [pod for pod in pods(eks, namespace, "v2") if is_true(pod, "ContainersReady")])
    (pod,) = pods(eks, namespace, "v2")
    (gate,) = pod["spec"]["readinessGates"]
    assert gate["conditionType"].startswith(GATE)
    ready = condition_of(pod["status"], "Ready")
    assert ready is not None and (ready["status"], ready["reason"]) == ("False", "ReadinessGatesNotReady")
    clock.pass_time(15)
    phase(eks, namespace, "Paused", step=1)
    assert is_true(pods(eks, namespace, "v2")[0], gate["conditionType"])
    assert ask(eks, hostname) == (200, "v1")
    clock.pass_time(10)
    assert ask(eks, hostname) == (200, "v2")


def test_pods_wait_for_a_node(eks: RunningCluster, clock: SetClock) -> None:
    namespace = new_namespace(eks, "nodes")
    for number in range(PODS_PER_NODE):
        eks.create(JOB, namespace, job(f"busy-{number}", "import time; time.sleep(60)"))
    wait_for(lambda: [is_true(pod, "PodScheduled") for pod in eks.find_all(POD, namespace)] == [True] * PODS_PER_NODE)
    eks.create(JOB, namespace, job("late", "print(1)"))
    (pod,) = wait_for(lambda: [pod for pod in eks.pods_of(namespace, "late") if (pod.get("status") or {}).get("phase")])
    scheduled = condition_of(pod["status"], "PodScheduled")
    assert scheduled is not None
    assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
    assert ending(eks.get(JOB, namespace, "late")) is None
    clock.pass_time(60)
    assert eks.ended(namespace, "late")["type"] == "Complete"


def test_pods_wait_for_an_image(tmp_path: Path, clock: SetClock) -> None:
    eks = RunningCluster(tmp_path, time_scale=0.01, delays=realistic(), clock=clock)
    try:
        namespace = new_namespace(eks, "images")
        eks.create(JOB, namespace, job("first", "print(1)"))
        wait_for(lambda: [pod for pod in eks.pods_of(namespace, "first") if is_true(pod, "PodScheduled")])
        time.sleep(0.3)  # nothing would start later
        (pod,) = eks.pods_of(namespace, "first")
        assert pod["status"]["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
        clock.pass_time(15)
        assert eks.ended(namespace, "first")["type"] == "Complete"
    finally:
        eks.close()
