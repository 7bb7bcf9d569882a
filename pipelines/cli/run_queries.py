"""Commands for training runs: `mlops runs list|show|compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipelines.cli.commands import Group
from pipelines.cli.options import open_target, save, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.declarations.environment import EnvironmentDescriptor
    from pipelines.training_runs.recorded_runs import RecordedRun

FORMATS = ("text", "json", "html")
TIME = "time"
"""Value of `--sort` that keeps the order of time."""

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Group)
def runs() -> None:
    """List, show and compare training runs and experiments."""


def source_options(last: int) -> Callable[[F], F]:
    """Return a decorator that adds the options which select runs.

    Args:
        last: default number of runs to read from each place.
    """

    def add(function: F) -> F:
        options = (
            click.option("--env", "environment", metavar="NAME", help="Runs that this environment has registered."),
            click.option("--here", is_flag=True, help="Experiments of this working tree (mlops train --here)."),
            click.option(
                "--last", type=click.IntRange(1, 100_000), default=last, show_default=True, help="Read the newest N."
            ),
            target_option,
        )
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _open(project: Project, environment: str | None, here: bool, target: str) -> EnvironmentDescriptor | None:
    """Return the descriptor of the environment whose runs are asked for; None for experiments only."""
    if environment is None and not here:
        raise click.UsageError("Missing option '--env', or '--here'.")
    if environment is None:
        return None
    project.check_trains(environment)
    return open_target(target).descriptor(environment)


def _read(
    project: Project, descriptor: EnvironmentDescriptor | None, model: str, here: bool, last: int
) -> list[tuple[str, list[RecordedRun], int]]:
    """Return the runs of each place: its name, the newest runs, and the number of older ones."""
    found = []
    if descriptor is not None:
        from pipelines.training_runs.recorded_runs import read_runs

        runs, older = read_runs(descriptor, model, project.root, last)
        found.append((f"runs of {model} in {descriptor.name}", runs, older))
    if here:
        from pipelines.training_runs.experiments import read_experiments

        runs, older = read_experiments(project.root, model, last)
        found.append((f"experiments of {model} in this working tree", runs, older))
    return found


@runs.command("list")
@click.argument("model")
@click.option("--metric", default="", metavar="NAME", help="Metric to show; default: that of the champion gate.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@source_options(20)
def list_runs(
    model: str, metric: str, as_json: bool, environment: str | None, here: bool, last: int, target: str
) -> None:
    """List the runs of a model, newest first.

    A run has registered a bundle. An experiment is a training by `mlops train --here`; it is a file in this working
    tree, has no bundle and cannot be released.
    """
    from pipelines.training_runs.run_lines import list_lines

    project = Project.find()
    shown = metric or project.model(model).gates.champion.metric
    places = _read(project, _open(project, environment, here, target), model, here, last)
    if as_json:
        from pipelines.training_runs.run_comparison import run_json

        click.echo(json.dumps([run_json(run) for _, found, _ in places for run in found], indent=2))
        return
    for number, (place, found, older) in enumerate(places):
        if number:
            click.echo()
        if not found:
            click.echo(f"no {place} yet")
            continue
        click.secho(place, bold=True)
        for line in list_lines(found, shown):
            click.echo(line)
        if older:
            click.echo(f"… and {older} older: --last {len(found) + older}")


@runs.command()
@click.argument("model")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@source_options(500)
def show(model: str, run: str, as_json: bool, environment: str | None, here: bool, last: int, target: str) -> None:
    """Show a run: parameters, data, code, and every metric.

    RUN is the id of a run or experiment of MODEL, or the beginning of one. The record of a registered run is compared
    with its bundle.
    """
    from pipelines.training_runs.recorded_runs import disagreements, find_runs
    from pipelines.training_runs.run_comparison import run_json
    from pipelines.training_runs.run_lines import run_lines

    project = Project.find()
    project.model(model)
    descriptor = _open(project, environment, here, target)
    every = [each for _, found, _ in _read(project, descriptor, model, here, last) for each in found]
    (found,) = find_runs(every, [run], model)
    if as_json:
        click.echo(json.dumps(run_json(found), indent=2))
        return
    for line in run_lines(found):
        click.echo(line)
    if descriptor is not None and found.environment is not None and found.facts is not None:
        differing = disagreements(descriptor, found)
        if differing:
            raise MlopsError(
                f"the record of {found.id} does not agree with its bundle: {', '.join(differing)}",
                fix="trust the bundle: `mlops release` and the gates read only that; find out who wrote the record",
            )
        click.echo("\nThe record agrees with the bundle.")


@runs.command()
@click.argument("model")
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option("--sort", default="", metavar="METRIC", help="Best first by this metric, or `time`; default: champion's.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Show this metric; can be repeated.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Output format.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the output to this file.")
@source_options(500)
def compare(
    model: str,
    names: tuple[str, ...],
    sort: str,
    metrics: tuple[str, ...],
    form: str,
    output: Path | None,
    environment: str | None,
    here: bool,
    last: int,
    target: str,
) -> None:
    """Compare runs: what differs, metrics, data and code.

    Each RUN is the id of a run or experiment of MODEL, or the beginning of one; all by default. With --env and --here,
    experiments are compared with registered runs. The page of --format html draws them.
    """
    from pipelines.training_runs.recorded_runs import find_runs
    from pipelines.training_runs.run_comparison import compare_runs, comparison_json

    project = Project.find()
    champion = project.model(model).gates.champion.metric
    places = _read(project, _open(project, environment, here, target), model, here, last)
    every = [each for _, found, _ in places for each in found]
    chosen = find_runs(every, names, model) if names else every
    if not chosen:
        raise MlopsError(
            f"nothing to compare: expected runs of {model}, found none",
            fix=f"mlops train {model} --here, or --env of an environment that has trained it",
        )
    by_time = sort == TIME
    known = any(run.facts is not None and champion in run.facts.metrics for run in chosen)
    order = sort if sort and not by_time else (champion if known else "")
    comparison = compare_runs(model, chosen, order, metrics, by_time=by_time)
    if form == "html":
        from pipelines.training_runs.run_page import render_comparison

        save(render_comparison(comparison), output or Path(f"{model}-runs.html"))
        return
    if form == "json":
        text = json.dumps(comparison_json(comparison), indent=2)
    else:
        from pipelines.training_runs.run_lines import comparison_lines

        older = sum(count for _, _, count in places) if not names else 0
        more = [f"… and {counted(older, 'older run')}: --last {last + older}"] if older else []
        text = "\n".join([*comparison_lines(comparison), *more])
    if output is None:
        click.echo(text)
    else:
        save(f"{text}\n".encode(), output)
