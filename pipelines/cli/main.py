"""The verbs of `mlops`, each in the module that knows its part; loaded only when it is used."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points
from typing import Any

import click

from pipelines.declarations.errors import MlopsError
from pipelines.startup import relax_gc

COMMANDS = "mlops.commands"
"""Entry point group by which an installed distribution adds commands."""

VERBS = {
    "check": "pipelines.cli.declare:check",
    "schemas": "pipelines.cli.declare:schemas",
    "new": "pipelines.cli.new:new",
    "doctor": "pipelines.cli.doctor:doctor",
    "preview": "pipelines.cli.stacks:preview",
    "up": "pipelines.cli.stacks:up",
    "destroy": "pipelines.cli.stacks:destroy",
    "refresh": "pipelines.cli.stacks:refresh",
    "output": "pipelines.cli.stacks:output",
    "images": "pipelines.cli.images:images",
    "ingest": "pipelines.cli.run:ingest",
    "train": "pipelines.cli.run:train",
    "release": "pipelines.cli.releases:release",
    "deploy": "pipelines.cli.releases:deploy",
    "predict": "pipelines.cli.releases:predict",
    "plan": "pipelines.cli.promote:plan",
    "connect": "pipelines.cli.promote:connect",
    "gates": "pipelines.cli.promote:gates",
    "review": "pipelines.cli.promote:review",
    "propose": "pipelines.cli.promote:propose",
    "propose-next": "pipelines.cli.releases:propose_next",
    "rollback": "pipelines.cli.promote:rollback",
    "respond": "pipelines.cli.promote:respond",
    "audit": "pipelines.cli.promote:audit",
    "history": "pipelines.cli.promote:history",
}
"""Verb → where its command is."""


class Verbs(click.Group):
    """A group whose commands are imported when they are called: starting takes a tenth of a second, not two."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS, *sorted(entry.name for entry in entry_points(group=COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = VERBS.get(cmd_name)
        if place is not None:
            module, name = place.split(":")
            command = getattr(importlib.import_module(module), name)
        else:
            installed = [entry for entry in entry_points(group=COMMANDS) if entry.name == cmd_name]
            if not installed:
                return None
            command = installed[0].load()
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def mlops() -> None:
    """Run machine-learning models on AWS and Kubernetes by pull request - or all of it on this machine."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors that a person can act on are printed without a traceback, with exit status 1."""
    relax_gc()
    try:
        return mlops(args=arguments, prog_name="mlops")
    except MlopsError as error:
        click.secho("error: ", nl=False, err=True, fg="red", bold=True)
        click.echo(str(error), err=True)
        sys.exit(1)
