"""Rules over all environments: each mistake that AWS or the bootstrap would refuse later is found, at its key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.declarations.environment_rules import ACCOUNT_FILE, known_regions, problem_of_region
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.validation import describe_order, validate_project
from tests.infra.recording import edit
from tests.sample_project import copy_as_forked

SETTINGS = ("config", "mlops:environment")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(copy_as_forked(tmp_path, "infra/bootstrap/Pulumi.account.yaml"))


def problems(project: Project) -> str:
    with pytest.raises(MlopsError) as refused:
        validate_project(Project(project.root))
    return str(refused.value)


def setting(environment: str, key: str, value: object) -> Callable[[Path], None]:
    return lambda root: edit(root / f"Pulumi.{environment}.yaml", *SETTINGS, key, value=value)


def region(environment: str, value: str) -> Callable[[Path], None]:
    return lambda root: edit(root / f"Pulumi.{environment}.yaml", "config", "aws:region", value=value)


def added(name: str, **changes: object) -> Callable[[Path], None]:
    """Return a mistake: an environment like prod, with other settings."""

    def add(root: Path) -> None:
        file = root / f"Pulumi.{name}.yaml"
        file.write_text((root / "Pulumi.prod.yaml").read_text())
        wanted = {
            "promotes_from": "prod",
            "namespace": f"models-{name}",
            "permissions_boundary": f"bootstrap/mlops-{name}-boundary",
        }
        for key, value in {**wanted, **changes}.items():
            edit(file, *SETTINGS, key, value=value)
        for folder in root.glob("models/*/releases"):
            text = (folder / "prod.yaml").read_text().replace("environment: prod", f"environment: {name}")
            (folder / f"{name}.yaml").write_text(text)

    return add


def test_the_sample_is_valid_and_its_order_is_shown(project: Project) -> None:
    assert validate_project(project) == 8
    assert describe_order(project) == "dev → staging → prod"
    added("qa", promotes_from="staging")(project.root)
    validate_project(Project(project.root))
    assert describe_order(Project(project.root)) == "dev → staging → prod; dev → staging → qa"


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (added("dev-eu"), "Pulumi.dev-eu.yaml: expected a name by which IAM can tell it from 'dev'"),
        (added("preview"), "can tell it from 'preview': neither begins with the other, found 'preview'"),
        (
            added("a" * 34, namespace="models-a"),
            "characters for the names of project and environment: S3 allows 63, found 39 in 'mlops' and",
        ),
        (
            region("prod", "eu-wst-1"),
            "Pulumi.prod.yaml:3: config.aws:region: expected a region in which AWS offers EKS",
        ),
        (
            region("prod", "us-east-9"),
            "Pulumi.prod.yaml:3: config.aws:region: expected a region in which AWS offers EKS, found us-east-9",
        ),
        (
            setting("prod", "image_registry", {"account": "210987654321", "region": "us-east-9"}),
            "image_registry.region: expected a region in which AWS offers EKS, found us-east-9",
        ),
        (
            lambda root: edit(root / ACCOUNT_FILE, "config", "aws:region", value="us-east-9"),
            "Pulumi.account.yaml: config.aws:region: expected a region in which AWS offers EKS, found us-east-9",
        ),
        (region("prod", "cn-north-1"), "expected a region of the partition `aws`: China is not supported, found cn-"),
        (region("prod", "us-gov-west-1"), "GovCloud is not supported, found us-gov-west-1"),
        (
            region("prod", "us-east-1"),
            "image_registry: expected the region of the account's image repositories, eu-west",
        ),
        (
            added("qa", cluster="mlops-prod", namespace="models-prod"),
            "namespace: expected another namespace than that of prod, on the same cluster mlops-prod, found",
        ),
        (
            added("qa", cluster="mlops-prod", namespace="models-prod-spark"),
            "namespace: expected another namespace than that of a Spark server, on the same cluster mlops-prod, found",
        ),
        (setting("dev", "namespace", "kube-system"), "expected its own namespace: the cluster uses this one"),
        (setting("dev", "permissions_boundary", None), "fix: permissions_boundary: bootstrap/mlops-dev-boundary"),
        (
            added("stage", permissions_boundary="bootstrap/mlops-staging-boundary"),
            "expected the boundary that the bootstrap creates, bootstrap/mlops-stage-boundary",
        ),
        (setting("dev", "owner", "é<>"), "owner: expected text that matches"),
        (setting("dev", "load_balancer_cidrs", ["10.0.0.0/33"]), "found '10.0.0.0/33'"),
        (setting("dev", "dns_cidrs", ["fd00::10"]), "dns_cidrs"),
        (
            setting(
                "dev", "monitoring", {"github": {"repository": "acme/mlops", "api": "https://api.github.com.evil.org"}}
            ),
            "api: expected text that matches",  # EventBridge sends the token there
        ),
        (setting("dev", "cost_centre", " research"), "cost_centre: expected text that matches"),
        (
            lambda root: (root / "models/diabetes-progression/releases/qa.yaml").write_text("model: x\n"),
            "releases/qa.yaml: expected <environment>.yaml for one of dev, prod, staging, found qa.yaml",
        ),
        (
            lambda root: (root / "models/diabetes-progression/releases/dev.yaml").unlink(),
            "releases/dev.yaml: expected a release file for each environment, found no such file\n  fix: create",
        ),
        (
            lambda root: (root / "models/diabetes-progression/model.yaml").unlink(),
            "expected a model.yaml in models/diabetes-progression, found no such file\n  fix: restore",
        ),
    ],
)
def test_a_mistake_is_found_before_aws_refuses_it(
    project: Project, mistake: Callable[[Path], None], expected: str
) -> None:
    mistake(project.root)
    assert expected in problems(project)


def test_a_key_without_its_secrets_provider_is_found(project: Project) -> None:
    file = project.root / "Pulumi.dev.yaml"
    text = file.read_text().replace(
        "secretsprovider: awskms://alias/mlops-state?region=eu-west-1", "encryptedkey: QQ=="
    )
    file.write_text(text)
    assert "encryptedkey: expected a secretsprovider beside it, found none\n  fix: secretsprovider: awskms" in problems(
        project
    )
    file.write_text(text.replace("encryptedkey: QQ==", "secretsprovider: awskms://alias/mlops-state?region=us-east-1"))
    assert "secretsprovider: expected the key of the bootstrap, in eu-west-1" in problems(project)


@pytest.mark.parametrize(
    "name",
    ["models", "models/diabetes-progression/releases", "models/diabetes-progression/releases/dev.yaml"],
)
def test_a_link_among_the_declarations_is_refused_everywhere(project: Project, name: str, tmp_path: Path) -> None:
    path, elsewhere = project.root / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert f"{path}: expected a file or folder, found a symbolic link" in problems(project)
    if name != "models":
        with pytest.raises(MlopsError, match="found a symbolic link"):
            project.release("diabetes-progression", "dev")


@pytest.mark.parametrize("name", ["Pulumi.prod.yaml", "data-contracts/diabetes-patients.odcs.yaml"])
def test_a_configuration_or_contract_behind_a_link_is_refused(project: Project, name: str, tmp_path: Path) -> None:
    path, elsewhere = project.root / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert "found a symbolic link" in problems(project)


def test_regions_of_the_ordinary_partition_are_known() -> None:
    assert {"eu-west-1", "us-east-1", "ap-southeast-2"} <= known_regions()
    assert problem_of_region("eu-central-1") is None
