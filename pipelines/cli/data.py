"""Commands for landing files and quarantined rows. Those for versions are in `data_versions`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli import data_versions
from pipelines.cli.commands import Group
from pipelines.cli.options import environment_option, log, open_target, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted

if TYPE_CHECKING:
    from pipelines.targets import Target

SHOWN_ROWS = 20
"""Quarantined rows that are described."""

SAMPLED_ROWS = 5
"""Rows of a version that are shown by default."""


@click.group(cls=Group)
def data() -> None:
    """Manage landing files, quarantined rows and versions of datasets."""


for _command in data_versions.COMMANDS:
    data.add_command(_command)


@data.command("list")
@click.argument("dataset")
@click.option("--problems", "only_problems", is_flag=True, help="Only files that need a decision.")
@environment_option
@target_option
def list_files(dataset: str, only_problems: bool, environment: str, target: str) -> None:
    """List the landing files of a dataset with their outcomes.

    With --problems, also what to do about each.
    """
    from pipelines.data.landing_status import decisions_on, read_status

    opened = open_target(target)
    opened.project.contract(dataset)
    found = read_status(opened.descriptor(environment), dataset)
    shown = [status for status in found if status.needs_attention or not only_problems]
    for status in shown:
        click.echo(f"{status.file}: {status.description}")
        for line in decisions_on(status, dataset, environment) if only_problems else ():
            click.echo(f"  {line}")
    if not shown:
        click.echo(f"no landing file of {dataset} needs a decision" if found else f"no landing files of {dataset}")


@data.command()
@click.argument("dataset")
@click.argument("name", default="latest")
@click.option(
    "--rows", type=click.IntRange(0, 1000), default=SAMPLED_ROWS, show_default=True, help="Rows of a version to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print a version as JSON.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save all quarantined rows to this CSV or Parquet file.",
)
@environment_option
@target_option
def show(dataset: str, name: str, rows: int, as_json: bool, output: Path | None, environment: str, target: str) -> None:
    """Show a version of a dataset, or why rows of a file are in quarantine.

    NAME is a snapshot, a tag, or `latest`: prints the columns of the version and some of its rows. Or it is a landing
    file: prints its outcome and the first quarantined rows with their reasons. A file with too many bad rows keeps only
    a sample of them. Values of columns that the contract classifies are only in --output.
    """
    from pipelines.data.reading import SUFFIXES

    opened = open_target(target)
    if Path(name).suffix.lower() in SUFFIXES:
        _show_file(opened, dataset, name, output, environment)
        return
    if output is not None:
        raise MlopsError(
            f"{output} is not written: expected a landing file, found the version {name!r}",
            fix=f"mlops data checkout {dataset} {name} --env {environment} --output {output}",
        )
    from pipelines.data.version_details import details_lines, read_details

    contract = opened.project.dataset_contract(dataset)
    details = read_details(opened.descriptor(environment), contract, name, rows)
    click.echo(json.dumps(details.to_json(), indent=2) if as_json else "\n".join(details_lines(details, contract)))


def _show_file(opened: Target, dataset: str, file: str, output: Path | None, environment: str) -> None:
    from pipelines.data import landing_status
    from pipelines.data.row_quarantine import reason_lines
    from pipelines.declarations.classification import is_personal

    personal = {name for name, each in opened.project.contract(dataset).columns.items() if is_personal(each)}
    descriptor = opened.descriptor(environment)
    status = landing_status.find_status(descriptor, dataset, file)
    click.echo(f"{status.file}: {status.description}")
    if status.record is None:
        return
    for line in reason_lines(status.record.reasons):
        click.echo(f"  {line}")
    rows = landing_status.read_quarantined(descriptor, status.record) if status.record.quarantined else None
    if rows is None:
        if output is not None:
            raise MlopsError(f"{output} is not written: {file} has no quarantined rows that can be read")
        return
    for line in landing_status.describe_rows(rows, SHOWN_ROWS, personal):
        click.echo(line)
    if rows.num_rows > SHOWN_ROWS and output is None:
        click.echo(f"… and {rows.num_rows - SHOWN_ROWS} more rows; to see all, add --output FILE")
    if output is not None:
        landing_status.save_rows(rows, output)
        click.echo(f"wrote {counted(rows.num_rows, 'row')} to {output}")


@data.command()
@click.argument("dataset")
@click.argument("file")
@environment_option
@target_option
def release(dataset: str, file: str, environment: str, target: str) -> None:
    """Check a refused file or quarantined rows again.

    The ingest job checks FILE under the contract that the environment runs now. Rows that keep it are appended to the
    table; the others stay in quarantine.
    """
    from pipelines.targets.workloads import run_ingest

    run_ingest(open_target(target), environment, dataset, log, file=file, action="release")


@data.command()
@click.argument("dataset")
@click.argument("file")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the record.")
@environment_option
@target_option
def drop(dataset: str, file: str, reason: str, environment: str, target: str) -> None:
    """Give up a landing file or its quarantined rows.

    FILE is no longer ingested or reported. Nothing is deleted; `mlops data release` brings it back.
    """
    from pipelines.targets.workloads import run_ingest

    run_ingest(open_target(target), environment, dataset, log, file=file, action="drop", reason=reason)
