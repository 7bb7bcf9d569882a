"""`mlops new model` creates a model that passes the tests unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pipelines.cli.main import mlops
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.infra.recording import edit
from tests.models.test_every_model import check_model
from tests.sample_project import copy_as_forked


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = copy_as_forked(tmp_path / "fork", "requirements")
    monkeypatch.chdir(root)
    return Project(root)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_new_model_trains_on_its_sample_and_passes_the_gates(project: Project, task: str) -> None:
    done = CliRunner().invoke(mlops, ["new", "model", "churn", "--task", task])
    assert done.exit_code == 0, done.output
    checked = CliRunner().invoke(mlops, ["validate"])
    assert "declarations are valid" in checked.output
    check_model(Project(project.root), "churn")


ORDERS: list[dict[str, Any]] = [
    {"name": "order_id", "logicalType": "string", "required": True, "primaryKey": True},
    {"name": "ordered_on", "logicalType": "date", "required": True},
    {
        "name": "carrier",
        "logicalType": "string",
        "quality": [{"metric": "invalidValues", "arguments": {"validValues": ["north", "post"]}, "mustBe": 0}],
    },
    {"name": "note", "logicalType": "string"},
    {"name": "distance", "logicalType": "number"},
    {"name": "express", "logicalType": "boolean"},
    {"name": "customer_age", "logicalType": "integer", "classification": "restricted"},
    {"name": "late", "logicalType": "integer", "required": True},
]


def write_orders(project: Project) -> None:
    """Write a contract of orders, and a sample with missing values."""
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "urn:test:orders",
        "name": "orders",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "orders", "properties": ORDERS}],
    }
    project.contract_file("orders").write_text(yaml.safe_dump(document))
    rows = ["order_id,ordered_on,carrier,note,distance,express,customer_age,late"]
    for n in range(240):
        carrier, distance = ("north", "post", "")[n % 3], "" if n % 110 == 0 else f"{n * 7 % 97}.{n}"
        rows.append(
            f"o{n},2026-01-{n % 28 + 1:02},{carrier},,{distance},{('true', 'false')[n % 2]},30,{n * 7 % 97 // 49}"
        )
    (project.contracts_folder / "samples").mkdir(exist_ok=True)
    (project.contracts_folder / "samples" / "orders.csv").write_text("\n".join(rows) + "\n")


def new_model(*options: str) -> Result:
    return CliRunner().invoke(mlops, ["new", "model", "lateness", "--contract", "orders", *options])


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_new_model_on_a_contract_trains_on_its_sample_and_passes_the_gates(project: Project, task: str) -> None:
    write_orders(project)
    done = new_model("--target", "late", "--task", task)
    assert done.exit_code == 0, done.output
    assert "add a sample" not in done.output
    made = Project(project.root)
    assert made.dataset_names == ("diabetes-patients", "orders"), "no example is added"
    assert made.model("lateness").features == ("carrier", "distance", "express")
    assert "declarations are valid" in CliRunner().invoke(mlops, ["validate"]).output
    check_model(made, "lateness")


def test_a_new_model_on_a_contract_without_a_sample_asks_for_one(project: Project) -> None:
    write_orders(project)
    (project.contracts_folder / "samples" / "orders.csv").unlink()
    assert (
        "add a sample without personal data: data-contracts/samples/orders.csv" in new_model("--target", "late").output
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--target", "price"], "target: expected a column of orders (order_id, ordered_on, carrier"),
        ([], "give both, or neither"),
    ],
)
def test_a_target_that_the_contract_lacks_is_refused(project: Project, options: list[str], says: str) -> None:
    write_orders(project)
    done = new_model(*options)
    assert done.exit_code != 0
    assert says in f"{done.exception} {done.output}"
    assert not (project.models_folder / "lateness").exists()


def test_a_contract_without_a_column_to_predict_from_is_refused(project: Project) -> None:
    write_orders(project)
    file = project.contract_file("orders")
    kept = [each for each in ORDERS if each["name"] in ("order_id", "ordered_on", "note", "customer_age", "late")]
    document = yaml.safe_load(file.read_text())
    document["schema"][0]["properties"] = kept
    file.write_text(yaml.safe_dump(document))
    done = new_model("--target", "late")
    assert "orders has no column to predict late from" in str(done.exception)


def test_a_new_model_goes_live_in_minutes_rather_than_seconds(project: Project) -> None:
    """AWS applies a weight and finds a target healthy within a minute, so shorter steps would check nothing."""
    assert CliRunner().invoke(mlops, ["new", "model", "churn"]).exit_code == 0
    declared = Project(project.root).model("churn")
    assert len(declared.serving.rollout) > 1
    assert min(step.pause_seconds for step in declared.serving.rollout) >= 120
    assert declared.gates.soak.seconds >= 1800


def test_a_new_model_overwrites_nothing(project: Project) -> None:
    before = project.model_file("diabetes-progression").read_text()
    done = CliRunner().invoke(mlops, ["new", "model", "diabetes-progression"])
    assert isinstance(done.exception, MlopsError)
    assert "already exists" in str(done.exception)
    assert project.model_file("diabetes-progression").read_text() == before
    assert project.dataset_names == ("diabetes-patients",)


@pytest.mark.parametrize("name", ["Churn", "a", "../evil", "x" * 41, "churn_model"])
def test_a_name_that_kubernetes_or_s3_rejects_is_refused(project: Project, name: str) -> None:
    done = CliRunner().invoke(mlops, ["new", "model", name])
    assert isinstance(done.exception, MlopsError)
    assert "lower-case letters" in done.exception.fix
    assert list((project.root / "models").iterdir()) == [project.models_folder / "diabetes-progression"]


def add_environment(*options: str) -> Result:
    return CliRunner().invoke(mlops, ["new", "environment", *options])


def test_a_new_environment_is_valid_and_comes_after_the_one_it_promotes_from(project: Project) -> None:
    done = add_environment("qa", "--after", "staging", "--disposable")
    assert done.exit_code == 0, done.output
    assert "wrote Pulumi.qa.yaml\nwrote models/diabetes-progression/releases/qa.yaml\n" in done.output
    found = Project(project.root)
    settings = found.stack("qa").config.environment
    assert (settings.promotes_from, settings.cluster, settings.namespace) == ("staging", "mlops-qa", "models-qa")
    assert (settings.permissions_boundary, settings.disposable) == ("bootstrap/mlops-qa-boundary", True)
    assert found.release("diabetes-progression", "qa").bundle is None
    checked = CliRunner().invoke(mlops, ["validate"])
    assert "Promotion: dev → staging → prod; dev → staging → qa" in checked.output
    again = add_environment("qa", "--after", "staging")
    assert again.exception is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("qa", "--after", "none"), "unknown environment 'none'"),
        (("Qa", "--after", "dev"), "'Qa' is not a valid environment name"),
        (("staging", "--after", "dev"), "the environment staging exists"),
        (("preview", "--after", "dev"), "'preview' is used by the bootstrap"),
        (("dev-eu", "--after", "dev"), "neither begins with the other"),
        (("qa", "--after", "dev", "--cluster", "mlops-prod"), "the cluster mlops-prod belongs to prod"),
        (
            ("qa", "--after", "dev", "--cluster", "mlops-prod", "--namespace", "models-prod", "--share-cluster"),
            "the namespace models-prod of the cluster mlops-prod belongs to prod",
        ),
        (("qa", "--after", "dev", "--region", "cn-north-1"), "China is not supported"),
    ],
)
def test_an_environment_that_would_share_what_must_differ_is_refused(
    project: Project, options: tuple[str, ...], expected: str
) -> None:
    before = sorted(project.root.rglob("*.yaml"))
    done = add_environment(*options)
    assert isinstance(done.exception, MlopsError), done.output
    assert expected in str(done.exception)
    assert sorted(project.root.rglob("*.yaml")) == before, "nothing was written"


def test_a_new_last_environment_gets_owners_of_its_releases(project: Project) -> None:
    file = project.root / ".github" / "CODEOWNERS"
    file.parent.mkdir(exist_ok=True)
    file.write_text("* @acme/all\n/models/*/releases/prod.yaml @acme/approvers\n/Pulumi.prod.yaml @acme/approvers\n")
    done = add_environment("us-prod", "--after", "staging")
    assert "changed .github/CODEOWNERS" in done.output
    assert "/models/*/releases/us-prod.yaml @acme/approvers\n" in file.read_text()
    assert CliRunner().invoke(mlops, ["validate"]).exit_code == 0
    file.write_text("* @acme/all\n")
    assert "fix: mlops github owners" in str(CliRunner().invoke(mlops, ["validate"]).exception)
    assert CliRunner().invoke(mlops, ["github", "owners"]).output == "changed .github/CODEOWNERS\n"
    assert CliRunner().invoke(mlops, ["validate"]).exit_code == 0


def test_the_alarms_of_a_new_environment_are_answered(project: Project) -> None:
    file = project.root / ".github" / "workflows" / "respond.yml"
    file.parent.mkdir(parents=True, exist_ok=True)
    before = (
        """if: ${{ contains(fromJSON('["dev", "staging", "prod"]'), github.event.client_payload.environment) }}\n"""
    )
    file.write_text(before)
    done = add_environment("qa", "--after", "staging")
    assert "changed .github/workflows/respond.yml: it handles the alarms of qa" in done.output
    assert CliRunner().invoke(mlops, ["validate"]).exit_code == 0
    file.write_text(before)
    assert "expected qa in the list" in str(CliRunner().invoke(mlops, ["validate"]).exception)


def test_environments_may_share_a_cluster_if_told(project: Project) -> None:
    done = add_environment("qa", "--after", "dev", "--cluster", "mlops-dev", "--share-cluster")
    assert done.exit_code == 0, done.output


def test_a_withdrawal_names_what_it_takes_away(project: Project) -> None:
    words = ["withdraw", "diabetes-progression", "--env", "dev"]
    refused = CliRunner().invoke(mlops, words)
    assert "was never released in dev" in str(refused.exception)
    digest = "sha256:" + "a" * 64
    edit(project.release_file("diabetes-progression", "dev"), "bundle", value=digest)
    done = CliRunner().invoke(mlops, words)
    assert done.exit_code == 0, done.output
    found = Project(project.root).release("diabetes-progression", "dev")
    assert (found.bundle, found.replaces) == (None, digest)
    assert "is withdrawn already" in str(CliRunner().invoke(mlops, words).exception)
