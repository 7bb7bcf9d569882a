"""A shadow step as the program declares it: copies of requests before any traffic."""

from __future__ import annotations

from typing import Any

import pytest

from infra.policies import violations
from pipelines.declarations.shadow_traffic import ShadowPeers
from tests.infra.recording import Recording, edit, record, release_everywhere
from tests.infra.test_manifests import (
    test_every_core_manifest_is_valid,
    test_the_pods_and_jobs_of_custom_resources_are_valid,
)
from tests.infra.test_program import ANALYSIS_TEMPLATE, CHECK, MODEL, ROLLOUT, SERVICE
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

__all__ = ["test_every_core_manifest_is_valid", "test_the_pods_and_jobs_of_custom_resources_are_valid"]  # of this graph

POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
SERVERS = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": f"serve-{MODEL}"}}}
CHECKS = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": CHECK}}}
PORTS = [{"protocol": "TCP", "port": 8080}]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return the graph of dev whose model declares a shadow step."""
    project = release_everywhere(copy_as_forked(tmp_path_factory.mktemp("shadow") / "project"))
    edit(project / "models" / MODEL / "model.yaml", "serving", "shadow", value={"percent": 20, "pause_seconds": 600})
    return record(project, "dev", descriptors={})


def analysis(step: dict[str, Any]) -> dict[str, Any]:
    """Return the literal arguments of an analysis step."""
    return {item["name"]: item["value"] for item in step["analysis"]["args"] if "value" in item}


def test_the_shadow_step_comes_before_any_weight_and_has_pods(graph: Recording) -> None:
    steps = graph.one(ROLLOUT, MODEL).at("spec", "strategy", "canary", "steps")
    assert [next(iter(step)) for step in steps] == [
        *("setCanaryScale", "analysis", "setWeight", "setCanaryScale", "analysis", "setWeight", "analysis")
    ]
    assert steps[0] == {"setCanaryScale": {"weight": 20}}, "without a weight there would be no pods on trial"
    assert steps[3] == {"setCanaryScale": {"matchTrafficWeight": True}}
    found = [analysis(step) for step in steps if "analysis" in step]
    assert [(one.get("shadow-percent"), one["seconds"]) for one in found] == [("20", "600"), (None, "1"), (None, "1")]


def test_a_traffic_step_copies_nothing(graph: Recording) -> None:
    """Neither does one that was declared before the shadow step."""
    arguments = {item["name"]: item.get("value") for item in graph.one(ANALYSIS_TEMPLATE, CHECK).at("spec", "args")}
    assert arguments["shadow-percent"] == "0"


def test_the_check_answers_live_pods_behind_a_service(graph: Recording) -> None:
    service = graph.one(SERVICE, f"{MODEL}-shadow")
    assert service.at("spec", "selector") == {"app.kubernetes.io/name": CHECK}
    for metric in graph.one(ANALYSIS_TEMPLATE, CHECK).at("spec", "metrics"):
        job = metric["provider"]["job"]["spec"]
        assert job["activeDeadlineSeconds"] > 600
        assert job["template"]["metadata"]["labels"].items() >= service.at("spec", "selector").items()
        (container,) = job["template"]["spec"]["containers"]
        (port,) = container["ports"]
        assert port["name"] == service.at("spec", "ports", 0, "targetPort")
        variables = {item["name"]: item for item in container["env"]}
        assert variables["PORT"]["value"] == str(port["containerPort"])
        assert variables["HOST"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
        assert variables["CHECK_SHADOW_PERCENT"]["value"] == "{{args.shadow-percent}}"


def test_pods_know_the_services_and_no_more(graph: Recording) -> None:
    (container,) = graph.one(ROLLOUT, MODEL).at("spec", "template", "spec", "containers")
    (text,) = [item["value"] for item in container["env"] if item["name"] == "SHADOW_PEERS"]
    peers = ShadowPeers.model_validate_json(text)
    assert [peers.beacon, peers.ping, peers.pong] == [
        f"http://{MODEL}-{role}.models-dev.svc" for role in ("shadow", "ping", "pong")
    ]


def test_only_pods_of_the_endpoint_may_copy_and_ask(graph: Recording) -> None:
    server, check = graph.one(POLICY, f"serve-{MODEL}"), graph.one(POLICY, CHECK)
    assert {"to": [SERVERS, CHECKS], "ports": PORTS} in server.at("spec", "egress")
    (rule,) = server.at("spec", "ingress")
    assert SERVERS in rule["from"]
    assert check.at("spec", "ingress") == [{"from": [SERVERS], "ports": PORTS}]


def test_the_rules_find_nothing(graph: Recording) -> None:
    assert [str(violation) for violation in violations(graph.resources)] == []


def test_a_model_without_it_has_none_of_it(graphs: dict[str, Recording]) -> None:
    for graph in graphs.values():
        assert (
            "shadow"
            not in str([resource.plain for resource in graph.resources if resource.package == "kubernetes"]).lower()
        )
        assert f"{MODEL}-shadow" not in graph.of_type(SERVICE)
        assert graph.one(POLICY, CHECK).at("spec", "ingress") == []
