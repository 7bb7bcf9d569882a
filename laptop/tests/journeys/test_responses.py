"""An alarm goes from a monitor by EventBridge to GitHub, whose workflow asks people or rolls back.

Everything in between is as on AWS: the provisioned rules, connection and queue, the committed workflow, and its roles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from laptop.demo.material import MODEL, batches
from laptop.demo.traffic_watch import TrafficWatch
from laptop.faults import Faults
from laptop.github.forge.actors import BOT, person
from laptop.github.hosting import AUTHOR, REPOSITORY
from laptop.github.hub import Hub
from laptop.github.runner.results import WorkflowRun
from laptop.laptop_target import LaptopTarget
from laptop.publishing import local_digests
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import log, one_environment
from laptop.tests.journeys.test_rollbacks import Trial
from pipelines.cli.main import mlops
from pipelines.cluster.rollouts import served_bundle
from pipelines.declarations.alarm_events import undelivered_queue
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.project import Project
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.monitoring.monitor_findings import MonitorFinding
from pipelines.monitoring.monitor_reports import write_report
from pipelines.monitoring.response_policy import ResponseDecision
from pipelines.monitoring.response_records import write_decision
from pipelines.monitoring.send_alarm import send_alarm
from pipelines.promotion.images import pin_images
from pipelines.promotion.status import read_status
from pipelines.registry.bundle_quarantine import quarantined
from pipelines.registry.response_outcomes import read_outcomes
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WAIT_SECONDS = 600.0
DOWN_SECONDS = 3.0


@dataclass
class Answers:
    """Responses to alarms, and what they changed.

    Attributes:
        hub: the laptop's GitHub.
        target: the laptop.
        dev: the environment.
        prefix: name prefix of its resources.
        first, second: the bundles.
        runs: name → run of the workflow `respond`.
        restored_seconds: from the alarm to the moment at which all traffic went to the first bundle.
        open_before, open_after: ids of the open alarms before and after the rollback.
    """

    hub: Hub
    target: LaptopTarget
    dev: EnvironmentDescriptor
    prefix: str
    first: str = ""
    second: str = ""
    runs: dict[str, WorkflowRun] = field(default_factory=dict)
    restored_seconds: float = 0.0
    open_before: list[str] = field(default_factory=list)
    open_after: list[str] = field(default_factory=list)

    def decision(self, name: str, response: Any, bundle: str, *checks: Any, report: str = "") -> ResponseDecision:
        now = datetime.now(UTC)
        return ResponseDecision(
            id=name,
            model=MODEL,
            environment="dev",
            bundle=bundle,
            response=response,
            checks=checks,
            reason=f"{checks[0]}: it is off",
            decided=now,
            window_end=now,
            report=report,
        )

    def write_report(self, bundle: str, hours_ago: int, verdict: Any, effect: float) -> str:
        """Write a report about drift, as the monitor does, and return its name."""
        now = datetime.now(UTC) - timedelta(hours=hours_ago)
        drift = MonitorFinding(
            check="input-drift", subject="bmi", verdict=verdict, figure=effect, threshold=0.04, rows=900, reason="moved"
        )
        found = ModelMonitorReport(
            model=MODEL,
            environment="dev",
            bundle=bundle,
            time=now,
            window_start=now - timedelta(days=1),
            window_end=now,
            requests=900,
            verdict=verdict,
            findings=(drift,),
        )
        return write_report(self.dev, found, b"<html>")

    def answer(self, name: str, decision: ResponseDecision) -> None:
        """Send the alarm of a decision, and wait for the end of its run."""
        before = self.hub.newest()
        send_alarm(self.dev, decision.alarm(), self.prefix)
        self.runs[name] = self.hub.wait("respond", after=before, seconds=WAIT_SECONDS)

    def open_alarms(self) -> list[str]:
        (found,) = read_status(self.target, "dev").models
        assert found.unseen == {}
        return [one.id for one in found.open_alarms]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    folder = tmp_path_factory.mktemp("responses")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        github = {"github": {"repository": REPOSITORY}}
        pin_images(project, "dev", local_digests(project))
        edit(project.stack_file("dev"), "config", "mlops:environment", "monitoring", value=github)
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch)
        here, hub = bring_up_dev(project, home, running, patch)
        made = Answers(hub, here, here.descriptor("dev"), f"{project.name}-dev")
        for name, value in hub.environ(AUTHOR).items():
            patch.setenv(name, value)
        token = hub.server.issue_token(person(AUTHOR))
        done = CliRunner().invoke(mlops, ["github", "alarm-token", "--env", "dev"], input=token)
        assert done.exception is None, done.output
        with hub.serving():
            play(made, batches(Project(project.root), folder / "batches"), Faults(home))
        yield made


def play(answers: Answers, files: dict[str, Path], faults: Faults) -> None:
    trial = Trial(answers.hub, answers.dev, runs={})
    ask_directly(answers)
    for file in ("first", "later"):
        trial.release(files[file])
        answers.first, answers.second = answers.second, served_bundle(answers.dev.namespace, MODEL) or ""

    answers.write_report(answers.first, 1, "ok", 0.01)
    written = answers.write_report(answers.second, 0, "alarm", 0.2)
    ask = answers.decision("a1", "ask", answers.second, "input-drift", report=written)
    answers.answer("ask", ask)
    answers.answer("ask again", ask)

    bad = answers.decision("a2", "roll-back", answers.second, "errors")
    write_decision(answers.dev, bad)
    answers.open_before = answers.open_alarms()
    watch = TrafficWatch(answers.dev.namespace, MODEL, answers.second, WAIT_SECONDS)
    answers.answer("roll-back", bad)
    answers.restored_seconds = watch.seconds() or 0.0
    answers.open_after = answers.open_alarms()

    faults.inject("github-down", DOWN_SECONDS)
    answers.answer("late", answers.decision("a3", "roll-back", answers.second, "errors"))


def ask_directly(answers: Answers) -> None:
    """Ask about the model before it is released, as a monitoring system elsewhere does."""
    before = answers.hub.newest()
    payload = {"model": MODEL, "environment": "dev", "reason": "slow", "response": "ask", "checks": ["latency"]}
    answers.hub.repository_dispatch(AUTHOR, "alarm", payload)
    answers.runs["direct"] = answers.hub.wait("respond", after=before, seconds=WAIT_SECONDS)


def said(answers: Answers, name: str) -> str:
    run = answers.runs[name]
    assert run.conclusion == "success", log(run.jobs[-1])
    return log(run.job("respond"))


def test_an_alarm_from_elsewhere_is_answered_too(answers: Answers) -> None:
    assert "opened issue" in said(answers, "direct")
    issue = answers.hub.server.issues()[-1]
    assert issue["title"] == f"{MODEL} in dev: latency"


def test_a_question_opens_one_issue_of_the_bot(answers: Answers) -> None:
    assert "opened issue" in said(answers, "ask")
    issue = answers.hub.server.issues()[0]
    assert (issue["author"], issue["labels"], issue["state"]) == (BOT, ["alarm"], "open")
    assert issue["title"] == f"{MODEL} in dev: input-drift"
    assert "docs/on-call.md#input-drift" in issue["body"]


def test_the_issue_has_the_report_read_with_the_role_of_the_workflow(answers: Answers) -> None:
    body = answers.hub.server.issues()[0]["body"]
    assert "| alarm | input-drift | bmi | 20.0% | 4.0% | 900 | moved |" in body
    assert "- input-drift of bmi: ok (1.0%) → alarm (20.0%)" in body
    direct = answers.hub.server.issues()[-1]["body"]
    assert "The report is not shown here: the alarm names none." in direct


def test_an_alarm_that_arrives_twice_does_nothing_more(answers: Answers) -> None:
    assert "the alarm a1 was handled at" in said(answers, "ask again")
    issue = answers.hub.server.issues()[0]
    assert answers.hub.server.comments(issue["number"]) == []


def test_a_rollback_restores_the_first_bundle_and_closes_the_alarm(answers: Answers) -> None:
    assert f"rolling back from {answers.second} to {answers.first}" in said(answers, "roll-back")
    assert served_bundle(answers.dev.namespace, MODEL) == answers.first
    assert set(quarantined(answers.dev, MODEL)) == {answers.second}
    assert (answers.open_before, answers.open_after) == (["a2"], [])
    print(f"traffic restored {answers.restored_seconds:.2f} s after the alarm")
    for job in answers.runs["roll-back"].jobs:
        print(f"  {job.name} {job.seconds:.2f} s: " + ", ".join(f"{one.name} {one.seconds:.2f}" for one in job.steps))
    assert 0 < answers.restored_seconds < 60


def test_an_alarm_while_github_is_down_arrives_later_and_is_ignored_if_the_bundle_is_gone(answers: Answers) -> None:
    assert f"{answers.second} is no longer live in dev; there is nothing to do" in said(answers, "late")
    outcomes = {
        one.id: (one.response, one.outcome)
        for one in read_outcomes(answers.dev, MODEL)
        if not one.id.startswith("run-")
    }
    assert outcomes == {"a1": ("ask", "done"), "a2": ("roll-back", "done"), "a3": ("roll-back", "ignored")}


def test_no_alarm_is_undelivered(answers: Answers) -> None:
    queue = boto3.client("sqs", answers.dev.region)
    url = queue.get_queue_url(QueueName=undelivered_queue(answers.prefix))["QueueUrl"]
    found = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert found["Attributes"]["ApproximateNumberOfMessages"] == "0"


def test_the_commands_for_people_on_call_show_it(answers: Answers) -> None:
    status = CliRunner().invoke(mlops, ["status", "--env", "dev"])
    assert "response   " in status.output and "roll-back, done: " in status.output
    logs = CliRunner().invoke(mlops, ["logs", MODEL, "--env", "dev"])
    assert logs.exception is None, logs.output
    assert "serve-" in logs.output or MODEL in logs.output
