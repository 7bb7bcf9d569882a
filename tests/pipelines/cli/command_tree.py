"""Every command of `mlops` and what `--help` lacks about it, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from pipelines.cli.commands import Verb, first_line

SUMMARY_LENGTH = 70
"""Longest summary, in characters: a line of `--help` holds it beside the name of its command."""


def command_tree(verbs: Mapping[str, Verb]) -> list[tuple[tuple[str, ...], click.Command]]:
    """Return verbs and all of their subcommands, each with its path."""
    return [found for name, verb in verbs.items() for found in _walk(verb.load(), (name,))]


def _walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _walk(child, (*path, name))


def unexplained(tree: list[tuple[tuple[str, ...], click.Command]]) -> list[str]:
    """Return what `--help` could not show well: long summaries, options without help, and HTML."""
    found: list[str] = []
    for path, command in tree:
        name, summary = f"mlops {' '.join(path)}", first_line(command)
        if not summary:
            found.append(f"{name}: it has no summary")
        elif len(summary) > SUMMARY_LENGTH:
            found.append(f"{name}: its summary has {len(summary)} characters, at most {SUMMARY_LENGTH} fit")
        elif not summary.endswith("."):
            found.append(f"{name}: its summary does not end with a full stop")
        options = [option for option in command.params if isinstance(option, click.Option)]
        found += [f"{name} {option.opts[0]} has no help" for option in options if not option.help]
        texts = {name: command.help or "", **{f"{name} {option.opts[0]}": option.help or "" for option in options}}
        found += [f"{where}: <…> in its help is not shown: HTML" for where, text in texts.items() if "<" in text]
    return found
