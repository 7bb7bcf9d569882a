"""Show the whole journey on this machine: `mlops demo`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from laptop import delays
from laptop.cli.github import attach, host
from laptop.delays import NONE, Delays
from laptop.demo.background_requests import Callers
from laptop.demo.material import CENSUS, PATIENTS, SAMPLE_MODELS, SampleModel, own_clone, take_releases_back
from laptop.faults import FAULTS, NEEDS_LOAD_BALANCERS, Faults
from laptop.laptop_target import LaptopTarget
from laptop.short_waits import scale_waits
from pipelines.cli.commands import Command
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from lightkube import Client
    from lightkube.resources.core_v1 import Pod

    from laptop.github.forge.merge_rules import PullRequestRecord
    from laptop.github.runner.results import StepProgress, WorkflowRun


_FAULT_SECONDS = 8.0
"""How long the fault of `--fault` lasts."""

_FAULTS_OF_GITHUB = ("app-token-revoked", "github-down")
"""Faults that are injected when a deployment is about to propose the next release. Others hit the last deployment."""

_FAULT_OF_IMAGES = "ecr-throttled"
"""Fault that lasts from the merge until a pod has waited for its image: nothing asks for the image of a running pod."""

_PULL_SECONDS = 600.0
"""Longest time from a merge until a pod of the deployment is created."""

_JUDGEMENTS = 10
"""How often a release is judged again before its merge."""

_SOAK_LOOK_SECONDS = 10.0
"""Time between two of them on a realistic laptop, whose soak is longer."""

_REALISTIC_SCALE = 20.0
"""Default of `mlops demo --realistic --time-scale`."""

QUIET = ("mlops ci select", "mlops ci use-cluster")
"""Commands of workflows that the demo does not print."""


@dataclass(frozen=True)
class RequestedRun:
    """A workflow run that was requested: the first run of `workflow` with a number above `after`."""

    workflow: str
    after: int


class Journey:
    """Steps of the demo, printed with their times."""

    def __init__(self) -> None:
        self.done: list[tuple[str, float]] = []
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print the title of a step, run it, and print its time."""
        click.secho(f"\n{len(self.done) + 1}. {title}", bold=True)
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.done.append((title, seconds))
        click.secho(f"   {seconds:.1f} s", fg="green")

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started


