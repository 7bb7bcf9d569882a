"""Keep the local target up between commands: `mlops local start|stop|status|env`."""

from __future__ import annotations

import shlex

import click

from pipelines.cli.targets import home
from pipelines.declarations.project import Project


@click.group()
def local() -> None:
    """The local target: an emulated AWS account and a small cluster on this machine."""


@local.command()
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0.001, max=1.0),
    default=1.0,
    show_default=True,
    help="Rollout pauses last this share of what they declare.",
)
def start(time_scale: float) -> None:
    """Start it, and leave it running."""
    from infra.local import target

    project = Project.find()
    running = target.start(home(project), project.root, time_scale=time_scale)
    click.echo(f"AWS        {running.aws_endpoint}")
    click.echo(f"Kubernetes {running.kubernetes_endpoint}")
    click.echo('Point other tools at it with: eval "$(mlops local env)"')


@local.command()
def stop() -> None:
    """Stop it. What it held in memory - the account and its stacks - is gone."""
    from infra.local import target

    target.stop(home(Project.find()))
    click.echo("The local target is stopped; its account and stacks are gone.")


@local.command()
def status() -> None:
    """Say whether it runs, where, and what runs in it."""
    from infra.local import target

    click.echo(str(target.status(home(Project.find()))))


@local.command()
def env() -> None:
    """Print the variables that point the AWS CLI, kubectl and SDKs at it."""
    from infra.local import target

    for name, value in target.find(home(Project.find())).environ().items():
        click.echo(f"export {name}={shlex.quote(value)}")
