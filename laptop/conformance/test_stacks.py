"""Stacks: bootstrap, dev, staging and prod by the real CLI: up, unchanged, change, destroy, by each role."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from laptop.conformance.aws_site import PULUMI, AwsSite, aws_site
from laptop.conformance.control_plane import ControlPlane
from laptop.conformance.run_record import ROOT
from laptop.tests.cluster.running_cluster import wait_for
from tests.infra.recording import edit, release_everywhere

pytestmark = pytest.mark.needs(*PULUMI)

ENVIRONMENTS = ("dev", "staging", "prod")
MODELS = ("diabetes-progression", "diabetes-second")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane) -> Iterator[AwsSite]:
    """An account that was bootstrapped as the page says, and a clone with images and releases pinned everywhere."""
    with aws_site(tmp_path_factory.mktemp("site"), ROOT, control_plane) as site:
        site.bootstrap()
        release_everywhere(site.root)
        yield site


@pytest.fixture(scope="module")
def provisioned(site: AwsSite) -> AwsSite:
    """The site with every environment up, each brought up by its deploy role."""
    for environment in ENVIRONMENTS:
        applied(site, environment)
    return site


APPLY = (
    "import sys; from pathlib import Path; from pipelines.declarations.project import Project; "
    "from pipelines.targets.aws import AwsTarget; AwsTarget(Project(Path(sys.argv[1]))).apply('up', sys.argv[2])"
)
"""Program that applies an environment with its releases; `mlops up` refuses those that no gate has judged."""


def applied(site: AwsSite, environment: str) -> str:
    """Apply an environment by its deploy role, and return the output."""
    return site.done(sys.executable, "-c", APPLY, site.root, environment, who=environment)


def unchanged(site: AwsSite, stack: str, who: str, folder: str = "") -> None:
    """Fail if the real resources or the program differ from the state."""
    if not folder:
        site.use(stack, who)
    command = ("pulumi", "preview", "--stack", stack, "--refresh", "--expect-no-changes", "--non-interactive")
    site.done(*command, who=who, folder=folder)


def test_the_bootstrap_is_unchanged_after_its_state_moved_into_the_bucket(site: AwsSite) -> None:
    unchanged(site, "account", "operator", "infra/bootstrap")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_an_environment_is_unchanged_after_it_is_up(provisioned: AwsSite, environment: str) -> None:
    unchanged(provisioned, environment, "preview")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_rollouts_of_both_models_are_healthy(provisioned: AwsSite, environment: str) -> None:
    def phases() -> dict[str, str]:
        found = api.get(f"/apis/argoproj.io/v1alpha1/namespaces/models-{environment}/rollouts").json()["items"]
        return {item["metadata"]["name"]: item["status"].get("phase") for item in found}

    with provisioned.plane.client() as api:
        wait_for(lambda: phases() == dict.fromkeys(MODELS, "Healthy"), seconds=60)


def test_a_change_updates_what_it_names_and_the_second_up_changes_nothing(provisioned: AwsSite) -> None:
    edit(provisioned.root / "Pulumi.dev.yaml", "config", "mlops:environment", "cost_centre", value="another")
    text = applied(provisioned, "dev")
    assert " updated" in text
    assert " deleted" not in text
    unchanged(provisioned, "dev", "preview")


@pytest.mark.parametrize("who", ["staging", "prod", "preview", "images"])
def test_only_the_deploy_role_of_an_environment_may_change_it(provisioned: AwsSite, who: str) -> None:
    result = provisioned.run(sys.executable, "-c", APPLY, provisioned.root, "dev", who=who)
    assert result.returncode
    assert any(word in result.stdout for word in ("AccessDenied", "not authorized", "was denied")), result.stdout


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_preview_role_may_preview_every_environment(provisioned: AwsSite, environment: str) -> None:
    assert "unchanged" in provisioned.mlops("preview", "--env", environment, who="preview")


def test_prod_is_not_disposable(provisioned: AwsSite) -> None:
    text = provisioned.refused("destroy", "--env", "prod", "--confirm", "prod", who="operator")
    assert "prod is protected: expected `disposable: true` in Pulumi.prod.yaml" in text


def test_prod_is_protected(provisioned: AwsSite) -> None:
    """Pulumi refuses: what was deployed counts, not what the file says now."""
    file = provisioned.root / "Pulumi.prod.yaml"
    before = file.read_text()
    edit(file, "config", "mlops:environment", "disposable", value=True)
    try:
        text = provisioned.refused("destroy", "--env", "prod", "--confirm", "prod", who="operator")
    finally:
        file.write_text(before)
    assert "cannot be deleted" in text and "because it is protected" in " ".join(text.split()), text
    unchanged(provisioned, "prod", "preview")


def test_dev_is_destroyed_by_its_role_and_nothing_of_it_is_left(provisioned: AwsSite) -> None:
    provisioned.mlops("destroy", "--env", "dev", "--confirm", "dev", who="dev")
    buckets = [bucket["Name"] for bucket in provisioned.client("s3").list_buckets()["Buckets"]]
    assert not [name for name in buckets if name.startswith("mlops-dev-")]
    with provisioned.plane.client() as api:
        assert api.get("/api/v1/namespaces/models-dev").status_code == 404
