"""Commands for monitors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.commands import Group
from pipelines.cli.options import environment_option, log, open_target, save, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.declarations.environment import EnvironmentDescriptor
    from pipelines.monitoring.data_report import DataMonitorReport
    from pipelines.monitoring.model_report import ModelMonitorReport
    from pipelines.monitoring.monitor_reports import ReportKind

REPORTED_RUNS = 30

_COLOURS = {"ok": "green", "watch": "yellow", "alarm": "red", "unknown": None}


kind_option = click.option(
    "--kind",
    type=click.Choice(["data", "model"]),
    help="What NAME is, if a dataset and a model have the same name.",
)


def _kind(project: Project, name: str, given: str | None) -> ReportKind:
    """Return whether a name is that of a dataset or a model.

    Raises:
        MlopsError: the name is unknown, or both a dataset and a model have it.
    """
    is_dataset, is_model = name in project.dataset_names, name in project.model_names
    if given == "model" or (given is None and is_model and not is_dataset):
        project.model(name)
        return "models"
    if given is None and is_model and is_dataset:
        raise MlopsError(f"{name} is the name of a dataset and of a model", fix="add --kind model or --kind data")
    if given is None and not is_dataset:
        known = ", ".join(dict.fromkeys([*project.model_names, *project.dataset_names])) or "none yet"
        raise MlopsError(f"{name!r} is neither a model nor a dataset: expected one of {known}", fix="correct the name")
    project.contract(name)
    return "data"


def _read(
    descriptor: EnvironmentDescriptor, name: str, report: str, kind: ReportKind
) -> DataMonitorReport | ModelMonitorReport:
    from pipelines.monitoring.monitor_reports import read_model_report, read_report

    return (read_report if kind == "data" else read_model_report)(descriptor, name, report)


@click.group(cls=Group)
def monitor() -> None:
    """Run monitors and read their reports."""


@monitor.command()
@click.argument("name")
@kind_option
@environment_option
@target_option
def run(name: str, kind: str | None, environment: str, target: str) -> None:
    """Run the monitor of a model or a dataset now.

    The job judges the last requests or the newest delivery, writes a report, and sends metrics. An alarm does not
    fail the command.
    """
    from pipelines.targets.workloads import run_model_monitor_job, run_monitor

    opened = open_target(target)
    run_job = run_monitor if _kind(opened.project, name, kind) == "data" else run_model_monitor_job
    run_job(opened, environment, name, log)


@monitor.command()
@click.argument("model")
@environment_option
@target_option
def compact(model: str, environment: str, target: str) -> None:
    """Compact the inference log of a model now.

    Turns hours that ended at least an hour ago into Parquet files. A run at least an hour later removes the lines that
    they replace.
    """
    from pipelines.targets.workloads import run_log_compaction

    run_log_compaction(open_target(target), environment, model, log)


@monitor.command()
@click.argument("name")
@click.option(
    "--report", "start", default="", metavar="NAME", help="A report, or the start of its name; default: the newest."
)
@click.option("--all", "every_check", is_flag=True, help="Show checks that are ok, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as JSON.")
@kind_option
@environment_option
@target_option
def show(
    name: str, start: str, every_check: bool, as_json: bool, kind: str | None, environment: str, target: str
) -> None:
    """Show what the monitor of a model or a dataset found."""
    from pipelines.monitoring.monitor_reports import find_report
    from pipelines.monitoring.report_lines import report_lines

    opened = open_target(target)
    about = _kind(opened.project, name, kind)
    descriptor = opened.descriptor(environment)
    found = _read(descriptor, name, find_report(descriptor, name, start, about), about)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    first, *others = report_lines(found, every_check=every_check)
    click.secho(first, fg=_COLOURS[found.verdict], bold=True)
    for line in others:
        click.echo(line)
    time = found.created if found.format == "mlops/data-monitor/v1" else found.time
    click.echo(f"examined {time:%Y-%m-%d %H:%M} UTC")


@monitor.command("list")
@click.argument("name")
@kind_option
@environment_option
@target_option
def list_reports(name: str, kind: str | None, environment: str, target: str) -> None:
    """List the reports of a monitor, newest first."""
    from pipelines.monitoring.monitor_reports import report_names

    opened = open_target(target)
    about = _kind(opened.project, name, kind)
    descriptor = opened.descriptor(environment)
    names = report_names(descriptor, name, about)
    for each in names[:REPORTED_RUNS]:
        click.echo(f"{each}  {_read(descriptor, name, each, about).verdict}")
    if len(names) > REPORTED_RUNS:
        click.echo(f"… and {len(names) - REPORTED_RUNS} older reports")
    if not names:
        click.echo(f"no reports of {name}")


@monitor.command()
@click.argument("name")
@click.option(
    "--report", "start", default="", metavar="NAME", help="A report, or the start of its name; default: the newest."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to save the page; NAME-REPORT.html by default.",
)
@kind_option
@environment_option
@target_option
def report(name: str, start: str, output: Path | None, kind: str | None, environment: str, target: str) -> None:
    """Save a report as an HTML page with plots."""
    from pipelines.monitoring.monitor_reports import find_report, read_page

    opened = open_target(target)
    about = _kind(opened.project, name, kind)
    descriptor = opened.descriptor(environment)
    found = find_report(descriptor, name, start, about)
    save(read_page(descriptor, name, found, about), output or Path(f"{name}-{found}.html"))