class Demo:
    """The whole journey.

    Args:
        source: the project to show.
        keep: leave the laptop running at the end.
        delays: delays of a realistic laptop, after the time scale.
        time_scale: how many times as fast rollout pauses pass.
        fault: injected once, during a deployment; "" for none.
        samples: the models to show, one after the other.
    """

    def __init__(
        self,
        source: Project,
        *,
        keep: bool,
        delays: Delays = NONE,
        time_scale: float = 1.0,
        fault: str = "",
        samples: tuple[SampleModel, ...] = (PATIENTS,),
    ) -> None:
        self.fault = fault
        self._awaits_proposal = False
        self._fault_ends = 0.0
        self.samples = samples
        self.sample, *_ = samples
        self.source = source
        self.keep = keep
        self.delays = delays
        self.time_scale = time_scale
        self.scratch = source.root / ".mlops" / "demo"
        self.home = self.scratch / "laptop"
        self.journey = Journey()

    def run(self) -> None:
        """Run every step.

        Raises:
            MlopsError: the project lacks a sample model, or a step failed.
        """
        from laptop import lifecycle

        for sample in self.samples:
            sample.check(self.source)
        lifecycle.stop(self.home)
        if self.scratch.exists():
            shutil.rmtree(self.scratch)
        self.all_callers = {sample.model: Callers(sample.model) for sample in self.samples}
        try:
            self.prepare()
            with self.hub.serving():
                self.play()
        finally:
            self._stop_callers()
            if not self.keep:
                lifecycle.stop(self.home)
        click.echo(f"\nThe whole journey took {self.journey.seconds:.1f} s.")
        if self.keep:
            from laptop.github.hosting import AUTHOR

            clone = self.hub.clone(self.scratch / "repository", AUTHOR)
            click.echo(f"It is still running. To look around:\n  cd {clone}\n  export MLOPS_HOME={self.home}")
            click.echo(f'  PATH={self.source.root}/.venv/bin:$PATH\n  eval "$(mlops laptop env)"')
        else:
            click.echo("Everything is stopped. To keep it running and look around: .venv/bin/mlops demo --keep")

    @property
    def callers(self) -> Callers:
        """The callers of the model that is shown."""
        return self.all_callers[self.sample.model]

    def _stop_callers(self) -> None:
        for callers in self.all_callers.values():
            callers.stop()

    def adjust(self) -> None:
        """Change the clone before the laptop starts; nothing here."""

    def play(self) -> None:
        """Show every model, then a summary."""
        for sample in self.samples:
            self.show(sample)
        if self.delays:
            self.compare_with_git()
        self.summarise()

    def show(self, sample: SampleModel) -> None:
        """Show a model from its first batch of data to a rollback."""
        self.sample = sample
        self.batches = self.sample.write_batches(self.project, self.scratch / "batches" / self.sample.model)
        self.promote_the_first()
        self.refuse_a_bad_one()
        self.roll_back()

    def prepare(self) -> None:
        """Start an account, a cluster and a GitHub, and provision the first environment."""
        from laptop import lifecycle
        from laptop.publishing import local_digests, publish_locally
        from pipelines.promotion.images import pin_images

        with self.journey.step("Start an AWS account, a cluster and GitHub on this machine"):
            hidden = [sample for sample in SAMPLE_MODELS if sample not in self.samples]
            self.project = own_clone(self.source, self.scratch / "clone", quick=not self.delays, without=hidden)
            self.adjust()
            take_releases_back(self.project)
            scale_waits(self.project, self.time_scale)
            os.chdir(self.project.root)
            os.environ["MLOPS_HOME"] = str(self.home)
            running = lifecycle.start(
                self.home,
                self.project.root,
                time_scale=1 / self.time_scale,
                attached=not self.keep,
                delays=self.delays,
            )
            if self.delays:
                # The demo is the administrator who sets everything up, and its callers are in the private network.
                os.environ[lifecycle.ADMINISTRATOR] = "1"
                os.environ.update(http_proxy=running.proxy, no_proxy="127.0.0.1,localhost")
                click.echo(f"   as late and strict as AWS, {self.time_scale:g} times as fast")
            click.echo(f"   AWS {running.aws_endpoint}, Kubernetes {running.kubernetes_endpoint}, all on 127.0.0.1")
            self.target = LaptopTarget(self.project)
            self.target.connect()
            images = local_digests(self.project)
            for environment in self.project.environments:
                pin_images(self.project, environment, images)
            self.hub = attach(self.target, self._say_step)
            host(self.target, self.hub)
            publish_locally(self.target)
        self.first, *self.others = self.project.environments
        self._provision(self.first, f"Provision {self.first} with the same Pulumi program as on AWS")
        self.provisioned = {self.first}

    def promote_the_first(self) -> None:
        """Ingest data, train a model, and promote it by pull request to every environment."""
        from pipelines.promotion.predict import predict

        dataset, model = self.sample.dataset, self.sample.model
        with self.journey.step(f"Ingest a batch of {dataset}; rows that break the contract go to quarantine"):
            self._ingest("first")
        training = second_training = self._dispatch_training()
        for environment in self.others:
            if environment not in self.provisioned:
                self._provision(environment, f"Provision {environment} while {model} trains")
                self.provisioned.add(environment)
        with self.journey.step("Training ends: its workflow proposes the release, and the gates judge it"):
            self._await(training)
            self._await_checks(self._open_release(self.first))
        last = self.project.environments[-1]
        for environment in self.project.environments:
            with self.journey.step(f"Merge the release to {environment}: deploy, roll out, verify, record"):
                self.callers.call(self.target, environment)
                if environment == last:
                    self._await(second_training)
                # The next batch and training start while this release rolls out.
                self._merge(environment, arriving={self.first: "later", last: "mixed-up"}.get(environment, ""))
            if environment == self.first:
                second_training = self._dispatch_training()
        with self.journey.step(f"Send a prediction request to {last}"):
            request, response = predict(self.target, model, last)
            click.echo(f"   request   {request['inputs'][0]['data'][:10]} …")
            click.echo(f"   response  {response['outputs'][0]['data']} from {response['model_version']}")
        click.secho(f"   {last} answered {self.journey.seconds:.1f} s after the start", fg="green")

    def refuse_a_bad_one(self) -> None:
        """Release a model trained on more data, then let the gates refuse one trained on shuffled data."""
        with self.journey.step(f"Release the model trained on more {self.sample.people} to {self.first}"):
            self._merge(self.first)
        with self.journey.step("Train on a batch with shuffled outcomes: the gates refuse the release"):
            self._await(self._dispatch_training())
            request = self._open_release(self.first)
            self._await_checks(request)
            blockers = self.hub.blockers(request.number)
            if not any("gates" in blocker for blocker in blockers):
                raise MlopsError(f"the gates passed pull request {request.number}, a model trained on a bad batch")
            for blocker in blockers:
                click.secho(f"   pull request {request.number} cannot be merged: {blocker}", fg="yellow")
            self._show_refusal(request)

    def roll_back(self) -> None:
        """Raise an alarm, which rolls the second release back."""
        from laptop.demo.traffic_watch import TrafficWatch
        from laptop.github.hosting import AUTHOR
        from pipelines.registry.ledger import Ledger

        with self.journey.step(f"Raise an alarm: {self.first} rolls back to the earlier release, traffic first"):
            reason = "the mean error of the last hour exceeds its bound"
            payload = {"model": self.sample.model, "environment": self.first, "reason": reason}
            before = self.hub.newest()
            descriptor = self.target.descriptor(self.first)
            bad = Ledger(descriptor, self.sample.model).head()
            assert bad is not None and bad.event.live is not None
            watch = TrafficWatch(descriptor.namespace, self.sample.model, bad.event.live)
            self.hub.repository_dispatch(AUTHOR, "breach", payload)
            run = self._await(RequestedRun("respond", before))
            for line in lines_of(run, " s  "):
                click.echo(f"   {line.strip()}")
            if (seconds := watch.seconds()) is not None:
                click.secho(f"   traffic restored {seconds:.1f} s after the alarm", fg="green")
            self._await(RequestedRun("deploy", before))

    def compare_with_git(self) -> None:
        """Run the workflow `audit`, which fails if git, a ledger or a cluster says something else than the others."""
        from laptop.github.hosting import AUTHOR

        with self.journey.step("Audit: git, ledgers and clusters agree in every environment"):
            before = self.hub.newest()
            self.hub.dispatch(AUTHOR, "audit.yml")
            for line in lines_of(self._await(RequestedRun("audit", before)), "as in git"):
                click.echo(f"   {line.strip()}")

    def summarise(self) -> None:
        """Print what runs in each environment, and its ledger."""
        from laptop.engine.state_file import resource_counts
        from pipelines.promotion.history import describe, read_history

        with self.journey.step("Summary"):
            self._stop_callers()
            for environment in self.project.environments:
                descriptor = self.target.descriptor(environment)
                counts = ", ".join(f"{n} {name}" for name, n in resource_counts(self.home, environment).items())
                endpoints = ", ".join(descriptor.endpoints[sample.model] for sample in self.samples)
                click.secho(f"   {environment}: {counts}; {endpoints}", bold=True)
                folder = self.project.root / ".mlops" / "ledgers" / environment
                for sample in self.samples:
                    for entry in read_history(folder, sample.model, descriptor, verify=True):
                        click.echo("   " + describe(entry).replace("\n", "\n   "))
            answered = sum(sum(callers.answered.values()) for callers in self.all_callers.values())
            failed = [failure for callers in self.all_callers.values() for failure in callers.failed]
            click.echo(f"   background requests during the journey: {answered} answered, {len(failed)} failed")
            for failure in failed[:5]:
                click.secho(f"   {failure}", fg="red")
            if self.delays and failed:
                raise MlopsError(f"{len(failed)} requests of callers failed: expected none")
        for title, seconds in self.journey.done:
            click.echo(f"   {seconds:5.1f} s  {title}")

    def _ingest(self, batch: str) -> None:
        from pipelines.data.landing import upload
        from pipelines.targets.workloads import run_ingest

        landed = upload(self.target.descriptor(self.first), self.sample.dataset, self.batches[batch])
        click.echo(f"   landed {landed}")
        run_ingest(self.target, self.first, self.sample.dataset, lambda line: click.echo(f"   {line}"))

    def _provision(self, environment: str, title: str) -> None:
        from laptop.engine.display import Overview
        from laptop.stack_operations import deploy

        with self.journey.step(title):
            deploy(self.project.root, self.home, environment, "up", Overview())

    def _dispatch_training(self) -> RequestedRun:
        """Start the workflow `train` without waiting for it."""
        from laptop.github.hosting import AUTHOR

        awaited = RequestedRun("train", self.hub.newest())
        self.hub.dispatch(AUTHOR, "train.yml", inputs={"model": self.sample.model})
        click.echo(f"   {AUTHOR} starts the workflow train for {self.sample.model}")
        return awaited

    def _await(self, awaited: RequestedRun) -> WorkflowRun:
        """Wait for a run that must succeed; on failure, the error contains the end of its log."""
        run = self.hub.wait(awaited.workflow, after=awaited.after)
        for problem in run.problems:
            raise MlopsError(f"{run.workflow}: {problem}")
        if run.conclusion != "success":
            logs = [job.log for job in run.jobs if job.log and job.conclusion == "failure"]
            tail = "\n".join(log.read_text()[-3000:] for log in logs)
            raise MlopsError(f"the workflow {run.workflow} ended in {run.conclusion}:\n{tail}")
        return run

    def _await_checks(self, request: PullRequestRecord) -> None:
        """Wait until the checks of a pull request have ended, whatever their result."""
        for workflow in ("ci", "promote"):
            self.hub.wait(workflow, head_sha=request.head_sha)

    def _say_step(self, progress: StepProgress) -> None:
        command = progress.step.removeprefix("Run ").split('"$')[0].strip()
        verb = command.removeprefix(".venv/bin/")
        if verb != command and progress.conclusion != "skipped" and not verb.startswith(QUIET):
            click.echo(f"   {progress.workflow}: {verb} … {progress.conclusion}, {progress.seconds:.1f} s")
        if self._awaits_proposal and verb.startswith("mlops deploy") and progress.conclusion == "success":
            self._awaits_proposal = False
            self._inject()

    def _open_release(self, environment: str) -> PullRequestRecord:
        """Return the open pull request of a release."""
        branch = f"release/{environment}/{self.sample.model}"
        found = [p for p in self.hub.pull_requests() if p.state == "OPEN" and p.head == branch]
        if not found:
            raise MlopsError(f"no pull request proposes a release to {environment}")
        return found[0]

    def _merge(self, environment: str, arriving: str = "") -> None:
        """Approve and merge a release, ingest the batch that arrives, and wait for the deployment."""
        from laptop.github.hosting import APPROVER
        from pipelines.registry.ledger import Ledger

        request = self._open_release(environment)
        self.hub.approve(APPROVER, request.number)
        self._await_checks(request)
        for _ in range(_JUDGEMENTS):
            if not self.hub.blockers(request.number):
                break
            # The soak gate needs time and traffic: judge again.
            time.sleep(_SOAK_LOOK_SECONDS if self.delays else 1)
            newest = next(r for r in self.hub.runs() if r.workflow == "promote" and r.head_sha == request.head_sha)
            self.hub.rerun(newest.number)
            self._await_checks(request)
        deployment = RequestedRun("deploy", self.hub.newest())
        merged = time.time()
        if self.hub.blockers(request.number):
            self._show_refusal(request)
        commit = self.hub.merge(APPROVER, request.number)
        click.echo(f"   {APPROVER} approves and merges pull request {request.number}: {request.title} ({commit[:12]})")
        is_faulty = bool(self.fault) and environment == self._environment_of_fault()
        if is_faulty:
            self._prepare_fault(environment)
        if arriving:
            self._ingest(arriving)
        if is_faulty:
            self._run_again_after_failure(deployment)
        self._await(deployment)
        recorded = Ledger(self.target.descriptor(environment), self.sample.model).head()
        assert recorded is not None
        seconds = recorded.event.at.timestamp() - merged
        click.secho(f"   verified and recorded {seconds:.1f} s after the merge", fg="green")

    def _run_again_after_failure(self, deployment: RequestedRun) -> None:
        """Wait for a deployment that met a fault, and run it again if it failed, as a person would."""
        from laptop.github.hosting import APPROVER

        run = self.hub.wait(deployment.workflow, after=deployment.after)
        if run.conclusion != "success":
            for line in errors_of(run):
                click.secho(f"   | {line}", fg="yellow")
            time.sleep(max(0.0, self._fault_ends - time.monotonic()))
            click.echo(f"   {APPROVER} runs it again")
            self.hub.rerun(run.number)

    def _environment_of_fault(self) -> str:
        """Return the environment whose deployment meets the fault: one of GitHub needs a release to propose."""
        return self.project.environments[-2 if self.fault in _FAULTS_OF_GITHUB else -1]

    def _prepare_fault(self, environment: str) -> None:
        """Inject the fault once the Rollout exists, so that the deployment waits for it; or one of GitHub later."""
        if self.fault in _FAULTS_OF_GITHUB:
            self._awaits_proposal = True
            return
        from pipelines.cluster.connection import connect
        from pipelines.cluster.rollouts import Rollout

        with connect(self.project.stack(environment).config.environment.namespace) as client:
            if self.fault == _FAULT_OF_IMAGES:
                self._throttle_pulls(client)
            else:
                while not list(client.list(Rollout)):
                    time.sleep(0.2)
        self._inject()
        time.sleep(_FAULT_SECONDS)  # what the demo itself does next must not meet the fault

    def _throttle_pulls(self, client: Client) -> None:
        """Throttle ECR until a pod waits for its image.

        Raises:
            MlopsError: no pod asked for an image in time.
        """
        from lightkube.resources.core_v1 import Pod

        Faults(self.home).inject(self.fault, _PULL_SECONDS)
        until = time.monotonic() + _PULL_SECONDS
        while not (waiting := [pod for pod in client.list(Pod) if waits_for_image(pod)]):
            if time.monotonic() > until:
                raise MlopsError(f"the fault {self.fault} met nothing: expected a pod that waits for its image")
            time.sleep(0.2)
        assert waiting[0].metadata is not None
        click.secho(f"   {waiting[0].metadata.name} waits for its image", fg="yellow")

    def _inject(self) -> None:
        Faults(self.home).inject(self.fault, _FAULT_SECONDS)
        self._fault_ends = time.monotonic() + _FAULT_SECONDS
        click.secho(f"   {FAULTS[self.fault]}, for {_FAULT_SECONDS:g} s", fg="yellow")

    def _show_refusal(self, request: PullRequestRecord) -> None:
        for comment in self.hub.server.comments(request.number):
            for line in comment["body"].splitlines():
                if line.startswith("| ") and ("❌" in line or "⚠️" in line):
                    click.secho(f"   {line}", fg="yellow")


