"""Commands for the catalogue of datasets: `mlops catalog list|search|render`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.commands import Group
from pipelines.cli.lineage_facts import load_facts_if_any
from pipelines.cli.options import open_target, target_option
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.dataset_catalog.dataset_entries import DatasetEntry

tables_option = click.option("--env", "environment", metavar="NAME", help="Also read the tables of this environment.")


@click.group(cls=Group)
def catalog() -> None:
    """List, search and render the datasets."""


@catalog.command("list")
@tables_option
@target_option
def list_datasets(environment: str | None, target: str) -> None:
    """List the datasets, with their contracts and owners."""
    from pipelines.dataset_catalog.dataset_entries import entry_lines

    entries = _entries(environment, target)
    click.echo("\n".join(entry_lines(entries)) or "no datasets yet")


@catalog.command()
@click.argument("words", nargs=-1, required=True)
@tables_option
@target_option
def search(words: tuple[str, ...], environment: str | None, target: str) -> None:
    """Find the datasets that mention every word.

    Names, descriptions, owners, tags, classifications and models are searched. Exits with 1 if nothing is found.
    """
    from pipelines.dataset_catalog.dataset_entries import entry_lines, search_entries

    found = search_entries(_entries(environment, target), " ".join(words))
    for entry, places in found:
        click.echo("\n".join(entry_lines([entry])))
        click.echo(f"    found in {', '.join(places)}")
    if not found:
        click.echo(f"no dataset mentions {' and '.join(words)}")
        raise click.exceptions.Exit(1)


@catalog.command()
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/catalog"),
    show_default=True,
    help="Folder of the pages.",
)
@tables_option
@target_option
def render(output: Path, environment: str | None, target: str) -> None:
    """Render a static page for each dataset.

    With --env, the pages have rows, versions and lineage. They need no server and no network.
    """
    from pipelines.dataset_catalog.dataset_pages import write_pages

    project = Project.find()
    facts = load_facts_if_any(target, live=environment is not None)
    for path in write_pages(output, project.name, _entries(environment, target), facts):
        click.echo(f"wrote {path}")


def _entries(environment: str | None, target: str) -> list[DatasetEntry]:
    from pipelines.dataset_catalog.dataset_entries import read_entries

    project = Project.find()
    descriptor = open_target(target).descriptor(environment) if environment is not None else None
    return read_entries(project, descriptor)
