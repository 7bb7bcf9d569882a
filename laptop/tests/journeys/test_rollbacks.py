"""A release on trial is stopped by the workflow `rollback` while its deployment waits, and alarms are checked.

The workflows are the committed ones, run by the laptop's GitHub with the roles that they sign in with.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from laptop.demo.material import DATASET, MODEL, batches
from laptop.github.hosting import APPROVER, AUTHOR
from laptop.github.hub import Hub
from laptop.github.runner.results import WorkflowRun
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import log, one_environment
from pipelines.cli.main import mlops
from pipelines.cluster.rollouts import served_bundle
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from pipelines.registry.bundle_quarantine import quarantined
from pipelines.registry.ledger import Ledger
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONG_PAUSE = [{"weight": 10, "pause_seconds": 86_400}]
"""The longest that may be declared. A realistic laptop divides it, and it must still outlast the journey."""

WAIT_SECONDS = 300.0
RELEASE = f"release/dev/{MODEL}"


@dataclass
class Trial:
    """What happened.

    Attributes:
        hub: the laptop's GitHub.
        dev: the environment.
        first, second: the bundles.
        runs: name → run of a workflow.
    """

    hub: Hub
    dev: EnvironmentDescriptor
    first: str = ""
    second: str = ""
    runs: dict[str, WorkflowRun] | None = None

    def train(self, file: Path) -> None:
        """Land and ingest a file, which starts a training and ends in a pull request."""
        done = CliRunner().invoke(mlops, ["land", DATASET, str(file), "--env", "dev"])
        assert done.exception is None, done.output
        before = self.hub.newest()
        self.hub.dispatch(AUTHOR, "ingest.yml", inputs={"dataset": DATASET, "file": file.name})
        assert self.hub.wait("ingest", after=before).conclusion == "success"
        run = self.hub.wait("train", after=before, seconds=WAIT_SECONDS)
        assert run.conclusion == "success", log(run.jobs[-1])

    def merge(self) -> int:
        """Approve and merge the open release; return the number of the newest run before."""
        (request,) = [one for one in self.hub.pull_requests() if one.state == "OPEN" and one.head == RELEASE]
        for workflow in ("ci", "promote"):
            self.hub.wait(workflow, head_sha=request.head_sha, seconds=WAIT_SECONDS)
        self.hub.approve(APPROVER, request.number)
        before = self.hub.newest()
        self.hub.merge(APPROVER, request.number)
        return before

    def release(self, file: Path) -> None:
        """Train on a file, merge the release, and wait until it is deployed."""
        self.train(file)
        run = self.hub.wait("deploy", after=self.merge(), seconds=WAIT_SECONDS)
        assert run.conclusion == "success", log(run.jobs[-1])


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("rollbacks")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        edit(project.model_file(MODEL), "serving", "rollout", value=LONG_PAUSE)
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        here, hub = bring_up_dev(project, home, running, patch)
        made = Trial(hub, here.descriptor("dev"), runs={})
        with hub.serving():
            play(made, batches(Project(project.root), folder / "batches"))
        yield made


def play(trial: Trial, files: dict[str, Path]) -> None:
    hub, runs = trial.hub, trial.runs
    assert runs is not None
    trial.train(files["first"])
    before = trial.merge()
    runs["first"] = hub.wait("deploy", after=before, seconds=WAIT_SECONDS)
    trial.first = served_bundle(trial.dev.namespace, MODEL) or ""

    trial.train(files["later"])
    deployment = trial.merge()
    await_trial(trial)
    before = hub.newest()
    words = {"environment": "dev", "model": MODEL, "reason": "the canary answers nonsense", "stop_only": "true"}
    hub.dispatch(AUTHOR, "rollback.yml", inputs=words)
    runs["stop"] = hub.wait("rollback", after=before, seconds=WAIT_SECONDS)
    runs["overtaken"] = hub.wait("deploy", after=deployment, seconds=WAIT_SECONDS)
    runs["restoring"] = hub.wait("deploy", after=before, seconds=WAIT_SECONDS)

    before = hub.newest()
    hub.dispatch(AUTHOR, "rollback.yml", inputs=words)
    runs["nothing"] = hub.wait("rollback", after=before, seconds=WAIT_SECONDS)
    payload = {"model": MODEL, "environment": "dev", "reason": "error rate", "bundle": trial.second}
    for name, changed in (("late", {}), ("unknown", {"environment": "production"})):
        before = hub.newest()
        hub.repository_dispatch(AUTHOR, "breach", {**payload, **changed})
        runs[name] = hub.wait("respond", after=before, seconds=WAIT_SECONDS)


def await_trial(trial: Trial) -> None:
    """Wait until the second bundle gets its share of the traffic."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (served := served_bundle(trial.dev.namespace, MODEL)) == trial.first:
        assert time.monotonic() < deadline, "the second bundle was not applied"
        time.sleep(0.5)
    trial.second = served or ""


def run(trial: Trial, name: str) -> WorkflowRun:
    assert trial.runs is not None
    return trial.runs[name]


def test_the_bundle_on_trial_is_stopped_and_the_live_one_stays(trial: Trial) -> None:
    assert run(trial, "first").conclusion == "success"
    (job,) = run(trial, "stop").jobs
    assert job.conclusion == "success", log(job)
    said = log(job)
    assert f"stopping {trial.second}; {trial.first} stays" in said
    assert "over from `deploy` in run" in said
    assert "the trial is aborted" in said
    assert f"runs {trial.first}" in said
    assert served_bundle(trial.dev.namespace, MODEL) == trial.first
    assert set(quarantined(trial.dev, MODEL)) == {trial.second}


def test_the_waiting_deployment_records_nothing_and_names_who_took_over(trial: Trial) -> None:
    job = run(trial, "overtaken").job("deploy dev")
    assert job.conclusion == "failure"
    assert "another command changed it" in log(job) or "took over the traffic" in log(job)
    assert "traffic returned" not in log(job)
    entries = reversed(list(Ledger(trial.dev, MODEL).back()))
    assert [(e.event.action, e.event.result, e.event.to, e.event.reason) for e in entries] == [
        ("promotion", "verified", trial.first, ""),
        ("promotion", "failed", trial.second, "stopped: the canary answers nonsense"),
    ]


def test_the_commit_of_the_stop_is_deployed_without_a_change(trial: Trial) -> None:
    job = run(trial, "restoring").job("deploy dev")
    assert job.conclusion == "success", log(job)
    assert f"{MODEL} is already recorded as live in dev" in log(job)


def test_a_stop_without_a_trial_changes_nothing(trial: Trial) -> None:
    (job,) = run(trial, "nothing").jobs
    assert job.conclusion == "failure"
    assert f"no bundle of {MODEL} is on trial in dev" in log(job)


def test_an_alarm_about_a_stopped_bundle_needs_nothing(trial: Trial) -> None:
    late = run(trial, "late")
    assert late.conclusion == "success"
    assert f"{trial.second} is no longer live in dev; there is nothing to do" in log(late.job("respond"))


def test_an_alarm_about_an_unknown_environment_enters_none(trial: Trial) -> None:
    unknown = run(trial, "unknown")
    assert unknown.job("refuse").conclusion == "failure"
    assert "Pulumi.production.yaml does not exist" in log(unknown.job("refuse"))
    assert unknown.job("respond").conclusion == "skipped"
