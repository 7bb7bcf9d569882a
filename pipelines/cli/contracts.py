"""Commands for data contracts: `mlops contract lint|test|diff|show|init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.cli.commands import Group
from pipelines.cli.lineage_facts import load_facts_if_any
from pipelines.cli.options import open_target, save, target_option
from pipelines.declarations.contract import ENGINES, Engine
from pipelines.declarations.errors import DeclarationError, MlopsError
from pipelines.declarations.plurals import counted
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.data.contract_check import FileReport
    from pipelines.data.sql_rules import ReadTable
    from pipelines.declarations.contract import Contract
    from pipelines.declarations.environment import EnvironmentDescriptor

FORMATS = ("text", "json", "junit")


@click.group(cls=Group)
def contract() -> None:
    """Check, compare, show and draft data contracts."""


@contract.command()
@click.argument("datasets", nargs=-1)
@click.option("--strict", is_flag=True, help="Fail on advice, too.")
def lint(datasets: tuple[str, ...], strict: bool) -> None:
    """Check contracts, and advise what to add for their readers.

    Checks all contracts if there are no DATASETS. Mistakes fail; advice fails only with --strict.
    """
    from pipelines.data.contract_advice import advise
    from pipelines.data.contract_statements import check_statements
    from pipelines.declarations.contract_references import reference_problems

    project = Project.find()
    problems: list[str] = []
    advice = 0
    names = datasets or project.dataset_names
    for dataset in names:
        try:
            declared = project.contract(dataset)
            if found := list(reference_problems(project, dataset)):
                raise DeclarationError(found)
            check_statements(project, declared)
        except MlopsError as error:
            problems.append(str(error))
            continue
        for line in advise(declared):
            advice += 1
            click.echo(f"{project.contract_file(dataset).relative_to(project.root)}: {line}")
    if problems:
        raise MlopsError("\n".join(problems))
    if strict and advice:
        raise MlopsError(f"{counted(advice, 'piece')} of advice: expected none with --strict")
    are = "1 contract is" if len(names) == 1 else f"{len(names)} contracts are"
    click.echo(f"{are} valid, with {counted(advice, 'piece')} of advice." if advice else f"{are} valid.")


@contract.command()
@click.argument("dataset")
@click.argument("paths", nargs=-1)
@click.option("--env", "environment", metavar="NAME", help="Environment of the table, and of those that rules read.")
@click.option("--version", default="latest", show_default=True, help="The version: snapshot, tag, landing file.")
@click.option("--engine", type=click.Choice(ENGINES), help="Where the table is read; by default, as the contract says.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="Format of the report."
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the report to this file.")
@target_option
def test(
    dataset: str,
    paths: tuple[str, ...],
    environment: str | None,
    version: str,
    engine: Engine | None,
    form: str,
    output: Path | None,
    target: str,
) -> None:
    """Check data files, or a version of the table, against every rule.

    PATHS are files, folders and S3 prefixes (s3://bucket/prefix). Without PATHS, the table in --env is checked. Every
    broken rule is reported, with the number of rows and some of their keys; keys that the contract classifies are not
    shown. Rules that read other tables need --env. On Spark, SQL rules are not checked. Exits with 1 if a
    binding rule is broken.
    """
    from pipelines.data.contract_check import (
        report_json,
        report_junit,
        report_lines,
    )

    project = Project.find()
    declared = project.contract(dataset)
    if not paths and not environment:
        raise click.UsageError("expected PATHS or --env: files to check, or the environment whose table to check")
    descriptor = open_target(target).descriptor(environment) if environment else None
    reports = _check_files(declared, paths, descriptor) if paths else []
    if descriptor is not None and not paths:
        check = _check_version_on_spark if (engine or declared.engine) == "spark" else _check_version
        reports = [check(declared, descriptor, version)]
    renderers = {"json": report_json, "junit": report_junit}
    text = renderers[form](declared, reports) if form in renderers else "\n".join(report_lines(declared, reports))
    if output is not None:
        save(f"{text}\n".encode(), output)
    else:
        click.echo(text)
    if not all(report.keeps for report in reports):
        raise click.exceptions.Exit(1)


def _check_files(
    declared: Contract, paths: tuple[str, ...], descriptor: EnvironmentDescriptor | None
) -> list[FileReport]:
    from pipelines.data.contract_check import check_data_file, check_stored_files, data_files

    read_table = _table_reader(descriptor)
    region = descriptor.region if descriptor is not None else None
    reports: list[FileReport] = []
    for path in paths:
        if path.startswith("s3://"):
            reports += check_stored_files(declared, path, region, read_table)
        else:
            reports += [check_data_file(declared, file, read_table=read_table) for file in data_files([Path(path)])]
    return reports


def _table_reader(descriptor: EnvironmentDescriptor | None) -> ReadTable | None:
    if descriptor is None:
        return None
    from functools import partial

    from pipelines.data.catalog import read_columns

    return partial(read_columns, descriptor)


def _check_version(declared: Contract, descriptor: EnvironmentDescriptor, version: str) -> FileReport:
    import tempfile
    from dataclasses import replace

    from pipelines.data.catalog import open_table
    from pipelines.data.contract_check import check_data_file, stored_type_problems
    from pipelines.data.version_files import read_named, write_version

    rows, identity = read_named(descriptor, declared.name, version)
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        path = Path(folder) / "version.parquet"
        write_version(rows, identity, path)
        name = f"{declared.name}@{identity.snapshot}"
        report = check_data_file(declared, path, name, _table_reader(descriptor))
    problems = stored_type_problems(declared, open_table(descriptor, declared.name).schema())
    return replace(report, results=(*report.results, *problems))


def _check_version_on_spark(declared: Contract, descriptor: EnvironmentDescriptor, version: str) -> FileReport:
    from dataclasses import replace

    from pipelines.data.contract_check import stored_type_problems
    from pipelines.data.spark_check import check_on_spark
    from pipelines.data.spark_session import open_spark
    from pipelines.data.version_files import read_version_on_spark

    found = read_version_on_spark(descriptor, declared.name, version)
    with open_spark() as spark:
        name = f"{declared.name}@{found.snapshot}"
        report = check_on_spark(spark, declared, found.rows, name, found.rows_of)
    return replace(report, results=(*report.results, *stored_type_problems(declared, found.schema)))


@contract.command("diff")
@click.argument("base", default="origin/main")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--live", is_flag=True, help="Read the live releases from the environments.")
@target_option
def diff_contracts(base: str, as_json: bool, live: bool, target: str) -> None:
    """Compare the contracts of the working tree with a commit.

    Lists each difference since BASE, whom it breaks, the version that it requires, and the models and releases that
    read the column. Exits with 1 if a change breaks consumers without the version that it requires.
    """
    from pipelines.github.git import Git
    from pipelines.promotion.contract_impact import find_impacts, impact_lines, impacts_json

    project = Project.find()
    facts = load_facts_if_any(target, live=live)
    git = Git(project.root)
    impacts = find_impacts(git, base, git.changed_files(base, "HEAD"), facts)
    if as_json:
        click.echo(impacts_json(impacts))
    else:
        for impact in impacts:
            click.echo("\n".join(impact_lines(impact)))
        if not impacts:
            click.echo(f"no contract differs from {base}")
        elif facts is None:
            click.echo("Live releases: unknown; to read them, add --live")
        else:
            click.echo(f"Live releases as of {facts.gathered:%Y-%m-%d %H:%M:%S} UTC")
    if any(impact.refused for impact in impacts):
        raise click.exceptions.Exit(1)


@contract.command()
@click.argument("dataset")
def show(dataset: str) -> None:
    """Show a contract: its purpose, its columns and its rules."""
    from pipelines.data.contract_page import contract_lines

    click.echo("\n".join(contract_lines(Project.find().contract(dataset))))


@contract.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, metavar="DATASET", help="Name of the dataset.")
def init(file: Path, name: str) -> None:
    """Draft a contract from a data file.

    FILE satisfies the draft. Review the primary key, the types and what is personal; then describe each column.
    """
    from pipelines.data.contract_draft import draft_contract
    from pipelines.declarations.names import checked_name

    project = Project.find()
    checked_name(name, "dataset")
    path = project.contract_file(name)
    if path.exists():
        raise MlopsError(f"{path} exists: expected a new dataset", fix="choose another --name")
    try:
        text = draft_contract(file, name)
    except DeclarationError as error:
        raise MlopsError(f"no contract can be inferred from {file}: {error}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as opened:
        opened.write(text)
    click.echo(f"wrote {path.relative_to(project.root)}")
    click.echo(f"Next: edit it, then run mlops contract lint {name} and mlops contract test {name} {file}")
