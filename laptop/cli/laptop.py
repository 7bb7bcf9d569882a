"""Keep the local target up between commands: `mlops laptop start|stop|status|env`."""

from __future__ import annotations

import shlex

import click

from laptop.target import LaptopTarget, home
from pipelines.cli.options import environment_option
from pipelines.declarations.project import Project


@click.group()
def laptop() -> None:
    """The local target: an emulated AWS account and a small cluster on this machine."""


@laptop.command()
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0.001, max=1.0),
    default=1.0,
    show_default=True,
    help="Rollout pauses last this share of what they declare.",
)
@click.option(
    "--fork-server/--no-fork-server", default=True, help="Fork Python pods instead of starting a new Python for each."
)
def start(time_scale: float, fork_server: bool) -> None:
    """Start it, and leave it running."""
    from laptop import lifecycle

    project = Project.find()
    running = lifecycle.start(home(project), project.root, time_scale=time_scale, fork_server=fork_server)
    click.echo(f"AWS        {running.aws_endpoint}")
    click.echo(f"Kubernetes {running.kubernetes_endpoint}")
    click.echo('Point other tools at it with: eval "$(mlops laptop env)"')


@laptop.command()
def stop() -> None:
    """Stop it. What it held in memory - the account and its stacks - is gone."""
    from laptop import lifecycle

    lifecycle.stop(home(Project.find()))
    click.echo("The local target is stopped; its account and stacks are gone.")


@laptop.command()
def status() -> None:
    """Say whether it runs, where, and what runs in it."""
    from laptop import lifecycle

    click.echo(str(lifecycle.status(home(Project.find()))))


@laptop.command()
def env() -> None:
    """Print the variables that point the AWS CLI, kubectl and SDKs at it."""
    from laptop import lifecycle

    for name, value in lifecycle.find(home(Project.find())).environ().items():
        click.echo(f"export {name}={shlex.quote(value)}")


@laptop.command("publish-images")
@environment_option
def publish_images(environment: str) -> None:
    """Publish the images of this working tree, and pin them in an environment.

    Nothing is compiled: an image is a manifest that names the content of the files that would be copied into it.
    Pods run those files with the Python environment of this project. On AWS, the workflow `images` builds and
    pushes.
    """
    from laptop.publishing import publish_locally
    from pipelines.promotion.images import NAMES, pin_images

    target = LaptopTarget(Project.find())
    target.connect()
    digests = publish_locally(target)
    pin_images(target.project, environment, digests)
    for name in NAMES:
        click.echo(f"{name:<9} {getattr(digests, name)}")
