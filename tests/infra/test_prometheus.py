"""Canary checks that read the counts of requests from a Prometheus."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.components.serving_identity import prometheus_egress
from infra.policies import violations
from pipelines.declarations.canary_settings import AUTHORIZATION_VARIABLE, CanarySettings
from pipelines.declarations.environment import Prometheus
from tests.infra.recording import Recording, edit, record, release_everywhere
from tests.infra.test_program import ANALYSIS_TEMPLATE, CHECK, MODEL, ROLLOUT
from tests.sample_project import copy_as_forked

IN_CLUSTER: dict[str, Any] = {
    "url": "https://prometheus.monitoring.svc:9443",
    "pod_port": 9090,
    "authorization": {"secret": "prometheus", "key": "authorization"},
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return the graph of dev with a Prometheus of the cluster."""
    project = release_everywhere(copy_as_forked(tmp_path_factory.mktemp("prometheus") / "project"))
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "monitoring", value={"prometheus": IN_CLUSTER})
    return record(project, "dev", descriptors={})


def test_the_checks_know_the_server_and_both_releases(graph: Recording) -> None:
    template = graph.one(ANALYSIS_TEMPLATE, CHECK)
    names = [item["name"] for item in template.at("spec", "args")]
    steps = graph.one(ROLLOUT, MODEL).at("spec", "strategy", "canary", "steps")
    (given,) = [step["analysis"]["args"] for step in steps if "analysis" in step][:1]
    assert sorted(item["name"] for item in given) == sorted(names)
    assert {item["name"]: item["valueFrom"] for item in given if item["name"].endswith("-hash")} == {
        "canary-hash": {"podTemplateHashValue": "Latest"},
        "live-hash": {"podTemplateHashValue": "Stable"},
    }
    for metric in template.at("spec", "metrics"):
        (container,) = metric["provider"]["job"]["spec"]["template"]["spec"]["containers"]
        assert container["command"][-4:] == [
            *("--canary-hash", "{{args.canary-hash}}", "--live-hash", "{{args.live-hash}}")
        ]
        variables = {item["name"]: item for item in container["env"]}
        settings = CanarySettings.model_validate_json(variables["CHECK_SETTINGS"]["value"])
        assert settings.prometheus == Prometheus.model_validate(IN_CLUSTER)
        assert variables[AUTHORIZATION_VARIABLE]["valueFrom"] == {
            "secretKeyRef": {"name": "prometheus", "key": "authorization", "optional": True}
        }


def test_the_check_may_connect_to_it(graph: Recording) -> None:
    policy = graph.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", CHECK)
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert policy.at("spec", "egress")[-1] == {"to": [peer], "ports": [{"protocol": "TCP", "port": 9090}]}


def test_it_may_scrape_the_pods(graph: Recording) -> None:
    policy = graph.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", f"serve-{MODEL}")
    (rule,) = policy.at("spec", "ingress")
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}} in rule["from"]


def test_the_rules_find_nothing(graph: Recording) -> None:
    assert [str(violation) for violation in violations(graph.resources)] == []


def test_an_image_that_was_pinned_before_reads_the_settings_of_an_environment_without_one() -> None:
    bounds = {"error_rate": 0.01, "p99_ms": 20.0, "error_increase": 0.1, "prediction_shift": 1.0}
    settings = CanarySettings.model_validate({"fail_if": "failed", "bounds": bounds})
    assert json.loads(settings.to_variable()) == {
        "fail_if": "failed",
        "golden_only": False,
        "wait_seconds": 0,
        "bounds": bounds,
    }
    changed = CanarySettings.model_validate({"fail_if": "failed", "bounds": {**bounds, "prediction_distance": 0.5}})
    assert json.loads(changed.to_variable())["bounds"] == {**bounds, "prediction_distance": 0.5}


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("https://prometheus.example.com", []),
        ("https://prometheus.example.com:9090/prefix", [9090]),
        ("http://10.0.0.1", [80]),
        ("http://prometheus.monitoring.svc", [80]),
        ("http://prometheus.monitoring.svc.cluster.local:9090", [9090]),
    ],
)
def test_egress_is_opened_for_what_the_url_names(url: str, ports: list[int]) -> None:
    rules = prometheus_egress(Prometheus(url=url))
    assert [port["port"] for rule in rules for port in rule["ports"]] == ports
    in_cluster = ".svc" in url
    assert all(("namespaceSelector" in peer) == in_cluster for rule in rules for peer in rule["to"])
    assert prometheus_egress(None) == []
