"""The Spark server of an environment: there is one only if a contract needs it, and only jobs on its data reach it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.policies import RULES, violations
from tests.infra.recording import ACCOUNT, Recording, edit, record, release_everywhere
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

DATASET = "diabetes-patients"
MONITOR, TRAINING = f"monitor-{DATASET}", "train-diabetes-progression"
ON_SPARK = (f"data-contracts/{DATASET}.odcs.yaml", ("customProperties",), [{"property": "engine", "value": "spark"}])
CRON_JOB, DEPLOYMENT = "kubernetes:batch/v1:CronJob", "kubernetes:apps/v1:Deployment"
SERVICE, POLICY = "kubernetes:core/v1:Service", "kubernetes:networking.k8s.io/v1:NetworkPolicy"


def recorded(folder: Path, *edits: tuple[str, tuple[str, ...], Any]) -> Recording:
    project = release_everywhere(copy_as_forked(folder / "project"))
    for name, keys, value in edits:
        edit(project / name, *keys, value=value)
    return record(project, "dev")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recorded(tmp_path_factory.mktemp("spark"), ON_SPARK)


def variables(recording: Recording, job: str) -> dict[str, Any]:
    container = recording.one(CRON_JOB, job).at(
        "spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "env"
    )
    return {each["name"]: each.get("value") for each in container}


def test_without_such_a_contract_there_is_no_server(graphs: dict[str, Recording]) -> None:
    assert not graphs["dev"].of_type(DEPLOYMENT)
    assert not graphs["dev"].of_type("mlops:data:SparkServer")
    assert "SPARK_REMOTE" not in variables(graphs["dev"], MONITOR)


@pytest.mark.parametrize("job", [MONITOR, TRAINING])
def test_a_job_on_the_dataset_is_led_to_the_service_of_the_server(graph: Recording, job: str) -> None:
    assert variables(graph, job)["SPARK_REMOTE"] == "sc://spark.models-dev.svc:50051"
    service, server = graph.one(SERVICE, "spark"), graph.one(DEPLOYMENT, "spark")
    assert service.at("spec", "selector") == server.at("spec", "selector", "matchLabels")
    assert service.at("spec", "ports", 0, "port") == 50051
    assert server.at("spec", "template", "spec", "containers", 0, "ports", 0, "name") == "grpc"


def test_other_jobs_are_not(graph: Recording) -> None:
    others = [name for name in graph.of_type(CRON_JOB) if name not in (MONITOR, TRAINING)]
    assert others
    assert not [name for name in others if "SPARK_REMOTE" in variables(graph, name)]


def test_only_these_jobs_may_connect_to_the_server(graph: Recording) -> None:
    peers = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": job}}} for job in (MONITOR, TRAINING)]
    port = {"protocol": "TCP", "port": 50051}
    assert graph.one(POLICY, "spark").at("spec", "ingress") == [{"from": peers, "ports": [port]}]
    server = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "spark"}}}
    for job in (MONITOR, TRAINING):
        assert {"to": [server], "ports": [port]} in graph.one(POLICY, job).at("spec", "egress")


def test_a_training_job_has_room_for_the_rows_that_the_server_sorted(
    graph: Recording, graphs: dict[str, Recording]
) -> None:
    def scratch(recording: Recording) -> Any:
        pod = recording.one(CRON_JOB, TRAINING).at("spec", "jobTemplate", "spec", "template", "spec")
        return next(each["emptyDir"]["sizeLimit"] for each in pod["volumes"] if "emptyDir" in each)

    assert (scratch(graph), scratch(graphs["dev"])) == ("50Gi", "8Gi")


def test_without_monitors_of_datasets_the_training_job_has_its_server(tmp_path: Path) -> None:
    unmonitored = ("Pulumi.dev.yaml", ("config", "mlops:environment", "monitoring"), {"datasets": False})
    graph = recorded(tmp_path, ON_SPARK, unmonitored)
    peers = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": TRAINING}}}]
    assert graph.one(POLICY, "spark").at("spec", "ingress", 0, "from") == peers


def test_the_role_of_the_server_reads_the_tables_and_nothing_else(graph: Recording) -> None:
    statements = graph.policy("spark")
    assert {action for each in statements for action in each["Action"]} == {
        "kms:Decrypt",
        "s3:GetObject",
        "s3:ListBucket",
    }
    reads = [each["Resource"] for each in statements if "s3:GetObject" in each["Action"]]
    assert reads == [[f"arn:aws:s3:::mlops-dev-lake-{ACCOUNT}/mlops_dev/diabetes_patients/*"]]


def test_the_server_keeps_the_rules_of_pods(graph: Recording) -> None:
    assert violations(graph.resources, RULES) == []
    template = graph.one(DEPLOYMENT, "spark").at("spec", "template", "spec")
    assert template["automountServiceAccountToken"] is False


def test_a_server_elsewhere_is_named_by_the_environment(tmp_path: Path) -> None:
    elsewhere = (
        "Pulumi.dev.yaml",
        ("config", "mlops:environment", "spark"),
        {"remote": "sc://spark.example.com:15002"},
    )
    graph = recorded(tmp_path, ON_SPARK, elsewhere)
    assert not graph.of_type(DEPLOYMENT)
    assert variables(graph, MONITOR)["SPARK_REMOTE"] == "sc://spark.example.com:15002"
    ports = [port for rule in graph.one(POLICY, MONITOR).at("spec", "egress") for port in rule["ports"]]
    assert {"protocol": "TCP", "port": 15002} in ports
