"""A live model and an environment are removed as the pages say: withdrawn or torn down first, then by pull request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from laptop import stack_operations
from laptop.demo.material import DATASET, MODEL, batches
from laptop.github.hosting import APPROVER, AUTHOR, REPOSITORY
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_declared_changes import checks, propose
from laptop.tests.journeys.test_journeys import Story, client, git, log, one_environment
from pipelines.cluster.rollouts import served_bundle
from pipelines.data.landing import upload
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.environment_starter import NewEnvironment, start_environment
from pipelines.declarations.project import Project
from pipelines.declarations.starter import start_model, write_withdrawal
from pipelines.github.alarm_workflow import write_alarm_environments
from pipelines.github.release_owners import write_release_owners
from pipelines.promotion.images import pin_images
from pipelines.registry.ledger import Ledger
from pipelines.targets.workloads import run_ingest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ALL_PASS = {"test": "success", "preview": "success", "gates": "success"}
QA = NewEnvironment("qa", "dev", cluster="mlops-qa", namespace="models-qa", region="us-east-2", disposable=True)


@dataclass
class Removal:
    """State before and after a model and an environment were removed.

    Attributes:
        story: the journey.
        dev: the environment in which the model was live.
        bundle: what was live.
        served: what the Rollout of the model serves after its withdrawal.
        roles: names of the account's roles before and after qa is gone.
    """

    story: Story
    dev: EnvironmentDescriptor
    bundle: str | None = None
    served: str | None = ""
    roles: tuple[set[str], set[str]] = (set(), set())


@pytest.fixture(scope="module")
def removal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Removal]:
    folder = tmp_path_factory.mktemp("removals")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        start_model(project, "churn", "classification", "ml-platform")  # an image needs at least one model
        start_environment(Project(project.root), QA)
        write_release_owners(Project(project.root))
        write_alarm_environments(Project(project.root))
        project = Project(project.root)
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        here, hub = bring_up_dev(project, home, running, patch)
        story = Story(hub, project.root, hub.clone(folder / "clone", AUTHOR))
        made = Removal(story, here.descriptor("dev"))
        upload(made.dev, DATASET, batches(project, folder / "batches")["first"])
        run_ingest(here, "dev", DATASET, lambda _: None)
        play(made, home)
        yield made


def play(removal: Removal, home: Path) -> None:
    story, hub = removal.story, removal.story.hub
    hub.dispatch(AUTHOR, "train.yml", inputs={"model": MODEL})
    hub.dispatch(AUTHOR, "deploy.yml", inputs={"environment": "qa", "create": "true"})
    story.play("trained")
    merge(story, f"release/dev/{MODEL}", "released")
    removal.bundle = served_bundle(removal.dev.namespace, MODEL)

    propose(story, "too-soon", remove_model)
    propose(story, "withdraw", lambda root: write_withdrawal(Project(root), MODEL, "dev"))
    story.play("withdrawal proposed")
    merge(story, "withdraw", "withdrawn")
    removal.served = served_bundle(removal.dev.namespace, MODEL)

    hub.dispatch(AUTHOR, "teardown.yml", inputs={"environment": "qa", "confirmation": "qa"})
    story.play("torn down")
    propose(story, "no-model", remove_model)
    propose(story, "no-qa", remove_qa)
    story.play("removals proposed")
    merge(story, "no-model", "model removed")
    merge(story, "no-qa", "qa removed")
    git(story.clone, "fetch", "--quiet")
    git(story.clone, "switch", "--quiet", "--detach", "origin/main")
    before = role_names()
    stack_operations.bootstrap(story.clone, home, REPOSITORY)
    removal.roles = before, role_names()
    hub.dispatch(AUTHOR, "audit.yml")
    story.play("audited")


def remove_model(root: Path) -> None:
    shutil.rmtree(root / "models" / MODEL)
    (root / "tests" / "models" / "test_diabetes_progression.py").unlink()


def remove_qa(root: Path) -> None:
    (root / "Pulumi.qa.yaml").unlink()
    for release in root.glob("models/*/releases/qa.yaml"):
        release.unlink()
    write_alarm_environments(Project(root))


def merge(story: Story, head: str, act: str) -> None:
    """Approve and merge a pull request, and run what its merge starts."""
    story.hub.approve(APPROVER, story.pulls[head].number)
    story.hub.merge(APPROVER, story.pulls[head].number)
    story.play(act)


def role_names() -> set[str]:
    pages = client("iam").get_paginator("list_roles").paginate()
    return {role["RoleName"] for page in pages for role in page["Roles"]}


def test_an_environment_is_created_without_what_was_not_judged_yet(removal: Removal) -> None:
    job = removal.story.run("trained", "deploy").job("deploy qa")
    assert job.conclusion == "success", log(job)
    assert "qa is created, without images and releases: the gates judge them now" in log(job)


def test_a_live_model_cannot_be_removed_with_its_folder(removal: Removal) -> None:
    assert removal.bundle is not None
    gates = log(removal.story.run("withdrawal proposed", "promote", of="too-soon").job("gates"))
    assert f"is removed, but {MODEL} is live in dev with {removal.bundle}" in gates
    assert "the required check 'gates' ended in failure" in removal.story.blockers["too-soon"]


def test_a_withdrawal_passes_its_checks_and_removes_the_endpoint(removal: Removal) -> None:
    story = removal.story
    assert checks(story, "withdrawal proposed", "withdraw") == ALL_PASS
    deployed = story.run("withdrawn", "deploy")
    assert deployed.conclusion == "success", "\n".join(log(job)[-3000:] for job in deployed.jobs if job.log)
    assert removal.served is None
    head = Ledger(removal.dev, MODEL).head()
    assert head is not None
    assert (head.event.action, head.event.result, head.event.before) == ("withdrawal", "withdrawn", removal.bundle)
    assert head.event.approvers == (APPROVER,)


def test_a_withdrawn_model_is_removed_by_a_pull_request_that_passes_its_checks(removal: Removal) -> None:
    assert checks(removal.story, "removals proposed", "no-model") == ALL_PASS
    deployed = removal.story.run("model removed", "deploy")
    assert deployed.conclusion == "success", "\n".join(log(job)[-3000:] for job in deployed.jobs if job.log)


def test_an_environment_is_removed_after_its_teardown(removal: Removal) -> None:
    torn_down = removal.story.run("torn down", "teardown")
    assert torn_down.conclusion == "success", log(torn_down.job("teardown qa"))
    assert checks(removal.story, "removals proposed", "no-qa") == ALL_PASS
    before, after = removal.roles
    assert "mlops-deploy-qa" in before
    assert {name for name in after if "-qa" in name} == set()
    assert "mlops-deploy-dev" in after


def test_git_and_what_is_left_agree(removal: Removal) -> None:
    (audit,) = [job for job in removal.story.run("audited", "audit").jobs if job.name.startswith("audit ")]
    assert (audit.name, audit.conclusion) == ("audit dev", "success"), log(audit)
