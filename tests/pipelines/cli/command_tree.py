"""Every command of `mlops`, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from pipelines.cli.commands import Verb


def command_tree(verbs: Mapping[str, Verb]) -> list[tuple[tuple[str, ...], click.Command]]:
    """Return verbs and all of their subcommands, each with its path."""
    return [found for name, verb in verbs.items() for found in _walk(verb.load(), (name,))]


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _walk(child, (*path, name))
