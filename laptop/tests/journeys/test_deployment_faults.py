"""Deployments that meet what goes wrong on AWS: each ends in agreement, and says what to do.

The laptop is always realistic here. The endpoint answers by HTTPS, to members of one security group.
"""

from __future__ import annotations

import csv
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from laptop.aws.cloud import Cloud
from laptop.cluster.private_network import proxy_for_groups
from laptop.demo.material import MODEL, batches
from laptop.faults import Faults
from laptop.github.hosting import APPROVER, AUTHOR
from laptop.github.hub import Hub
from laptop.github.runner.results import WorkflowRun
from laptop.laptop_target import LaptopTarget
from laptop.lifecycle import Laptop
from laptop.publishing import local_digests
from laptop.shell_environment import network_variables
from laptop.tests.aws.certificates import import_certificate
from laptop.tests.journeys.laptop_of_journeys import bring_up_dev, own_home, start_laptop
from laptop.tests.journeys.test_journeys import edit as replace
from laptop.tests.journeys.test_journeys import log, one_environment
from laptop.tests.journeys.test_model_monitor import FEATURES
from laptop.tests.journeys.test_rollbacks import Trial
from pipelines.cli.main import mlops
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.images import pin_images
from pipelines.registry.ledger import Ledger
from pipelines.serving.probe import EndpointClient, open_endpoint
from tests.infra.recording import edit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SCALE = 100.0
WAIT_SECONDS = 900.0
FOR_LONG = 3600.0
DOMAIN = "models.example.com"


class Callers:
    """Callers of the endpoint by HTTPS, who send the rows of the training data one after the other.

    Attributes:
        pause: seconds between two requests of a caller.
        answered: number of requests that were answered.
        failed: one message for each request that was not.
    """

    def __init__(self, here: LaptopTarget, file: Path) -> None:
        self._here = here
        with file.open() as lines:
            patients = [row for row in csv.DictReader(lines) if all(row[name] not in ("", "n/a") for name in row)]
        rows = ([float(row[name]) for name in FEATURES] for row in patients)
        # The batch also has rows that ingestion quarantines.
        self._rows = [row for row in rows if row[0] <= 120 and row[1] in (1, 2) and 10 <= row[2] <= 80]
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.pause = 0.05
        self.answered = 0
        self.failed: list[str] = []

    def start(self, number: int, pause: float) -> None:
        """Let more callers send requests; all of them pause as long as the last ones."""
        self.pause = pause
        for _ in range(number):
            thread = threading.Thread(target=self._call, args=(len(self._threads),), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def _call(self, first: int) -> None:
        with open_endpoint(self._here.descriptor("dev"), MODEL) as endpoint:
            for row in itertools.islice(itertools.cycle(self._rows), 37 * first, None):
                tensor = {"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": row}
                try:
                    endpoint.infer({"inputs": [tensor]})
                    self.answered += 1
                except MlopsError as error:
                    self.failed.append(error.what)
                if self._ended.wait(self.pause):
                    return


@dataclass
class Story:
    """State of the journey.

    Attributes:
        hub: the laptop's GitHub.
        here: the laptop.
        dev: the environment.
        faults: faults of the laptop.
        callers: callers of the endpoint.
        runs: name → run of a workflow.
        answers: name → what a caller got.
    """

    hub: Hub
    here: LaptopTarget
    dev: EnvironmentDescriptor
    faults: Faults
    callers: Callers
    runs: dict[str, WorkflowRun] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)

    def wait(self, name: str, workflow: str, after: int) -> WorkflowRun:
        self.runs[name] = self.hub.wait(workflow, after=after, seconds=WAIT_SECONDS)
        return self.runs[name]

    def deploy(self, name: str) -> None:
        """Run the workflow `deploy` by dispatch."""
        before = self.hub.newest()
        self.hub.dispatch(AUTHOR, "deploy.yml", inputs={"environment": "dev"})
        self.wait(name, "deploy", before)

    def merge(self, name: str, trial: Trial) -> None:
        """Merge the open release, and wait for its deployment."""
        self.wait(name, "deploy", trial.merge())

    def audit(self, name: str) -> None:
        before = self.hub.newest()
        self.hub.dispatch(AUTHOR, "audit.yml")
        self.wait(name, "audit", before)

    def note(self, when: str) -> None:
        """Note which bundle git and the ledger name, and which one callers get."""
        file = self.hub.server.repository.read_file("main", f"models/{MODEL}/releases/dev.yaml") or b""
        head = Ledger(self.dev, MODEL).head()
        self.answers |= {
            f"git of {when}": str(yaml.safe_load(file)["bundle"]),
            f"live of {when}": str(head.event.live if head is not None else None),
            f"served of {when}": self.served(),
        }

    def served(self) -> str:
        """Return the bundle that callers get."""
        with open_endpoint(self.here.descriptor("dev"), MODEL) as endpoint:
            return endpoint.served()

    def said(self, name: str) -> str:
        """Return the log of the last job of a run."""
        return log(self.runs[name].jobs[-1])

    def error(self, name: str) -> str:
        """Return the error with which a run ended, on one line."""
        _, _, rest = self.said(name).rpartition("error: ")
        return " ".join(rest.partition("##[")[0].split())


