"""Run the data and training jobs: `mlops ingest`, `mlops train`."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from pipelines.cli.options import environment_option, open_target, target_option
from pipelines.cli.workflow import set_output
from pipelines.cluster.jobs import JobRun, run_job
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.git import Git


def echo_line(line: str) -> None:
    """Show a line of a job's log."""
    click.echo(f"  | {line}")


def source_commit(project: Project) -> str:
    """The commit that is checked out; empty outside a git repository."""
    try:
        return Git(project.root).head()
    except MlopsError:
        return ""


def run_ingest(project: Project, descriptor: EnvironmentDescriptor, dataset: str) -> JobRun:
    """Run the ingest job of a dataset, showing its log.

    Raises:
        MlopsError: there is no such dataset or job, or it failed.
    """
    project.contract(dataset)
    return run_job(descriptor.namespace, f"ingest-{dataset}", variables={}, on_line=echo_line)


def run_training(project: Project, descriptor: EnvironmentDescriptor, model: str) -> tuple[str, JobRun]:
    """Run the training job of a model, showing its log.

    Returns:
        The digest of the bundle it registered, and the run.

    Raises:
        MlopsError: there is no such model or job, or it failed.
    """
    from pipelines.registry.runs import read_run

    declared = project.model(model)
    run_id = "-".join(filter(None, (os.environ.get(f"GITHUB_RUN_{part}") for part in ("ID", "ATTEMPT"))))
    run_id = run_id or secrets.token_hex(8)
    variables = {"RUN_ID": run_id, "SOURCE_COMMIT": source_commit(project)}
    job = run_job(
        descriptor.namespace,
        f"train-{model}",
        variables=variables,
        on_line=echo_line,
        deadline_seconds=declared.training.deadline_seconds + 60,
    )
    return read_run(descriptor, model, run_id), job


@click.command()
@click.argument("dataset")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Put this file into the landing bucket first.",
)
@environment_option
@target_option
def ingest(dataset: str, files: tuple[Path, ...], environment: str, target: str) -> None:
    """Run the ingest job of DATASET: landing → checked against its contract → table, quarantine."""
    from pipelines.data.landing import upload

    opened = open_target(target)
    opened.project.contract(dataset)
    descriptor = opened.descriptor(environment)
    for file in files:
        click.echo(f"landed {upload(descriptor, dataset, file)}")
    run_ingest(opened.project, descriptor, dataset)


@click.command()
@click.argument("model")
@environment_option
@target_option
def train(model: str, environment: str, target: str) -> None:
    """Run the training job of MODEL, in the image that is pinned; prints the digest of the bundle as its last line."""
    opened = open_target(target)
    descriptor = opened.descriptor(environment)
    pinned = opened.project.stack(environment).config.environment.images.training
    if pinned is not None and not (descriptor.images.training or "").endswith(pinned):
        # Not applied here: what is released is judged first, and one at a time works on an environment.
        raise MlopsError(
            f"{environment} does not run the training image that Pulumi.{environment}.yaml pins",
            fix=f"mlops deploy --env {environment}",
        )
    digest, _ = run_training(opened.project, descriptor, model)
    set_output("bundle", digest)
    click.echo(digest)
