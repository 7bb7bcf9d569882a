"""Models and environments come and go by pull request: a change passes the committed checks, or is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from laptop.demo.material import MODEL
from laptop.github.hosting import APPROVER, AUTHOR
from laptop.tests.journeys.laptop_of_journeys import own_home
from laptop.tests.journeys.test_journeys import Story, begin, git, log, one_environment
from pipelines.declarations.environment_starter import NewEnvironment, start_environment
from pipelines.declarations.project import Project
from pipelines.declarations.starter import start_model
from pipelines.github.alarm_workflow import write_alarm_environments
from pipelines.github.release_owners import write_release_owners

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QA = NewEnvironment("qa", "dev", cluster="mlops-qa", namespace="models-qa", region="us-east-2", disposable=True)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("declared")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        yield play_all(begin(project, home, folder, patch))


def play_all(story: Story) -> Story:
    propose(story, "churn", lambda root: start_model(Project(root), "churn", "classification", "ml-platform"))
    propose(story, "qa", start_qa)
    propose(story, "gone", lambda root: (root / "Pulumi.dev.yaml").unlink())
    propose(story, "link", link_a_release)
    story.play("proposed")

    story.hub.approve(APPROVER, story.pulls["churn"].number)
    story.hub.merge(APPROVER, story.pulls["churn"].number)
    story.play("added")
    propose(story, "no-churn", remove_churn)
    story.play("to remove")
    return story


def propose(story: Story, name: str, change: Callable[[Path], object]) -> None:
    """Open a pull request with a change that may add files."""

    def staged(root: Path) -> None:
        change(root)
        git(root, "add", "--all")

    story.branch(name, staged)
    git(story.clone, "push", "--quiet", "origin", name)
    story.hub.open(AUTHOR, name, name)


def start_qa(root: Path) -> None:
    """Write what `mlops new environment` writes."""
    start_environment(Project(root), QA)
    write_release_owners(Project(root))
    write_alarm_environments(Project(root))


def link_a_release(root: Path) -> None:
    releases = root / "models" / MODEL / "releases"
    releases.rename(root / "elsewhere")
    releases.symlink_to(root / "elsewhere")


def remove_churn(root: Path) -> None:
    shutil.rmtree(root / "models" / "churn")  # the contract goes in later pull requests: docs/data-scientist.md


def checks(story: Story, act: str, head: str) -> dict[str, str]:
    """Return the conclusions of the jobs of a pull request's checks."""
    runs = [story.run(act, name, of=head) for name in ("ci", "promote")]
    return {job.name: job.conclusion for run in runs for job in run.jobs if job.name in ("test", "preview", "gates")}


ALL_PASS = {"test": "success", "preview": "success", "gates": "success"}


def test_a_model_is_added_by_a_pull_request_that_passes_its_checks(story: Story) -> None:
    assert checks(story, "proposed", "churn") == ALL_PASS
    gates = log(story.run("proposed", "promote", of="churn").job("gates"))
    assert "churn in dev: releases nothing" in gates
    deployed = story.run("added", "deploy")
    assert deployed.conclusion == "success", "\n".join(log(job)[-3000:] for job in deployed.jobs if job.log)


def test_an_environment_is_added_by_a_pull_request_that_passes_its_checks(story: Story) -> None:
    assert checks(story, "proposed", "qa") == ALL_PASS
    (comment,) = story.comments["qa"]
    assert "qa is new, so there is nothing to compare with" in comment["body"]


def test_a_model_that_is_not_live_is_removed_by_a_pull_request_that_passes_its_checks(story: Story) -> None:
    assert checks(story, "to remove", "no-churn") == ALL_PASS
    gates = log(story.run("to remove", "promote", of="no-churn").job("gates"))
    assert "churn in dev: nothing is live, so the file may go" in gates


def test_a_running_environment_does_not_lose_its_configuration(story: Story) -> None:
    assert checks(story, "proposed", "gone")["test"] == "failure"


def test_a_release_behind_a_link_is_refused(story: Story) -> None:
    assert checks(story, "proposed", "link")["test"] == "failure"
    assert "found a symbolic link" in log(story.run("proposed", "ci", of="link").job("test"))