def shorten_deadlines(root: Path) -> None:
    """Wait seconds instead of minutes before a deployment gives up."""
    for file, pattern, by in (
        ("pipelines/cluster/load_balancer.py", r"(?m)^DEADLINE_SECONDS = .*", "DEADLINE_SECONDS = 30.0"),
        ("pipelines/cluster/load_balancer.py", r"(?m)^NAME_SECONDS = .*", "NAME_SECONDS = 3.0"),
        ("infra/components/endpoint.py", r"(?m)^PROGRESS_SECONDS = .*", "PROGRESS_SECONDS = 90"),
    ):
        replace(file, pattern, by)(root)


def declare_model(project: Project) -> None:
    """Let the gates pass what only a canary check can stop, and let that check wait for seconds."""
    model = project.model_file(MODEL)
    edit(model, "gates", "thresholds", value=[{"metric": "rmse", "maximum": 1000.0}])
    edit(model, "gates", "champion", "maximum_regression", value=100.0)
    edit(model, "gates", "latency", "p99_ms", value=5000.0)  # this machine may be busy
    edit(model, "gates", "fairness", value=[])
    edit(model, "serving", "rollout", value=[{"weight": 50, "pause_seconds": 2}])
    edit(model, "serving", "canary", value={"wait_seconds": 10, "error_increase": 0.5, "prediction_shift": 0.5})


def declare_environment(project: Project) -> None:
    """Let a canary without a verdict pause, and only load balancers reach pods."""
    stack = project.stack_file("dev")
    edit(stack, "config", "mlops:environment", "canary", value={"on_inconclusive": "pause"})
    edit(stack, "config", "mlops:environment", "load_balancer_cidrs", value=["10.0.240.0/24"])


def secure(project: Project, running: Laptop) -> tuple[str, str]:
    """Declare HTTPS for members of a security group; return that group and another one."""
    cloud = Cloud(running.environ(), running.home / "aws")
    certificate = import_certificate(cloud.client("acm"), f"*.{DOMAIN}")
    ec2 = cloud.client("ec2")
    callers, others, balancers = (
        str(ec2.create_security_group(GroupName=name, Description=name)["GroupId"])
        for name in ("callers", "others", "balancers")
    )
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": callers}]}
    ec2.authorize_security_group_ingress(GroupId=balancers, IpPermissions=[rule])
    access = {"domain": DOMAIN, "certificate": certificate, "security_groups": [balancers]}
    edit(project.stack_file("dev"), "config", "mlops:environment", "endpoints", value=access)
    return callers, others


