"""The Spark server of an environment: there is one only if a contract needs it, and only jobs on its data reach it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.components.spark_workers import WORKER_LABELS
from infra.policies import RULES, PlannedResource, violations
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.cluster_roles import SPARK_RIGHTS
from tests.infra.recording import ACCOUNT, Recording, edit, record, release_everywhere
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

DATASET = "diabetes-patients"
MONITOR, TRAINING = f"monitor-{DATASET}", "train-diabetes-progression"
ON_SPARK = (f"data-contracts/{DATASET}.odcs.yaml", ("customProperties",), [{"property": "engine", "value": "spark"}])
CRON_JOB, DEPLOYMENT = "kubernetes:batch/v1:CronJob", "kubernetes:apps/v1:Deployment"
SERVICE, POLICY = "kubernetes:core/v1:Service", "kubernetes:networking.k8s.io/v1:NetworkPolicy"


RBAC = "kubernetes:rbac.authorization.k8s.io/v1:"
SPARK = "models-dev-spark"
WORKERS = {"workers": 3, "cpu": "2", "memory": "8Gi"}
WITH_WORKERS = ("Pulumi.dev.yaml", ("config", "mlops:environment", "spark"), WORKERS)


def recorded(folder: Path, *edits: tuple[str, tuple[str, ...], Any]) -> Recording:
    project = release_everywhere(copy_as_forked(folder / "project"))
    for name, keys, value in edits:
        edit(project / name, *keys, value=value)
    return record(project, "dev")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recorded(tmp_path_factory.mktemp("spark"), ON_SPARK)


@pytest.fixture(scope="module")
def with_workers(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return recorded(tmp_path_factory.mktemp("workers"), ON_SPARK, WITH_WORKERS)


def variables(recording: Recording, job: str) -> dict[str, Any]:
    container = recording.one(CRON_JOB, job).at(
        "spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "env"
    )
    return {each["name"]: each.get("value") for each in container}


def pods(namespace: str, name: str) -> dict[str, Any]:
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}},
    }


def test_without_such_a_contract_there_is_no_server(graphs: dict[str, Recording]) -> None:
    assert not graphs["dev"].of_type(DEPLOYMENT)
    assert not graphs["dev"].of_type("mlops:data:SparkServer")
    assert "SPARK_REMOTE" not in variables(graphs["dev"], MONITOR)


@pytest.mark.parametrize("job", [MONITOR, TRAINING])
def test_a_job_on_the_dataset_is_led_to_the_service_of_the_server(graph: Recording, job: str) -> None:
    assert variables(graph, job)["SPARK_REMOTE"] == "sc://spark.models-dev-spark.svc:50051"
    service, server = graph.one(SERVICE, "spark"), graph.one(DEPLOYMENT, "spark")
    assert service.at("spec", "selector") == server.at("spec", "selector", "matchLabels")
    assert service.at("spec", "ports", 0, "port") == 50051
    assert server.at("spec", "template", "spec", "containers", 0, "ports", 0, "name") == "grpc"


def test_other_jobs_are_not(graph: Recording) -> None:
    others = [name for name in graph.of_type(CRON_JOB) if name not in (MONITOR, TRAINING)]
    assert others
    assert not [name for name in others if "SPARK_REMOTE" in variables(graph, name)]


def test_only_these_jobs_may_connect_to_the_server(graph: Recording) -> None:
    peers = [pods("models-dev", job) for job in (MONITOR, TRAINING)]
    port = {"protocol": "TCP", "port": 50051}
    assert graph.one(POLICY, "spark").at("spec", "ingress") == [{"from": peers, "ports": [port]}]
    server = pods(SPARK, "spark")
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
    assert graph.one(POLICY, "spark").at("spec", "ingress", 0, "from") == [pods("models-dev", TRAINING)]


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
    assert not graph.of_type(f"{RBAC}Role")
    assert not graph.of_type("kubernetes:core/v1:ResourceQuota")


def test_the_server_has_a_namespace_of_its_own_that_is_restricted_and_denies_all_traffic(graph: Recording) -> None:
    namespace = graph.one("kubernetes:core/v1:Namespace", "spark")
    assert namespace.at("metadata", "name") == SPARK
    assert namespace.at("metadata", "labels", "pod-security.kubernetes.io/enforce") == "restricted"
    inside = [one for one in graph.resources if one.at("metadata", "namespace") == SPARK]
    assert {one.name for one in inside} == {"spark", "default-deny"}
    trust = json.loads(graph.one("aws:iam/role:Role", "spark").props["assumeRolePolicy"])
    assert trust["Statement"][0]["Condition"]["StringEquals"]["aws:RequestTag/kubernetes-namespace"] == SPARK
    assert graph.one("aws:eks/podIdentityAssociation:PodIdentityAssociation", "spark").at("namespace") == SPARK


def test_a_server_that_no_contract_needs_any_more_can_go(tmp_path: Path) -> None:
    kept = ("Pulumi.dev.yaml", ("config", "mlops:environment", "disposable"), False)
    graph = recorded(tmp_path, ON_SPARK, kept)
    protected = {name: one.protect for name, one in graph.of_type("kubernetes:core/v1:Namespace").items()}
    assert protected == {"namespace": True, "spark": False}
    assert violations(graph.resources, RULES) == []


# With workers


def test_the_server_may_start_pods_in_its_namespace_and_do_nothing_else(with_workers: Recording) -> None:
    assert violations(with_workers.resources, RULES) == []
    role, binding = (with_workers.one(f"{RBAC}{kind}", "spark-worker") for kind in ("Role", "RoleBinding"))
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "deletecollection", "get"]}
    assert (role.at("metadata", "namespace"), role.at("rules")) == (SPARK, [rule])
    assert binding.at("subjects") == [{"kind": "ServiceAccount", "name": "spark", "namespace": SPARK}]
    accounts = with_workers.of_type("kubernetes:core/v1:ServiceAccount").values()
    here = {one.name for one in accounts if one.at("metadata", "namespace") == SPARK}
    assert here == {"spark", "spark-worker"}, "pods that the server starts can run as one of these only"
    template = with_workers.one(DEPLOYMENT, "spark").at("spec", "template", "spec")
    assert template["automountServiceAccountToken"] is True


def test_the_deploy_role_may_make_each_kind_of_object(with_workers: Recording) -> None:
    kinds = {one.type for one in with_workers.resources if one.at("metadata", "namespace") == SPARK}
    made = {(right.group, right.resource) for right in SPARK_RIGHTS if "create" in right.deploy}
    plural = {"NetworkPolicy": "networkpolicies"}
    asked = set()
    for kind in kinds:
        _, group, name = kind.split(":")
        group = group.partition("/")[0]
        asked.add(("" if group == "core" else group, plural.get(name, f"{name.lower()}s")))
    assert asked <= made
    assert made - asked == {("", "pods")}, "which it gives to the server"


def test_the_deploy_role_may_bind_the_role_before_it_exists(with_workers: Recording) -> None:
    """A preview creates no Role, and the API server reads the Role of a RoleBinding unless its caller may bind it."""
    (binding,) = with_workers.of_type(f"{RBAC}RoleBinding").values()
    assert binding.at("roleRef", "kind") == "Role"
    (roles,) = (right for right in SPARK_RIGHTS if right.resource == "roles")
    assert "bind" in roles.deploy
    assert "bind" not in roles.preview


def test_workers_read_what_the_server_reads(with_workers: Recording) -> None:
    assert with_workers.policy("spark-worker") == with_workers.policy("spark")


def test_only_the_server_and_its_workers_reach_each_other(with_workers: Recording) -> None:
    def side(policy: str, direction: str, port: int) -> list[dict[str, Any]]:
        rules = with_workers.one(POLICY, policy).at("spec", direction)
        found = [rule["from" if direction == "ingress" else "to"] for rule in rules if rule["ports"][0]["port"] == port]
        return [peer for peers in found for peer in peers]

    server = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "spark"}}}
    workers = {"podSelector": {"matchLabels": WORKER_LABELS}}
    assert with_workers.one(POLICY, "spark-worker").at("spec", "podSelector", "matchLabels") == WORKER_LABELS
    assert side("spark", "ingress", 50052) == [workers]
    assert side("spark", "egress", 50053) == [workers]
    assert side("spark-worker", "ingress", 50053) == [server, workers]
    assert side("spark-worker", "egress", 50052) == [server]
    assert side("spark-worker", "egress", 50053) == [workers]
    assert not side("spark-worker", "ingress", 50051)


def test_a_quota_bounds_what_all_workers_use(with_workers: Recording) -> None:
    quota = with_workers.one("kubernetes:core/v1:ResourceQuota", "spark-worker").at("spec", "hard")
    assert quota["pods"] == "13", "the server, and twice three workers for each of two jobs"
    assert (quota["limits.cpu"], quota["requests.memory"]) == ("26", "104Gi")


def test_a_worker_keeps_the_rules_of_pods(with_workers: Recording, tmp_path: Path) -> None:
    container = with_workers.one(DEPLOYMENT, "spark").at("spec", "template", "spec", "containers", 0)
    settings = {each["name"]: each.get("value") for each in container["env"]}
    template = json.loads(settings["SAIL_KUBERNETES__WORKER_POD_TEMPLATE"])
    (worker,) = template["spec"]["containers"]
    assert worker["image"] == settings["SAIL_KUBERNETES__IMAGE"] == container["image"]
    assert template["spec"]["serviceAccountName"] == settings["SAIL_KUBERNETES__WORKER_SERVICE_ACCOUNT_NAME"]
    labels = {**template["metadata"]["labels"], **WORKER_LABELS}
    props = {**template, "metadata": {"namespace": SPARK, "labels": labels}}
    pod = PlannedResource("kubernetes:core/v1:Pod", "worker", "urn:worker", props, False, "urn:server")
    found = violations([*with_workers.resources, pod], RULES)
    assert [each for each in found if each.urn == "urn:worker" and each.rule != "parent-is-component"] == []


def test_workers_fill_their_places_with_a_query_of_one_table(with_workers: Recording) -> None:
    """Sail fills one worker before it uses the next, so fewer parts would leave workers idle."""
    settings = {
        each["name"]: each.get("value")
        for each in with_workers.one(DEPLOYMENT, "spark").at("spec", "template", "spec", "containers", 0, "env")
    }
    places = int(settings["SAIL_CLUSTER__WORKER_TASK_SLOTS"]) * int(settings["SAIL_CLUSTER__WORKER_INITIAL_COUNT"])
    assert int(settings["SAIL_EXECUTION__DEFAULT_PARALLELISM"]) == places == 12
    assert int(settings["SAIL_CLUSTER__WORKER_MAX_COUNT"]) == 6


def test_workers_without_a_server_of_the_program_are_refused(tmp_path: Path) -> None:
    project = copy_as_forked(tmp_path / "project")
    elsewhere = {"remote": "sc://spark.example.com:15002", "workers": 2}
    edit(project / "Pulumi.dev.yaml", "config", "mlops:environment", "spark", value=elsewhere)
    with pytest.raises(MlopsError, match="workers: 0 with a server elsewhere"):
        Project(project).stack("dev")


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
