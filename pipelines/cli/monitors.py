"""Commands for monitors."""

from __future__ import annotations

from pathlib import Path

import click

from pipelines.cli.commands import Group
from pipelines.cli.options import environment_option, log, open_target, target_option
from pipelines.declarations.errors import MlopsError

REPORTED_RUNS = 30

_COLOURS = {"ok": "green", "watch": "yellow", "alarm": "red", "unknown": None}


@click.group(cls=Group)
def monitor() -> None:
    """Run monitors and read their reports."""


@monitor.command()
@click.argument("dataset")
@environment_option
@target_option
def run(dataset: str, environment: str, target: str) -> None:
    """Run the monitor of a dataset now.

    The job judges the newest delivery, writes a report, and sends metrics. A verdict of `alarm` does not fail the
    command.
    """
    from pipelines.targets.workloads import run_monitor

    run_monitor(open_target(target), environment, dataset, log)


@monitor.command()
@click.argument("dataset")
@click.option(
    "--report", "name", default="", metavar="NAME", help="A report, or the start of its name; else the newest."
)
@click.option("--all", "every_check", is_flag=True, help="Show checks that are ok, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@environment_option
@target_option
def show(dataset: str, name: str, every_check: bool, as_json: bool, environment: str, target: str) -> None:
    """Show what the monitor of a dataset found."""
    from pipelines.monitoring.monitor_reports import find_report, read_report
    from pipelines.monitoring.report_lines import report_lines

    opened = open_target(target)
    opened.project.contract(dataset)
    descriptor = opened.descriptor(environment)
    report = read_report(descriptor, dataset, find_report(descriptor, dataset, name))
    if as_json:
        click.echo(report.model_dump_json(indent=2))
        return
    first, *others = report_lines(report, every_check=every_check)
    click.secho(first, fg=_COLOURS[report.verdict], bold=True)
    for line in others:
        click.echo(line)
    click.echo(f"examined {report.created:%Y-%m-%d %H:%M} UTC")


@monitor.command("list")
@click.argument("dataset")
@environment_option
@target_option
def list_reports(dataset: str, environment: str, target: str) -> None:
    """List the reports of a dataset's monitor, the newest first."""
    from pipelines.monitoring.monitor_reports import read_report, report_names

    opened = open_target(target)
    opened.project.contract(dataset)
    descriptor = opened.descriptor(environment)
    names = report_names(descriptor, dataset)
    for name in names[:REPORTED_RUNS]:
        click.echo(f"{name}  {read_report(descriptor, dataset, name).verdict}")
    if len(names) > REPORTED_RUNS:
        click.echo(f"… and {len(names) - REPORTED_RUNS} older reports")
    if not names:
        click.echo(f"no reports of {dataset}")


@monitor.command()
@click.argument("dataset")
@click.option(
    "--report", "name", default="", metavar="NAME", help="A report, or the start of its name; else the newest."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to save the page; <dataset>-<name>.html by default.",
)
@environment_option
@target_option
def report(dataset: str, name: str, output: Path | None, environment: str, target: str) -> None:
    """Save a report as an HTML page with plots."""
    from pipelines.declarations.atomic_files import write_atomically
    from pipelines.monitoring.monitor_reports import find_report, read_page

    opened = open_target(target)
    opened.project.contract(dataset)
    descriptor = opened.descriptor(environment)
    found = find_report(descriptor, dataset, name)
    path = output or Path(f"{dataset}-{found}.html")
    page = read_page(descriptor, dataset, found)
    try:
        write_atomically(path, page)
    except OSError as error:
        raise MlopsError(
            f"{path} cannot be written: {error.strerror or error}", fix="choose another --output"
        ) from None
    click.echo(f"wrote {path}")