def write_bad_batch(good: Path, folder: Path) -> Path:
    """Write a batch that keeps the contract, but whose outcomes are far too high."""
    with good.open(newline="") as lines:
        head, *rows = list(csv.reader(lines))
    outcome, path = head.index("progression"), folder / "too-high.csv"
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(head)
        for number, row in enumerate(row for row in rows if row[0].isdigit() and "" not in row and "n/a" not in row):
            changed = list(row)
            changed[0] = str(20_000 + number)
            changed[head.index("bp")] = str(float(row[head.index("bp")]) + 0.37)  # another patient: rows differ
            changed[outcome] = str(min(500.0, float(row[outcome]) + 250.0))
            writer.writerow(changed)
    return path


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("deployment-faults")
    with own_home(folder) as (home, patch):
        project = one_environment(folder / "source")
        shorten_deadlines(project.root)
        declare_model(project)
        pin_images(project, "dev", local_digests(project))
        declare_environment(project)
        patch.chdir(project.root)
        running = start_laptop(home, project.root, patch, scale=SCALE)
        callers, others = secure(project, running)
        here, hub = bring_up_dev(Project(project.root), home, running, patch)
        for name, value in network_variables(running, [callers]).items():
            patch.setenv(name, value)
        files = batches(Project(project.root), folder / "batches")
        files["too-high"] = write_bad_batch(files["first"], folder / "batches")
        dev = here.descriptor("dev")
        made = Story(hub, here, dev, Faults(home), Callers(here, files["first"]))
        with hub.serving():
            try:
                play(made, files, patch, running, others)
            finally:
                made.callers.stop()
        yield made


def play(story: Story, files: dict[str, Path], patch: pytest.MonkeyPatch, running: Laptop, others: str) -> None:
    trial = Trial(story.hub, story.dev, runs={})

    # The first release: its load balancer never becomes active, then nobody can look its name up.
    trial.train(files["first"])
    story.faults.inject("load-balancer-stuck", FOR_LONG)
    story.merge("stuck", trial)
    story.audit("audit of stuck")
    story.faults.inject("load-balancer-stuck", -1)
    story.faults.inject("dns-gone", FOR_LONG)
    before = story.hub.newest()
    for person in (AUTHOR, APPROVER):
        story.hub.dispatch(person, "deploy.yml", inputs={"environment": "dev"})
    story.wait("one of two", "deploy", before)
    story.wait("other of two", "deploy", story.runs["one of two"].number)
    story.faults.inject("dns-gone", -1)
    story.note("the first")
    ask_as_others(story, running, others)

    # The second predicts far too much. Its pods never become ready; then nobody calls, then too few, then enough.
    trial.train(files["too-high"])
    story.faults.inject("targets-stuck", FOR_LONG)
    story.merge("not ready", trial)
    story.audit("audit of not ready")
    story.faults.inject("targets-stuck", -1)
    story.deploy("no traffic")
    story.callers.start(1, pause=2.0)
    story.deploy("little traffic")
    story.callers.start(4, pause=0.05)
    story.deploy("harm")
    story.audit("audit of harm")

    # People propose what is live.
    clone = story.hub.clone(story.here.project.root.parent / "clone", AUTHOR)
    with pytest.MonkeyPatch.context() as narrow:
        for name, value in story.hub.environ(AUTHOR).items():
            narrow.setenv(name, value if name != "PATH" else os.pathsep.join((value, os.environ["PATH"])))
        narrow.chdir(clone)
        done = CliRunner().invoke(mlops, ["propose", MODEL, "--env", "dev", "--live"])
    assert done.exception is None, done.output
    story.merge("live again", trial)
    story.note("the end")
    story.audit("audit of the end")


def ask_as_others(story: Story, running: Laptop, others: str) -> None:
    """Send requests as the named callers, as callers whom nobody named, and in ways that are closed."""
    story.answers["https"] = story.served()
    done = CliRunner().invoke(mlops, ["predict", MODEL, "--env", "dev", "--direct"])
    story.answers["predict"] = done.output if done.exception is None else f"{done.output}{done.exception!r}"
    secure = story.here.descriptor("dev").endpoints[MODEL]
    stranger, neighbour = proxy_for_groups(running.proxy, [others]), f"http://{MODEL}-ping.{story.dev.namespace}.svc"
    for name, url, proxy in (
        ("plain", secure.replace("https://", "http://"), os.environ["https_proxy"]),
        ("other group", secure, stranger),
        ("past", neighbour, os.environ["https_proxy"]),
    ):
        with pytest.MonkeyPatch.context() as narrow:
            for variable in ("http_proxy", "https_proxy"):
                narrow.setenv(variable, proxy)
            try:
                story.answers[name] = EndpointClient(url, MODEL).served()
            except MlopsError as error:
                story.answers[name] = error.what


