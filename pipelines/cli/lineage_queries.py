"""Commands for lineage: `mlops lineage bundle|prediction|file|column|contract`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.cli.commands import Group
from pipelines.cli.lineage_facts import load_facts
from pipelines.cli.options import environment_option, save, target_option

if TYPE_CHECKING:
    from pipelines.lineage.facts import LineageFacts
    from pipelines.lineage.graph import LineageGraph

FORMATS = ("text", "json", "svg")

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Group)
def lineage() -> None:
    """Trace bundles back to landing files, and data to releases."""


def query_options(function: F) -> F:
    """Add the options that every query has."""
    for option in reversed(
        (
            click.option("--offline", is_flag=True, help="Use local copies; read no environment."),
            click.option(
                "--format",
                "form",
                type=click.Choice(FORMATS),
                default="text",
                show_default=True,
                help="Output format.",
            ),
            click.option(
                "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the output to this file."
            ),
            target_option,
        )
    ):
        function = option(function)
    return function


@lineage.command()
@click.argument("model")
@click.argument("digest", default="")
@click.option("--env", "environment", default="", metavar="NAME", help="The bundle that is live here.")
@query_options
def bundle(
    model: str, digest: str, environment: str, offline: bool, form: str, output: Path | None, target: str
) -> None:
    """Trace a bundle back to its landing files, and on to its releases.

    DIGEST is a bundle of MODEL, or the first digits of it. Without it: the bundle that is live in the last environment.
    """
    from pipelines.lineage.graph import build_graph, find_bundle, trace

    facts = load_facts(target, offline=offline)
    start = find_bundle(facts, model, digest, environment)
    _show(facts, trace(build_graph(facts), [start], back=True, forward=True), f"Lineage of {start}", form, output)


@lineage.command()
@click.argument("model")
@click.argument("snapshot", default="")
@environment_option
@query_options
def prediction(
    model: str, snapshot: str, environment: str, offline: bool, form: str, output: Path | None, target: str
) -> None:
    """Trace a batch prediction back to its input, its bundle and their data.

    SNAPSHOT is a version of the dataset MODEL-predictions; the latest one by default.
    """
    from pipelines.lineage.graph import build_graph, find_prediction, trace

    facts = load_facts(target, offline=offline)
    start = find_prediction(facts, model, environment, snapshot)
    _show(facts, trace(build_graph(facts), [start], back=True, forward=False), f"Lineage of {start}", form, output)


@lineage.command()
@click.argument("dataset")
@click.argument("name")
@query_options
def file(dataset: str, name: str, offline: bool, form: str, output: Path | None, target: str) -> None:
    """Trace a landing file to every bundle and release that it reached."""
    from pipelines.lineage.graph import build_graph, find_nodes, trace

    facts = load_facts(target, offline=offline)
    graph = build_graph(facts)
    starts = find_nodes(graph, "file", ends=f"/{dataset}/{name}")
    _show(facts, trace(graph, starts, back=False, forward=True), f"Reach of {dataset}/{name}", form, output)


@lineage.command()
@click.argument("dataset")
@click.argument("name")
@query_options
def column(dataset: str, name: str, offline: bool, form: str, output: Path | None, target: str) -> None:
    """Trace a column to every bundle and release that reads it."""
    from pipelines.lineage.graph import build_graph, column_node, find_nodes, trace

    facts = load_facts(target, offline=offline)
    graph = build_graph(facts)
    node = column_node(dataset, name)
    starts = [each for each in find_nodes(graph, "column", starts=node.name) if each == node]
    starts = starts or find_nodes(graph, "column", starts=node.name, ends=f".{name}")
    _show(facts, trace(graph, starts, back=False, forward=True), f"Reach of {node.name}", form, output)


@lineage.command()
@click.argument("dataset")
@click.argument("version", default="")
@query_options
def contract(dataset: str, version: str, offline: bool, form: str, output: Path | None, target: str) -> None:
    """Trace a contract to every bundle and release whose data it checked.

    VERSION is a version of the contract; all of them by default.
    """
    from pipelines.lineage.graph import build_graph, find_nodes, trace

    facts = load_facts(target, offline=offline)
    graph = build_graph(facts)
    starts = find_nodes(graph, "contract", starts=f"{dataset}@", ends=f"@{version}" if version else "")
    _show(facts, trace(graph, starts, back=False, forward=True), f"Reach of the contract {dataset}", form, output)


def _show(facts: LineageFacts, graph: LineageGraph, title: str, form: str, output: Path | None) -> None:
    from pydantic_core import to_json  # of ten thousand nodes, `json` takes ten times as long

    from pipelines.lineage.drawing import draw_graph
    from pipelines.lineage.graph import graph_json, graph_lines

    if form == "svg":
        text = draw_graph(graph, title)
    elif form == "json":
        found = {"gathered": facts.gathered.isoformat(), **graph_json(graph)}
        text = to_json(found, indent=2, ensure_ascii=True).decode() + "\n"
    else:
        text = "\n".join([f"{title}, as of {facts.gathered:%Y-%m-%d %H:%M} UTC", *graph_lines(graph)]) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    save(text.encode(), output)
