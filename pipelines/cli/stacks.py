"""Provision environments: `mlops preview|up|destroy|refresh|output`."""

from __future__ import annotations

import json

import click

from pipelines.cli.options import environment_option, open_target, target_option
from pipelines.declarations.errors import MlopsError


@click.command()
@environment_option
@target_option
def preview(environment: str, target: str) -> None:
    """Show what `up` would change in an environment."""
    open_target(target).apply("preview", environment)


@click.command()
@environment_option
@target_option
def up(environment: str, target: str) -> None:
    """Make an environment as the repository declares it."""
    open_target(target).apply("up", environment)


@click.command()
@environment_option
@click.option("--confirm", default="", help="The environment's name again.")
@target_option
def destroy(environment: str, confirm: str, target: str) -> None:
    """Remove an environment; what is protected refuses."""
    if confirm != environment:
        raise MlopsError(f"removing {environment} is not confirmed", fix=f"add --confirm {environment}")
    open_target(target).apply("destroy", environment)


@click.command()
@environment_option
@target_option
def refresh(environment: str, target: str) -> None:
    """Compare an environment's state with what is really there, and take over what differs."""
    open_target(target).apply("refresh", environment)


@click.command()
@environment_option
@target_option
def output(environment: str, target: str) -> None:
    """Print the outputs of an environment's stack as JSON."""
    click.echo(json.dumps(open_target(target).outputs(environment), indent=2))
