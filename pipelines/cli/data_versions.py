"""Commands for versions of datasets: `mlops data log|diff|tag|checkout|rollback|expire|maintain`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from pipelines.cli.commands import Command
from pipelines.cli.options import environment_option, log, open_target, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("log", cls=Command)
@click.argument("dataset")
@json_option
@environment_option
@target_option
def log_versions(dataset: str, as_json: bool, environment: str, target: str) -> None:
    """List the versions of a dataset, newest first.

    A version is a snapshot of the table. Each line has its rows, the landing file that it added, the version of the
    contract that checked it, and its tags.
    """
    from dataclasses import asdict

    from pipelines.data.catalog import open_table
    from pipelines.data.versions import list_versions, version_lines

    opened = open_target(target)
    opened.project.dataset_contract(dataset)
    versions = list_versions(open_table(opened.descriptor(environment), dataset))
    if as_json:
        click.echo(json.dumps([{**asdict(each), "at": each.at.isoformat()} for each in versions], indent=2))
        return
    for line in version_lines(versions):
        click.echo(line)
    if not versions:
        click.echo(f"{dataset} has no versions yet")


@click.command(cls=Command)
@click.argument("dataset")
@click.argument("before")
@click.argument("after", default="latest")
@json_option
@environment_option
@target_option
def diff(dataset: str, before: str, after: str, as_json: bool, environment: str, target: str) -> None:
    """Compare two versions of a dataset: schema, rows, distributions.

    BEFORE and AFTER are a snapshot, a tag, the name of a landing file, or `latest`. Rows are compared by primary key.
    Values of columns that the contract classifies are not shown.
    """
    from pipelines.data.catalog import open_table
    from pipelines.data.version_diff import compare_versions, diff_lines
    from pipelines.data.versions import find_version, list_versions
    from pipelines.declarations.classification import is_personal

    opened = open_target(target)
    contract = opened.project.dataset_contract(dataset)
    descriptor = opened.descriptor(environment)
    versions = list_versions(open_table(descriptor, dataset))
    old, new = (find_version(versions, name, dataset).snapshot for name in (before, after))
    personal = {name for name, column in contract.columns.items() if is_personal(column)}
    found = compare_versions(descriptor, dataset, old, new, personal=personal)
    click.echo(json.dumps(found.to_json(), indent=2) if as_json else "\n".join(diff_lines(found)))


@click.command(cls=Command)
@click.argument("dataset")
@click.argument("name")
@click.argument("version", default="latest")
@click.option("--delete", "deleting", is_flag=True, help="Remove the tag NAME.")
@environment_option
@target_option
def tag(dataset: str, name: str, version: str, deleting: bool, environment: str, target: str) -> None:
    """Tag a version of a dataset, or remove a tag.

    A version with a tag never expires. The ingest job writes the tag. VERSION is a snapshot, a tag, the name of a
    landing file, or `latest`.
    """
    from pipelines.data.catalog import open_table
    from pipelines.data.table_changes import TableChange
    from pipelines.data.versions import check_tag, find_version, list_versions
    from pipelines.targets.workloads import change_table

    check_tag(name)
    opened = open_target(target)
    opened.project.contract(dataset)
    if deleting:
        change_table(opened, environment, dataset, TableChange(action="untag", tag=name), log)
        return
    versions = list_versions(open_table(opened.descriptor(environment), dataset))
    found = find_version(versions, version, dataset)
    change = TableChange(action="tag", snapshots=(found.snapshot,), tag=name)
    change_table(opened, environment, dataset, change, log)


@click.command(cls=Command)
@click.argument("dataset")
@click.argument("version", default="latest")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Parquet file to write; default: DATASET-SNAPSHOT.parquet here.",
)
@environment_option
@target_option
def checkout(dataset: str, version: str, output: Path | None, environment: str, target: str) -> None:
    """Save a version of a dataset as a Parquet file.

    VERSION is a snapshot, a tag, the name of a landing file, or `latest`. The file's metadata names the version and the
    digest of its rows. In a notebook, use `pipelines.data.load`.
    """
    from pipelines.data.version_files import read_named, write_version

    opened = open_target(target)
    opened.project.dataset_contract(dataset)
    rows, identity = read_named(opened.descriptor(environment), dataset, version)
    path = output or Path(f"{dataset}-{identity.snapshot}.parquet")
    write_version(rows, identity, path)
    click.echo(f"wrote {counted(identity.rows, 'row')} of snapshot {identity.snapshot} to {path} ({identity.content})")


@click.command(cls=Command)
@click.argument("dataset")
@click.argument("version")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the records of the files.")
@environment_option
@target_option
def rollback(dataset: str, version: str, reason: str, environment: str, target: str) -> None:
    """Return a table to an earlier version.

    The ingest job moves the table back. Files that were added after VERSION are given up, so that the next ingestion
    does not add them again; `mlops data release` brings one back. No rows are deleted: the later versions stay readable
    until they expire.
    """
    from pipelines.data.catalog import open_table
    from pipelines.data.table_changes import TableChange, undone_versions
    from pipelines.data.versions import find_version, list_versions
    from pipelines.targets.workloads import change_table

    opened = open_target(target)
    opened.project.contract(dataset)
    versions = list_versions(open_table(opened.descriptor(environment), dataset))
    found = find_version(versions, version, dataset)
    if not undone_versions(versions, found, dataset):
        click.echo(f"{dataset}: {found.snapshot} is already the current version")
        return
    change_table(
        opened, environment, dataset, TableChange(action="rollback", snapshots=(found.snapshot,), reason=reason), log
    )


@click.command(cls=Command)
@click.argument("dataset")
@click.option("--keep-days", type=click.IntRange(1), default=90, show_default=True, help="Keep every younger version.")
@click.option(
    "--audit-days",
    type=click.IntRange(1),
    default=400,
    show_default=True,
    help="Keep what a bundle names, for this long after it was trained or live.",
)
@click.option("--apply", "applying", is_flag=True, help="Remove the versions; without it, only list them.")
@environment_option
@target_option
def expire(dataset: str, keep_days: int, audit_days: int, applying: bool, environment: str, target: str) -> None:
    """List or remove versions that nothing needs.

    A version stays if it is current, tagged or young, or if the dataset's monitor still compares its delivery. It also
    stays if a bundle that is live anywhere, or was trained or live in the audit period, names it. If a registry or a
    ledger cannot be read, nothing expires.
    """
    from pipelines.data.catalog import open_table
    from pipelines.data.delivery_history import compared_snapshots
    from pipelines.data.table_changes import MOST_EXPIRED, TableChange
    from pipelines.data.version_retention import plan_expiry
    from pipelines.data.versions import list_versions, version_lines
    from pipelines.lineage.gather_facts import gather_facts
    from pipelines.lineage.needed_snapshots import needed_snapshots
    from pipelines.targets.workloads import change_table

    opened = open_target(target)
    contract = opened.project.contract(dataset)
    descriptors = opened.descriptors()
    if environment not in descriptors:
        raise MlopsError(f"{environment} is not up", fix=f"mlops up --env {environment}")
    missing = [name for name in opened.project.environments if name not in descriptors]
    now = datetime.now(UTC)
    needed = needed_snapshots(gather_facts(opened.project, descriptors), dataset, now, timedelta(days=audit_days))
    table = open_table(descriptors[environment], dataset)
    versions = list_versions(table)
    needed = {**compared_snapshots(table, contract, now), **needed}
    plan = plan_expiry(versions, needed, now, keep=timedelta(days=keep_days))
    for version in versions:
        if version.snapshot in plan.kept:
            click.echo(f"keep   {version.snapshot}: {plan.kept[version.snapshot]}")
    for line in version_lines(plan.expired):
        click.echo(f"expire {line}")
    if missing:
        click.echo(f"These environments do not exist yet, so they have no bundles: {', '.join(missing)}")
    if not plan.expired:
        click.echo("nothing expires")
    elif applying:
        chosen = tuple(version.snapshot for version in plan.expired[:MOST_EXPIRED])
        change_table(opened, environment, dataset, TableChange(action="expire", snapshots=chosen), log)
        if len(plan.expired) > len(chosen):
            click.echo(f"{counted(len(plan.expired) - len(chosen), 'more version')} may expire: run the command again")
    else:
        click.echo(f"{counted(len(plan.expired), 'version')} may expire; to remove, add --apply")


@click.command(cls=Command)
@click.argument("dataset")
@click.option("--apply", "applying", is_flag=True, help="Run the job; without it, only list what it would do.")
@environment_option
@target_option
def maintain(dataset: str, applying: bool, environment: str, target: str) -> None:
    """List or run the maintenance of a table: expire, join, remove.

    The job `maintain-DATASET` runs every night. It removes unused files and rows past the contract's retention, joins
    small files, and expires versions that are older than 90 days. A version stays if a tag, a bundle in this
    environment's registry or a batch prediction of the last 90 days names it. Versions of predictions stay for 400
    days. To remove versions of bundles past their audit period, use `mlops data expire`.
    """
    from pipelines.data.table_maintenance import plan_lines, plan_maintenance
    from pipelines.targets.workloads import run_maintenance

    opened = open_target(target)
    contract = opened.project.check_maintains(environment, dataset)
    if applying:
        run_maintenance(opened, environment, dataset, log)
        return
    plan = plan_maintenance(
        opened.descriptor(environment), contract, opened.project.predicting(dataset), datetime.now(UTC)
    )
    for line in plan_lines(plan):
        click.echo(line)
    click.echo("nothing to do" if plan.is_empty else "to do this now, add --apply")


COMMANDS = (log_versions, diff, tag, checkout, rollback, expire, maintain)
