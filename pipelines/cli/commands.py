"""Click commands and groups whose help is rendered by rich-click, which is imported only to show help."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import click

PLUGINS = "mlops.commands"
"""Entry point group of the commands of other distributions; each entry is a `Verb` under the command's name."""


@dataclass(frozen=True)
class Verb:
    """A command that is imported when it is used.

    Attributes:
        place: the `click.Command`, as `module:attribute`.
        help: one line, at most 70 characters; the first line of the command's own help.
        section: the heading under which `mlops --help` lists the command.
    """

    place: str
    help: str
    section: str = ""

    def load(self) -> click.Command:
        """Import the command."""
        module, name = self.place.split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


class Command(click.Command):
    """A command with rich help."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from pipelines.cli.help import render

        formatter.write(render(self, ctx, []))


class Group(click.Group):
    """A group with rich help, which suggests a command for an unknown name.

    Args:
        renamed: former name of a command → its name now, for the suggestion.
    """

    command_class = Command

    def __init__(self, *args: Any, renamed: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.renamed = dict(renamed or {})

    def verbs(self, ctx: click.Context) -> dict[str, Verb]:
        """Return the commands by name, in the order in which help lists them."""
        return {name: Verb("", first_line(command)) for name, command in self.commands.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs(ctx))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from pipelines.cli.help import render

        formatter.write(render(self, ctx, list(self.verbs(ctx).items())))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            name, now = error.command_name, self.renamed.get(error.command_name)
            message = f"No such command {name!r}. Did you mean '{now}'?" if now else None
            raise click.NoSuchCommand(name, message, None if now else self.verbs(ctx), ctx) from None


class LazyGroup(Group):
    """A group that imports a command when it is used."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = self.verbs(ctx).get(cmd_name)
        return verb.load() if verb is not None else None


def plugin_verbs() -> dict[str, Verb]:
    """Return the commands of other distributions, by name, sorted."""
    return {entry.name: entry.load() for entry in sorted(entry_points(group=PLUGINS), key=lambda entry: entry.name)}


def first_line(command: click.Command) -> str:
    """Return the first line of a command's help."""
    return (command.help or "").partition("\n")[0]
