"""Check what the repository declares: `mlops check`, `mlops schemas`."""

from __future__ import annotations

import click

from pipelines.declarations.errors import DeclarationError, MlopsError, Problem
from pipelines.declarations.project import Project
from pipelines.declarations.schemas import export_schemas


@click.command()
@click.option("--base", default="", help="Also what contracts take from their consumers since this commit.")
def check(base: str) -> None:
    """Check every model, contract, release and environment, and that they fit each other."""
    project = Project.find()
    problems: list[Problem] = []
    other: list[str] = []
    count = 0

    def collect(call: object, *arguments: str) -> None:
        nonlocal count
        count += 1
        try:
            call(*arguments)  # type: ignore[operator]
        except DeclarationError as error:
            problems.extend(error.problems)
        except MlopsError as error:
            other.append(str(error))

    environments: tuple[str, ...] = ()
    try:
        environments = project.environments
    except DeclarationError as error:
        problems.extend(error.problems)
    for environment in environments:
        collect(project.stack, environment)
    for dataset in project.dataset_names:
        collect(project.contract, dataset)
    for model in project.model_names:
        collect(project.model, model)
        for environment in environments:
            collect(project.release, model, environment)
    if problems or other:
        raise MlopsError("\n".join([*dict.fromkeys(str(problem) for problem in problems), *other]))
    click.echo(f"{count} declarations, all in order.")
    if base:
        check_contracts(project, base)


def check_contracts(project: Project, base: str) -> None:
    """Say what each contract that was changed since a commit takes from its consumers.

    Raises:
        MlopsError: one takes something from them.
    """
    from pipelines.github.git import Git
    from pipelines.promotion.contract_changes import find_contract_changes, refuse_contract_breaks

    repository = Git(project.root)
    contracts = find_contract_changes(repository, base, repository.changed_files(base, "HEAD"))
    refuse_contract_breaks(contracts)
    for name in contracts:
        click.echo(f"{name} breaks nothing.")


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Change nothing; fail if one is out of date.")
def schemas(only_check: bool) -> None:
    """Export the JSON Schemas of the files people write."""
    from pipelines.declarations.schemas import outdated_schemas

    if only_check:
        if outdated := outdated_schemas():
            raise MlopsError(f"out of date: {', '.join(path.name for path in outdated)}", fix="mlops schemas")
        return
    for path in export_schemas():
        click.echo(f"wrote {path}")
