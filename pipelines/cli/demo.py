"""The main job, end to end, on this machine: `mlops demo`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pipelines.cli.targets import LocalTarget
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

MODEL = "diabetes-progression"
DATASET = "diabetes-patients"


class Journey:
    """Prints the steps of the demo with their times.

    Args:
        count: how many steps there will be.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.done: list[tuple[str, float]] = []
        self.started = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step: its title before, its time after."""
        click.secho(f"\n[{len(self.done) + 1}/{self.count}] {title}", bold=True)
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.done.append((title, seconds))
        click.secho(f"      {seconds:.1f} s", fg="green")

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.started


def own_clone(project: Project, to: Path) -> Project:
    """A clone of the project as its working tree stands, in which the demo may change and commit files.

    Raises:
        MlopsError: git cannot make it.
    """
    if to.exists():
        shutil.rmtree(to)
    to.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project.root,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise MlopsError(f"git cannot list the files of {project.root}: {listed.stderr.decode().strip()}")
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, copy = project.root / name, to / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    git(to, "init", "--quiet", "--initial-branch=main")
    git(to, "add", "--all")
    git(to, "commit", "--quiet", "--message=The repository as it was when the demo began")
    return Project(to)


def git(folder: Path, *arguments: str) -> str:
    """Run git as the demo's own user; what it printed.

    Raises:
        MlopsError: it failed.
    """
    identity = ["-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MlopsError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


@click.command()
@click.option("--keep", is_flag=True, help="Leave the local target running at the end, to explore it.")
def demo(keep: bool) -> None:
    """The main job, end to end: three environments, one model, from raw data to an answer from prod."""
    from infra.local import target as local_target
    from pipelines.cli.images import local_digests, publish_locally
    from pipelines.cli.releases import ask, run_deploy
    from pipelines.cli.run import run_ingest, run_training
    from pipelines.data.landing import collect
    from pipelines.promotion.images import pin_images
    from pipelines.promotion.release import release

    source = Project.find()
    scratch = source.root / ".mlops" / "demo"
    home = scratch / "local"
    journey = Journey(count=11)
    local_target.stop(home)
    with journey.step("Start an AWS account and a cluster on this machine, and a clone to work in"):
        project = own_clone(source, scratch / "clone")
        os.chdir(project.root)
        os.environ["MLOPS_HOME"] = str(home)
        running = local_target.start(home, project.root, attached=not keep)
        click.echo(f"AWS {running.aws_endpoint}, Kubernetes {running.kubernetes_endpoint}, clone {project.root}")
    try:
        target = LocalTarget(project)
        target.connect()
        images = local_digests(project)
        for environment in project.environments:
            with journey.step(f"Provision {environment}: the same Pulumi program that runs on AWS"):
                pin_images(project, environment, images)
                target.apply("up", environment)
                publish_locally(target, target.descriptor(environment))
        first = project.environments[0]
        with journey.step(f"Ingest {DATASET}: check it against its contract, quarantine what breaks it"):
            descriptor = target.descriptor(first)
            collect(descriptor, DATASET, project.contracts_folder / "samples" / f"{DATASET}.csv")
            run_ingest(project, descriptor, DATASET)
        with journey.step(f"Train {MODEL}: a Job under its own role, signed, registered by digest"):
            digest, _ = run_training(project, descriptor, MODEL)
        for environment in project.environments:
            with journey.step(f"Release {MODEL} to {environment}"):
                path = release(project, target.descriptors(), MODEL, environment, digest)
                git(project.root, "commit", "--quiet", "--message", f"Release {MODEL} to {environment}", str(path))
                run_deploy(target, environment)
        last = project.environments[-1]
        with journey.step(f"Ask the endpoint of {last}"):
            request, answer = ask(target, MODEL, last)
            click.echo(f"request  {request}")
            click.echo(f"answer   {answer}")
        with journey.step("What was made"):
            summarise(target, journey)
    finally:
        if not keep:
            local_target.stop(home)
    click.echo(f"\nThe whole journey took {journey.seconds:.1f} s.")
    if keep:
        click.echo(
            f'It is still running. Explore it with: export MLOPS_HOME={home}; eval "$(.venv/bin/mlops local env)"'
        )
    else:
        click.echo("Everything it started is stopped. To look around in it, run it with --keep, or see README.md.")


def summarise(target: LocalTarget, journey: Journey) -> None:
    """Print what runs where, and what it took."""
    from infra.local.engine.state import resource_counts

    for environment in target.project.environments:
        descriptor = target.descriptor(environment)
        counts = ", ".join(f"{n} {package}" for package, n in resource_counts(target.home, environment).items())
        click.echo(f"{environment:<8} {counts}; endpoint {descriptor.endpoints.get(MODEL, 'none')}")
        click.echo(f"{'':<8} runs {target.project.release(MODEL, environment).bundle}")
    for title, seconds in journey.done:
        click.echo(f"  {seconds:5.1f} s  {title}")
