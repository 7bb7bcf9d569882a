"""Render the help of a command with rich-click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from rich_click import RichCommand, RichContext, RichGroup, RichHelpConfiguration

from pipelines.cli.commands import Verb

CONFIGURATION = RichHelpConfiguration(commands_before_options=True, text_markup="markdown", max_width=100)


class _Listing(RichGroup):
    """A group that lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def render(command: click.Command, ctx: click.Context, verbs: Sequence[tuple[str, Verb]]) -> str:
    """Return the help of a command.

    Args:
        command: the command.
        ctx: its context.
        verbs: name → subcommand, in the order of the list.
    """
    parts: dict[str, Any] = {"name": command.name, "params": command.params, "help": command.help}
    shown: RichCommand
    if isinstance(command, click.Group):
        shown = _Listing(**parts)
        for name, verb in verbs:
            shown.add_command(RichCommand(name=name, help=verb.help, panel=verb.section or None))
    else:
        shown = RichCommand(**parts)
    rich = RichContext(
        shown,
        parent=ctx.parent,
        info_name=ctx.info_name,
        help_option_names=ctx.help_option_names,
        rich_help_config=CONFIGURATION,
    )
    formatter = rich.make_formatter()
    shown.format_help(rich, formatter)
    return str(formatter.getvalue())
