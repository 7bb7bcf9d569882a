"""Summaries of commands and help of options."""

from __future__ import annotations

import click

from pipelines.cli.main import VERBS
from tests.pipelines.cli.command_tree import command_tree, unexplained


def test_every_command_has_a_one_line_summary_and_every_option_an_explanation() -> None:
    assert unexplained(command_tree(VERBS)) == []


def test_a_name_that_markdown_takes_for_html_is_found() -> None:
    """Help is Markdown: `<project>-NAME` would be shown as `-NAME`."""
    named = click.Command("new", params=[click.Option(["--one"], help="Suggested: <project>-NAME.")], help="Make it.")
    assert unexplained([(("new",), named)]) == ["mlops new --one: <…> in its help is not shown: HTML"]


def test_a_long_summary_and_an_option_without_explanation_are_found() -> None:
    long = click.Command("long", params=[click.Option(["--one"])], help=f"Do {'many ' * 20}things.")
    assert unexplained([(("long",), long)]) == [
        "mlops long: its summary has 110 characters, at most 70 fit",
        "mlops long --one has no help",
    ]
    assert unexplained([(("open",), click.Command("open", help="Open it"))]) == [
        "mlops open: its summary does not end with a full stop"
    ]
