"""The pods of the live release."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.cluster.connection import connect
from pipelines.cluster.rollout_pods import ServingPod, live_pods, why_not_ready
from pipelines.declarations.errors import MlopsError
from tests.pipelines.cluster.conftest import Api

ROLLOUT = "/apis/argoproj.io/v1alpha1/namespaces/models/rollouts/price"
PODS = "/api/v1/namespaces/models/pods"


def rollout(live: str = "6f5d") -> dict[str, Any]:
    return {
        "metadata": {"name": "price"},
        "spec": {"selector": {"matchLabels": {"app": "price"}}},
        "status": {"stableRS": live, "currentPodHash": "7a7a"} if live else {},
    }


def pod(name: str, *, ready: str = "True", deleted: bool = False, ports: Any = None) -> dict[str, Any]:
    listed = [{"name": "metrics", "containerPort": 9000}, {"name": "http", "containerPort": 8080}]
    return {
        "metadata": {"name": name, **({"deletionTimestamp": "2026-11-29T12:00:00Z"} if deleted else {})},
        "spec": {"containers": [{"name": "serve", "ports": listed if ports is None else ports}]},
        "status": {
            "podIP": f"10.0.0.{ord(name)}",
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": ready}],
        },
    }


def found(api: Api, of: dict[str, Any], *pods: dict[str, Any]) -> list[ServingPod]:
    api.on("GET", ROLLOUT, of)
    api.on("GET", PODS, {"items": list(pods), "metadata": {}})
    with connect("models") as client:
        return live_pods(client, "price")


def test_only_ready_pods_of_the_live_release_are_found(api: Api) -> None:
    pods = [pod("b"), pod("a"), pod("c", ready="False"), pod("d", deleted=True), pod("e") | {"status": {}}]
    assert found(api, rollout(), *pods) == [ServingPod("a", "10.0.0.97", 8080), ServingPod("b", "10.0.0.98", 8080)]
    assert ("GET", PODS, {"labelSelector": ["app=price,rollouts-pod-template-hash=6f5d"]}) in api.asked


@pytest.mark.parametrize("words", [{"command": ["python", "--bundle", "b1"]}, {"args": ["--bundle", "b1", "--x"]}])
def test_a_pod_serves_the_bundle_that_it_was_started_with(api: Api, words: dict[str, Any]) -> None:
    one, other = pod("a"), pod("b")
    one["spec"]["containers"][0] |= words
    one["metadata"]["annotations"] = {"mlops/bundle": "b2"}  # which others may change
    assert [each.bundle for each in found(api, rollout(), one, other)] == ["b1", ""]


def test_before_the_first_release_is_live_there_are_no_pods(api: Api) -> None:
    assert found(api, rollout(live=""), pod("a")) == []


def test_a_pod_without_the_port_of_a_server_is_an_error(api: Api) -> None:
    with pytest.raises(MlopsError, match="the pod a has no port named 'http'"):
        found(api, rollout(), pod("a", ports=[]))


def test_a_missing_rollout_is_an_error(api: Api) -> None:
    with connect("models") as client, pytest.raises(MlopsError, match="no Rollout 'price'") as caught:
        live_pods(client, "price")
    assert "KUBECONFIG" in caught.value.fix


GATE = "target-health.elbv2.k8s.aws/k8s-price"
GATED = {"readinessGates": [{"conditionType": GATE}]}


def condition(type_: str, status: str, **more: str) -> dict[str, Any]:
    return {"conditions": [{"type": type_, "status": status, **more}]}


def container(**more: Any) -> dict[str, Any]:
    known = {"name": "serve", "ready": False, "restartCount": 0, "image": "i", "imageID": ""}
    return {"containerStatuses": [known | more]}


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({}, condition("PodScheduled", "False", reason="Unschedulable", message="no node"), "Unschedulable: no node"),
        ({}, container(state={"waiting": {"reason": "ErrImagePull", "message": "no"}}), "ErrImagePull: no"),
        ({}, container(lastState={"terminated": {"exitCode": 3}}), "the container serve ended with exit code 3"),
        (GATED, condition(GATE, "False", reason="Timeout"), f"its readiness gate {GATE} is not met: Timeout"),
        (GATED, {"conditions": []}, f"its readiness gate {GATE} is not met"),
        ({}, condition("Ready", "False", reason="ContainersNotReady"), "ContainersNotReady"),
        ({}, condition("Ready", "True"), ""),
        ({}, {}, ""),
    ],
)
def test_a_pod_that_is_not_ready_says_why(api: Api, spec: Any, status: Any, expected: str) -> None:
    one, other = pod("a"), pod("b", ready="False")
    one["spec"] |= spec
    one["spec"]["containers"][0]["command"] = ["python", "--bundle", "b1"]
    api.on("GET", PODS, {"items": [other, one | {"status": status}], "metadata": {}})
    assert why_not_ready("models", "price", "b1") == (f"the pod a is not ready: {expected}" if expected else "")


def test_a_reason_that_cannot_be_read_is_left_out(api: Api) -> None:
    api.on("GET", PODS, 403)
    assert why_not_ready("models", "price", "b1") == ""
