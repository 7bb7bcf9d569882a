"""Summaries of the commands that the laptop adds."""

from __future__ import annotations

from importlib.metadata import entry_points

from pipelines.cli.commands import PLUGINS
from tests.pipelines.cli.command_tree import command_tree, unexplained


def test_every_command_has_a_one_line_summary_and_every_option_an_explanation() -> None:
    verbs = {entry.name: entry.load() for entry in entry_points(group=PLUGINS) if entry.module.startswith("laptop.")}
    assert len(verbs) == 3
    assert unexplained(command_tree(verbs)) == []
