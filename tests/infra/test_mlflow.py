"""Training jobs that copy their runs to an MLflow server."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from infra.policies import violations
from pipelines.declarations.environment import MlflowTracking
from pipelines.training.mlflow_mirror import checked_url
from tests.infra.recording import IMAGE, Recording, record_dev
from tests.infra.test_program import MODEL
from tests.sample_project import copy_as_forked

TRAIN = f"train-{MODEL}"
IN_CLUSTER: dict[str, Any] = {
    "url": "https://mlflow.tracking.svc:8443",
    "pod_port": 5000,
    "token": {"secret": "mlflow", "key": "token"},
}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return the graph of dev with an MLflow server of the cluster."""
    project = copy_as_forked(tmp_path_factory.mktemp("mlflow") / "project")
    return record_dev(project, mlflow=IN_CLUSTER, images={"training": IMAGE})


def variables(graph: Recording, job: str) -> dict[str, Any]:
    spec = graph.one("kubernetes:batch/v1:CronJob", job).at("spec", "jobTemplate", "spec", "template", "spec")
    return {item["name"]: item for item in spec["containers"][0]["env"]}


def test_only_training_jobs_know_the_server_and_its_token(graph: Recording) -> None:
    found = variables(graph, TRAIN)
    assert found["MLFLOW_TRACKING_URI"]["value"] == IN_CLUSTER["url"]
    assert found["MLFLOW_TRACKING_TOKEN"]["valueFrom"] == {
        "secretKeyRef": {"name": "mlflow", "key": "token", "optional": True}
    }
    knowing = [resource.name for resource in graph.resources if "MLFLOW" in str(resource.props)]
    assert TRAIN in knowing and all(name.startswith("train-") for name in knowing)


def test_the_job_may_connect_to_it(graph: Recording) -> None:
    policy = graph.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", TRAIN)
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tracking"}}}
    assert policy.at("spec", "egress")[-1] == {"to": [peer], "ports": [{"protocol": "TCP", "port": 5000}]}


def test_the_rules_find_nothing(graph: Recording) -> None:
    assert [str(violation) for violation in violations(graph.resources)] == []


@pytest.mark.parametrize(
    "url", ["https://mlflow.example.com", "https://a.svc:1/p", "http://127.0.0.1:5000", "http://localhost"]
)
def test_an_address_that_is_declared_is_one_that_the_job_accepts(url: str) -> None:
    assert checked_url(MlflowTracking(url=url).url).geturl() == url


@pytest.mark.parametrize(
    "url",
    ["http://mlflow.example.com", "https://me:word@mlflow.example.com", "http://127.0.0.1@example.com", "databricks"],
)
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        MlflowTracking(url=url)
