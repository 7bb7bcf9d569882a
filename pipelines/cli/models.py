"""Commands for data and models."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipelines.cli.commands import Command, Group
from pipelines.cli.options import environment_option, log, open_target, target_option, write_output
from pipelines.declarations.project import Project

TASKS = ("classification", "regression")


@click.command(cls=Command)
@click.argument("dataset")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Upload this file to the landing bucket first.",
)
@environment_option
@target_option
def ingest(dataset: str, files: tuple[Path, ...], environment: str, target: str) -> None:
    """Check landing files against the contract and append them.

    Runs the ingest job of DATASET. Rows that break the contract go to quarantine with the reasons.
    """
    from pipelines.targets.workloads import run_ingest

    run_ingest(open_target(target), environment, dataset, files, log)


@click.group(cls=Group)
def new() -> None:
    """Create a new model."""


@new.command()
@click.argument("name")
@click.option(
    "--task", type=click.Choice(TASKS), default="classification", show_default=True, help="What the model predicts."
)
@click.option("--owner", default="ml-platform", show_default=True, help="Team that owns the model.")
def model(name: str, task: str, owner: str) -> None:
    """Create the model NAME, with a contract and sample data.

    The new model passes the tests unchanged.
    """
    from pipelines.declarations.starter import start_model

    project = Project.find()
    for path in start_model(project, name, task, owner):
        click.echo(f"wrote {path.relative_to(project.root)}")
    click.echo(
        f"Next: write your columns into the contract, edit models/{name}/train.py, "
        "then run `mlops validate` and `make test`."
    )


@click.command(cls=Command)
@click.argument("model")
@environment_option
@target_option
def train(model: str, environment: str, target: str) -> None:
    """Train a model in an environment and register its bundle.

    Runs the training job of MODEL in the pinned image. The last line is the digest of the bundle.
    """
    from pipelines.targets.workloads import run_training

    digest = run_training(open_target(target), environment, model, log)
    write_output("bundle", digest)
    click.echo(digest)


@click.command(cls=Command)
@click.argument("model")
@environment_option
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Open Inference Protocol request as JSON; default: the golden request of the live bundle.",
)
@click.option("--direct", is_flag=True, help="Ask the load balancer; only the private network reaches it.")
@target_option
def predict(model: str, environment: str, file: Path | None, direct: bool, target: str) -> None:
    """Send a prediction request to a model's endpoint.

    The request goes to one of the endpoint's pods through the Kubernetes API.
    """
    from pipelines.promotion import predict as module

    request, response = module.predict(
        open_target(target), model, environment, file.read_bytes() if file is not None else None, direct=direct
    )
    click.echo(f"request   {json.dumps(request)}")
    click.echo(f"response  {json.dumps(response)}")