def waits_for_image(pod: Pod) -> bool:
    """Return whether a container of a pod has not started because its image could not be pulled."""
    status = pod.status
    found = [*(status.initContainerStatuses or ()), *(status.containerStatuses or ())] if status is not None else []
    reasons = {one.state.waiting.reason for one in found if one.state is not None and one.state.waiting is not None}
    return bool(reasons & {"ErrImagePull", "ImagePullBackOff"})


def errors_of(run: WorkflowRun) -> list[str]:
    """Return the errors in the logs of a run's failed jobs, each with what follows until its step ended."""
    found: list[str] = []
    for job in run.jobs:
        inside = False
        for line in job.log.read_text().splitlines() if job.log is not None and job.conclusion == "failure" else ():
            said = line.removeprefix("##[error]")
            of_action = said != line and not said.startswith("Process completed")
            inside = of_action or (not line.startswith("##[") and (inside or line.startswith("error: ")))
            found += [said] if inside else []
    return found


def lines_of(run: WorkflowRun, words: str) -> list[str]:
    """Return the log lines of a run that contain some words."""
    logs = [job.log for job in run.jobs if job.log is not None]
    return [line for log in logs for line in log.read_text().splitlines() if words in line]


@click.command(cls=Command)
@click.option("--keep", is_flag=True, help="Leave the laptop running at the end, to look around.")
@click.option("--realistic", is_flag=True, help="Be as late and strict as AWS and GitHub; time runs 20 times as fast.")
@click.option("--time-scale", type=click.FloatRange(1.0, 1000.0), help="How many times as fast time runs.")
@click.option("--delay", "settings", multiple=True, metavar="NAME=SECONDS", help="Change a delay; can be repeated.")
@click.option("--both", is_flag=True, help="Show both sample models, one after the other.")
@click.option("--operate", is_flag=True, help="Show a model in operation instead; its days pass in seconds.")
@click.option(
    "--data", "on_data", is_flag=True, help="Show work on data instead: quarantine, contract, drift, lineage."
)
@click.option("--fault", type=click.Choice(tuple(FAULTS)), help="Inject a fault once, during a deployment.")
@click.option(
    "--delay-factor", type=click.FloatRange(0.01, 100.0), default=1.0, help="Multiply every delay; 2 doubles."
)
def demo(
    keep: bool,
    realistic: bool,
    both: bool,
    operate: bool,
    on_data: bool,
    time_scale: float | None,
    settings: tuple[str, ...],
    fault: str | None,
    delay_factor: float,
) -> None:
    """Show the whole journey from data to prod on this machine.

    Promotes a model by pull requests from dev to prod, lets the gates refuse a bad candidate, and rolls a release back.
    With --operate: drift, late labels that reveal a harmful release, its rollback, bias, and a retraining. With --data:
    quarantined rows, a contract change and what it breaks, drift, and lineage.
    """
    if (settings or delay_factor != 1.0) and not realistic:
        raise MlopsError("delays: expected --realistic with them, found nothing", fix="add --realistic.")
    if fault in NEEDS_LOAD_BALANCERS and not realistic:
        raise MlopsError(f"--fault {fault}: expected --realistic with it, found nothing", fix="add --realistic.")
    scale = time_scale or (_REALISTIC_SCALE if realistic else 1.0)
    chosen = delays.NONE
    if realistic:
        chosen = delays.realistic([*delays.from_environment(), *settings], time_scale=scale, factor=delay_factor)
    if operate or on_data:
        if realistic or both or fault or (operate and on_data):
            one = "--operate" if operate else "--data"
            raise MlopsError(f"{one}: expected it alone, found another choice of what to show", fix="leave it out.")
        if operate:
            from laptop.demo.operation import OperationDemo

            OperationDemo(Project.find(), keep=keep, samples=(CENSUS,)).run()
        else:
            from laptop.demo.data_work import DataDemo

            DataDemo(Project.find(), keep=keep).run()
        return
    samples = SAMPLE_MODELS if both else (PATIENTS,)
    Demo(Project.find(), keep=keep, delays=chosen, time_scale=scale, fault=fault or "", samples=samples).run()