def ledger(story: Story) -> list[tuple[str, str, str]]:
    """Return result, bundle and reason of each record."""
    found = reversed(list(Ledger(story.dev, MODEL).back()))
    return [(entry.event.result, entry.event.to or "", entry.event.reason) for entry in found]


def test_a_load_balancer_that_never_becomes_active_fails_the_deployment_and_says_what_to_do(story: Story) -> None:
    assert story.runs["stuck"].conclusion == "failure"
    said = story.error("stuck")
    assert f"the load balancer of {MODEL} in {story.dev.namespace} is not there yet after" in said
    assert "the load balancer is provisioning; expected active" in said
    assert f"kubectl -n {story.dev.namespace} describe ingress {MODEL}. Then deploy again" in said
    audit = story.error("audit of stuck")
    assert "as in git, but the ledger records no bundle as live; its deployment of" in audit, audit
    assert "fix: run the workflow deploy for dev" in audit


def test_a_name_that_nobody_can_look_up_is_said_and_does_not_stop_a_release(story: Story) -> None:
    assert "does not resolve on this machine: not verified" in story.said("one of two")


def test_two_people_who_deploy_at_once_record_one_release(story: Story) -> None:
    both = [story.runs[name] for name in ("one of two", "other of two")]
    assert [run.conclusion for run in both] == ["success", "success"], story.said("one of two")
    recorded = [
        f"{MODEL} is already recorded as live in dev" in story.said(name) for name in ("one of two", "other of two")
    ]
    assert sorted(recorded) == [False, True]  # either may come first
    assert [result for result, _, _ in ledger(story)][:3] == ["failed", "verified", "failed"]


def test_callers_of_the_named_group_come_by_https_and_nobody_else_does(story: Story) -> None:
    first = story.answers["https"]
    assert first.startswith("sha256:")
    assert first in story.answers["predict"]
    assert "has no listener for HTTP on port 80" in story.answers["plain"]
    assert "no inbound rule of sg-" in story.answers["other group"]
    assert f"serve-{MODEL} does not let the caller" in story.answers["past"]


def test_pods_that_never_become_ready_end_the_rollout_and_leave_the_traffic(story: Story) -> None:
    assert story.runs["not ready"].conclusion == "failure"
    said = story.error("not ready")
    assert f"the rollout of {MODEL} in {story.dev.namespace} failed:" in said
    assert f"describe pods -l app.kubernetes.io/name=serve-{MODEL}. Then deploy again" in said
    assert "its deployment of" in story.error("audit of not ready")


def test_a_canary_without_traffic_waits_for_a_person(story: Story) -> None:
    assert story.runs["no traffic"].conclusion == "failure"
    said = story.error("no traffic")
    assert "0 to the live pods; both need some" in said, said
    assert "deploy again to check it for longer, or stop it: see docs/on-call.md" in said


def test_a_canary_with_too_little_traffic_says_how_much_is_missing(story: Story) -> None:
    assert story.runs["little traffic"].conclusion == "failure"
    assert "more are needed" in story.error("little traffic")


def test_a_canary_that_predicts_otherwise_is_stopped_and_the_ledger_says_why(story: Story) -> None:
    assert story.runs["harm"].conclusion == "failure"
    said = story.error("harm")
    assert "is worse than the live pods" in said, said
    assert "predictions: canary" in said
    assert "release another bundle, or propose what is live" in said
    assert "predictions: canary" in story.error("audit of harm")


def test_git_ledger_and_cluster_agree_in_the_end(story: Story) -> None:
    first = story.answers["https"]
    for when in ("the first", "the end"):
        assert {story.answers[f"{what} of {when}"] for what in ("git", "live", "served")} == {first}
    assert story.runs["live again"].conclusion == "success", story.said("live again")
    assert story.runs["audit of the end"].conclusion == "success", story.said("audit of the end")


def test_no_request_of_a_caller_failed(story: Story) -> None:
    assert story.callers.failed == []
    assert story.callers.answered > 100
