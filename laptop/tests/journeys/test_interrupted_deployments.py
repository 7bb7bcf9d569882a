"""Faults hit deployments and rollbacks that wait, with each delay doubled: git, ledger and cluster agree in the end.

The laptop is always realistic here, and its faults are real: the API server stops listening, answers 401, 403, 409 or
429, or ends watches; S3 and ECR throttle; GitHub answers 503, or 401 to the app. Faults that last make a deployment
fail, and it says what to do. Short ones do not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from lightkube.resources.core_v1 import Pod

from laptop.demo.journey import errors_of, waits_for_image
from laptop.demo.material import MODEL, batches
from laptop.faults import Faults
from laptop.github.hosting import APPROVER, AUTHOR
from laptop.github.hub import Hub
from laptop.github.runner.results import WorkflowRun
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import edit as replace
from laptop.tests.journeys.test_journeys import log, one_environment
from laptop.tests.journeys.test_rollbacks import Trial
from pipelines.cli.main import mlops
from pipelines.cluster import load_balancer
from pipelines.cluster.connection import connect
from pipelines.cluster.rollouts import served_bundle
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github import outages
from pipelines.promotion.images import pin_images
from pipelines.promotion.pod_endpoints import running_bundles
from pipelines.registry.ledger import Ledger
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SCALE, FACTOR = 100.0, 2.0
"""Time runs this fast, and each delay is this much longer than on AWS."""

WAIT_SECONDS = 600.0
FOR_LONG = 3600.0
SHORT = 1.2
"""Seconds of a fault that the product outlasts."""

PATIENCE = 5.0
"""Seconds for which the product repeats requests here, instead of 15 to 60."""

SHORT_FAULTS = (
    *("watch-closed", "api-429", "s3-throttled", "api-restart"),
    *("s3-slow", "api-401", "s3-down", "api-409"),
)
"""Between two faults of the Kubernetes API there is one of S3, because the API must answer within `PATIENCE`."""

CHECK_SECONDS = 20
"""Duration of the canary check, whose clock does not run faster."""

FIRST_REASON, SECOND_REASON = "the median is wrong", "the error rate is 9 %"


@dataclass
class Interrupted:
    """State of the journey.

    Attributes:
        hub: the laptop's GitHub.
        dev: the environment.
        faults: faults of the laptop.
        first, second: the bundles.
        runs: name → run of a workflow.
        answers: name → what was found.
    """

    hub: Hub
    dev: EnvironmentDescriptor
    faults: Faults
    first: str = ""
    second: str = ""
    runs: dict[str, WorkflowRun] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)

    def deploy(self) -> int:
        """Start the workflow `deploy` by dispatch; return the number of the newest run before."""
        before = self.hub.newest()
        self.hub.dispatch(AUTHOR, "deploy.yml", inputs={"environment": "dev"})
        return before

    def roll_back(self, person: str, reason: str) -> int:
        """Start the workflow `rollback` by dispatch; return the number of the newest run before."""
        before = self.hub.newest()
        inputs = {"environment": "dev", "model": MODEL, "reason": reason, "stop_only": "false"}
        self.hub.dispatch(person, "rollback.yml", inputs=inputs)
        return before

    def wait(self, name: str, workflow: str, after: int) -> None:
        self.runs[name] = self.hub.wait(workflow, after=after, seconds=WAIT_SECONDS)

    def audit(self, name: str) -> None:
        before = self.hub.newest()
        self.hub.dispatch(AUTHOR, "audit.yml")
        self.wait(name, "audit", before)

    def until_said(self, workflow: str, after: int, words: str) -> None:
        """Wait until a job of a workflow that runs says some words, or the workflow has ended."""

        def said() -> bool:
            numbers = [
                run["number"]
                for run in self.hub.server.state.peek()["runs"].values()
                if run["workflow"] == workflow and run["number"] > after
            ]
            if not numbers:
                return False
            folder = self.hub.server.run_folder(min(numbers))
            found = any(words in file.read_text(errors="replace") for file in folder.glob("*/*/log.txt"))
            return found or self.hub.server.state.peek()["runs"][str(min(numbers))]["status"] == "completed"

        await_true(said, f"{workflow} does not say {words!r}")

    def note(self, when: str) -> None:
        """Note which bundle git, the ledger, the Rollout and the ready pods name."""
        file = self.hub.server.repository.read_file("main", f"models/{MODEL}/releases/dev.yaml") or b""
        head = Ledger(self.dev, MODEL).head()
        self.answers |= {
            f"git of {when}": str(yaml.safe_load(file)["bundle"]),
            f"live of {when}": str(head.event.live if head is not None else None),
            f"served of {when}": str(served_bundle(self.dev.namespace, MODEL)),
        }

    def error(self, name: str) -> str:
        """Return the errors of a run, on one line."""
        return " ".join(" ".join(errors_of(self.runs[name])).split())

    def said(self, name: str) -> str:
        return "\n".join(log(job) for job in self.runs[name].jobs if job.log is not None)


def await_true(holds: Callable[[], bool], problem: str) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < until, problem
        time.sleep(0.05)


def shorten_patience(root: Path) -> None:
    """Repeat requests for seconds instead of a minute."""
    for file, name in (
        ("pipelines/cluster/connection.py", "PATIENCE_SECONDS"),
        ("pipelines/cluster/connection.py", "RENEWAL_SECONDS"),
        ("pipelines/github/outages.py", "OUTAGE_SECONDS"),
    ):
        replace(file, rf"(?m)^{name} = .*", f"{name} = {PATIENCE}")(root)


def declare_model(project: Project) -> None:
    """Let a release wait for long enough, and no gate refuse it because this machine is busy."""
    model = project.model_file(MODEL)
    edit(model, "gates", "champion", "maximum_regression", value=100.0)
    edit(model, "gates", "latency", "p99_ms", value=5000.0)
    edit(model, "serving", "rollout", value=[{"weight": 50, "pause_seconds": CHECK_SECONDS}])


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    folder = tmp_path_factory.mktemp("interrupted-deployments")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        shorten_patience(project.root)
        declare_model(project)
        pin_images(project, "dev", local_digests(project))
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch, scale=SCALE, factor=FACTOR)
        here, hub = bring_up_dev(Project(project.root), home, running, patch)
        made = Interrupted(hub, here.descriptor("dev"), Faults(home))
        files = batches(Project(project.root), folder / "batches")
        with hub.serving():
            trial = Trial(hub, made.dev, runs={})
            release_the_first(made, trial, files["first"])
            release_the_second(made, trial, files["later"])
            made.dev = here.descriptor("dev")  # with the endpoint
            roll_the_second_back(made, folder / "clone")
        yield made


def release_the_first(story: Interrupted, trial: Trial, file: Path) -> None:
    """Let each fault that lasts fail one deployment, which waits for pods or for the load balancer."""
    trial.train(file)
    story.faults.inject("load-balancer-stuck", FOR_LONG)
    story.faults.inject("ecr-throttled", FOR_LONG)
    before = trial.merge()

    def waits() -> bool:
        with connect(story.dev.namespace) as client:
            return any(waits_for_image(pod) for pod in client.list(Pod))

    await_true(waits, "no pod waits for its image")
    story.faults.inject("ecr-throttled", -1)
    for fault in ("api-401", "api-restart"):
        story.until_said("deploy", before, f"rollout {MODEL}: ")
        story.faults.inject(fault, FOR_LONG)
        story.wait(fault, "deploy", before)
        story.faults.inject(fault, -1)
        await_true(lambda: answers(story), "the API does not answer")
        before = story.deploy()
    story.until_said("deploy", before, "mlops deploy")
    story.faults.inject("github-down", FOR_LONG)
    story.wait("github-down", "deploy", before)
    story.faults.inject("github-down", -1)
    story.faults.inject("load-balancer-stuck", -1)
    story.wait("first", "deploy", story.deploy())
    story.note("the first")
    story.first = story.answers["served of the first"]


def answers(story: Interrupted) -> bool:
    """Return whether the API answers at once."""
    try:
        with connect(story.dev.namespace) as client:
            list(client.list(Pod))
    except (MlopsError, OSError):
        return False
    return True


def release_the_second(story: Interrupted, trial: Trial, file: Path) -> None:
    """Let a fault fail a deployment whose canary has traffic, then let short faults hit its next attempt."""
    trial.train(file)
    before = trial.merge()
    story.until_said("deploy", before, "50 % of traffic to the new pods")
    story.faults.inject("api-403", FOR_LONG)
    story.wait("api-403", "deploy", before)
    story.faults.inject("api-403", -1)
    story.audit("audit of the failure")
    before = story.deploy()
    story.until_said("deploy", before, f"rollout {MODEL}: ")
    for fault in SHORT_FAULTS:
        story.faults.inject(fault, SHORT)
        await_true(lambda: not story.faults.active(), "the fault does not end")
    story.wait("second", "deploy", before)
    assert story.runs["second"].conclusion == "success", story.said("second")
    story.note("the second")
    story.second = story.answers["served of the second"]


def roll_the_second_back(story: Interrupted, clone: Path) -> None:
    """Begin while GitHub is down, fail while the app is refused, then let two people ask at once."""
    story.hub.clone(clone, AUTHOR)
    with pytest.MonkeyPatch.context() as narrow:
        for name, value in story.hub.environ(AUTHOR).items():
            narrow.setenv(name, value if name != "PATH" else os.pathsep.join((value, os.environ["PATH"])))
        narrow.chdir(clone)
        narrow.setattr(outages, "OUTAGE_SECONDS", SHORT)
        narrow.setattr(load_balancer, "NAME_SECONDS", SHORT)  # names of the laptop resolve in jobs only
        story.faults.inject("github-down", FOR_LONG)
        done = CliRunner().invoke(mlops, ["rollback", MODEL, "--env", "dev", "--reason", FIRST_REASON])
        story.answers["rollback without GitHub"] = f"{done.output}{done.exception}"
    story.note("the rollback without GitHub")
    story.faults.inject("github-down", -1)
    story.faults.inject("app-token-revoked", FOR_LONG)
    story.wait("app refused", "rollback", story.roll_back(AUTHOR, FIRST_REASON))
    story.faults.inject("app-token-revoked", -1)
    before = story.roll_back(AUTHOR, FIRST_REASON)
    story.roll_back(APPROVER, SECOND_REASON)
    story.until_said("rollback", before, "the earlier bundle loads")
    for fault in ("api-429", "s3-throttled", "api-restart", "api-409"):
        story.faults.inject(fault, SHORT)
        await_true(lambda: not story.faults.active(), "the fault does not end")
    story.wait("rollback", "rollback", before)
    assert story.runs["rollback"].conclusion == "success", story.said("rollback")
    story.wait("late rollback", "rollback", story.runs["rollback"].number)
    story.wait("restoring", "deploy", before)
    story.note("the end")
    story.answers["pods of the end"] = " and ".join(running_bundles(story.dev, MODEL))
    story.audit("audit of the end")


def ledger(story: Interrupted) -> list[tuple[str, str, str]]:
    """Return action, result and bundle of each record, without repeated failures."""
    found = [
        (entry.event.action, entry.event.result, entry.event.to or "")
        for entry in reversed(list(Ledger(story.dev, MODEL).back()))
    ]
    return [one for number, one in enumerate(found) if number == 0 or found[number - 1] != one]


@pytest.mark.parametrize(
    ("fault", "what", "fix"),
    [
        ("api-401", "the cluster does not accept your credentials", "sign in again"),
        ("api-403", "the cluster rejected a request: forbidden", "give this permission to the role you use"),
        ("api-restart", "the Kubernetes cluster does not respond", "check that it runs"),
        ("github-down", "Service Unavailable (HTTP 503)", "run this again when https://www.githubstatus.com says"),
    ],
)
def test_a_fault_that_lasts_fails_the_deployment_with_what_to_do(
    story: Interrupted, fault: str, what: str, fix: str
) -> None:
    assert story.runs[fault].conclusion == "failure"
    said = story.error(fault)
    assert what in said, said
    assert f"fix: {fix}" in said, said


def test_a_deployment_that_met_every_fault_goes_on_where_it_stopped(story: Interrupted) -> None:
    assert story.runs["first"].conclusion == "success", story.said("first")
    assert len({story.answers[f"{what} of the first"] for what in ("git", "live", "served")}) == 1


def test_a_failure_with_a_canary_in_the_traffic_says_that_traffic_stayed_and_what_to_do(story: Interrupted) -> None:
    assert story.runs["api-403"].conclusion == "failure"
    reasons = [entry.event.reason for entry in Ledger(story.dev, MODEL).back() if entry.event.to == story.second]
    assert any("and traffic could not be returned: the cluster rejected" in reason for reason in reasons), reasons
    assert story.runs["audit of the failure"].conclusion == "failure"
    audit = story.error("audit of the failure")
    assert "its deployment of" in audit, audit
    assert "traffic could not be returned" in audit, audit


def test_short_faults_fail_no_deployment(story: Interrupted) -> None:
    assert {story.answers[f"{what} of the second"] for what in ("git", "live", "served")} == {story.second}
    assert story.second != story.first


def test_traffic_leaves_a_bad_bundle_while_github_is_down(story: Interrupted) -> None:
    said = story.answers["rollback without GitHub"]
    assert f"runs {story.first}, but main still names {story.second}" in said, said
    assert "with the same reason: it finishes" in said
    when = "the rollback without GitHub"
    assert (story.answers[f"served of {when}"], story.answers[f"git of {when}"]) == (story.first, story.second)


def test_a_revoked_app_stops_the_rollback_before_it_changes_anything(story: Interrupted) -> None:
    assert story.runs["app refused"].conclusion == "failure"
    assert "Bad credentials" in story.error("app refused")


def test_the_next_rollback_for_the_same_reason_finishes(story: Interrupted) -> None:
    assert story.runs["restoring"].conclusion == "success", story.said("restoring")


def test_of_two_people_who_roll_back_at_once_the_second_goes_no_further_back(story: Interrupted) -> None:
    assert story.runs["late rollback"].conclusion == "failure"
    said = story.error("late rollback")
    assert f"has left {story.second} since this rollback was requested" in said, said
    assert f"because: {FIRST_REASON}; {story.first} is live now" in said
    assert "If it is, run the workflow `rollback` again" in said


def test_git_ledger_and_cluster_agree_in_the_end(story: Interrupted) -> None:
    assert {story.answers[f"{what} of the end"] for what in ("git", "live", "served", "pods")} == {story.first}
    assert story.runs["audit of the end"].conclusion == "success", story.said("audit of the end")
    assert ledger(story) == [
        ("promotion", "failed", story.first),
        ("promotion", "verified", story.first),
        ("promotion", "failed", story.second),
        ("promotion", "verified", story.second),
        ("rollback", "verified", story.first),
    ]
