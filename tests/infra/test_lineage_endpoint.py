"""Jobs that copy their OpenLineage events to an HTTP endpoint of the environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from infra.components.job_component import lineage_variables
from infra.policies import violations
from pipelines.data import lineage as module
from pipelines.data.lineage import lineage
from pipelines.declarations.environment import LineageEndpoint
from tests.http_responder import http_server
from tests.infra.recording import IMAGE, Recording, record_dev
from tests.pipelines.registry.chains import offline_environment
from tests.sample_project import copy_as_forked

IN_CLUSTER: dict[str, Any] = {
    "url": "https://marquez.lineage.svc:8443",
    "endpoint": "api/v2/lineage",
    "pod_port": 5000,
    "api_key": {"secret": "marquez", "key": "token"},
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return the graph of dev with an endpoint in the cluster."""
    project = copy_as_forked(tmp_path_factory.mktemp("lineage") / "project")
    return record_dev(project, openlineage=IN_CLUSTER, images={"training": IMAGE})


def jobs(graph: Recording) -> Iterator[tuple[str, dict[str, Any]]]:
    for job in graph.of_type("kubernetes:batch/v1:CronJob").values():
        spec = job.at("spec", "jobTemplate", "spec", "template", "spec")
        yield job.name, {item["name"]: item for item in spec["containers"][0]["env"]}


def test_every_job_knows_the_endpoint_and_its_key(graph: Recording) -> None:
    found = dict(jobs(graph))
    assert {name.partition("-")[0] for name in found} >= {"ingest", "train", "monitor", "maintain"}
    for variables in found.values():
        assert variables["OPENLINEAGE_URL"]["value"] == IN_CLUSTER["url"]
        assert variables["OPENLINEAGE_ENDPOINT"]["value"] == IN_CLUSTER["endpoint"]
        reference = {"name": "marquez", "key": "token", "optional": True}
        assert variables["OPENLINEAGE_API_KEY"]["valueFrom"] == {"secretKeyRef": reference}


def test_every_job_may_connect_to_it(graph: Recording) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "lineage"}}}
    for name, _ in jobs(graph):
        policy = graph.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", name)
        assert {"to": [peer], "ports": [{"protocol": "TCP", "port": 5000}]} in policy.at("spec", "egress"), name


def test_the_rules_find_nothing(graph: Recording) -> None:
    assert [str(violation) for violation in violations(graph.resources)] == []


def test_the_variables_lead_the_events_of_a_job_to_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, str, dict[str, Any]]] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, bytes]:
        received.append((method, path, json.loads(body)))
        return 201, b""

    monkeypatch.setattr("pipelines.data.lineage.store.put", lambda *_, **__: None)
    monkeypatch.setattr(module, "s3", lambda _: None)
    with http_server(answer) as url:
        for variable in lineage_variables(LineageEndpoint(url=url, endpoint="api/v2/lineage")):
            monkeypatch.setenv(variable["name"], variable["value"])
        with lineage(offline_environment(), "ingest-visits", [], []):
            pass
    assert [(method, path) for method, path, _ in received] == [("POST", "/api/v2/lineage")] * 2
    assert [event["eventType"] for _, _, event in received] == ["START", "COMPLETE"]
    assert {event["job"]["name"] for _, _, event in received} == {"ingest-visits"}


@pytest.mark.parametrize(
    "declared",
    [
        {"url": "ftp://marquez.example.com"},
        {"url": "https://me:word@marquez.example.com"},
        {"url": "https://marquez.example.com", "endpoint": "/api"},
        {"url": "https://marquez.example.com", "endpoint": "api?key=1"},
        {"url": "http://marquez.lineage.svc:5000", "api_key": IN_CLUSTER["api_key"]},
    ],
)
def test_an_endpoint_that_leaks_a_key_or_is_none_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LineageEndpoint.model_validate(declared)


def test_an_endpoint_without_a_key_may_be_http() -> None:
    assert LineageEndpoint(url="http://marquez.lineage.svc:5000").endpoint == "api/v1/lineage"
