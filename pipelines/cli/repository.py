"""Commands for the repository."""

from __future__ import annotations

import click

from pipelines.cli.commands import Command
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.option(
    "--base", default="", metavar="COMMIT", help="Also refuse contract changes since COMMIT that break consumers."
)
def validate(base: str) -> None:
    """Validate all declarations, alone and against each other.

    Declarations are the models, contracts, releases and environments of this repository. CODEOWNERS must name who
    approves releases to the last environments, and the workflow `respond` must list the environments. Samples must have
    the columns of their contracts.
    """
    from pipelines.data.local_rows import check_samples
    from pipelines.declarations.validation import describe_order, validate_project
    from pipelines.github.alarm_workflow import check_alarm_workflow
    from pipelines.github.release_owners import check_release_owners
    from pipelines.targets.bootstrap_limits import check_role_sizes

    project = Project.find()
    count = validate_project(project)
    _validate_statements(project)
    check_samples(project)
    check_release_owners(project)
    check_alarm_workflow(project)
    click.echo(f"{count} declarations are valid.")
    click.echo(f"Promotion: {describe_order(project)}")
    if size := check_role_sizes(project):
        click.echo(f"Note: {size}")
    if base:
        from pipelines.github.git import Git
        from pipelines.promotion.contract_changes import judge_contracts, refuse_contract_breaks
        from pipelines.promotion.contract_impact import find_impacts, impact_lines

        git = Git(project.root)
        click.echo(f"Comparing the contracts in the working tree with {base}.")
        files = git.changed_files(base, "HEAD")
        contracts = judge_contracts(git, base, files)
        for impact in find_impacts(git, base, files, None):
            click.echo("\n".join(impact_lines(impact)))
        refuse_contract_breaks({name: change.refused for name, change in contracts.items()})
        for name, change in contracts.items():
            click.echo(f"{name} breaks no consumer." if not change.announced else f"{name} announces: ")
            for text in change.announced:
                click.echo(f"  {text}")
            for model in change.retrain:
                click.echo(f"  train again: mlops train {model}")


def _validate_statements(project: Project) -> None:
    """Check the regular expressions and the SQL of the contracts with the engine that ingestion uses."""
    from pipelines.data.contract_statements import check_statements

    for dataset in project.dataset_names:
        check_statements(project, project.contract(dataset))


@click.command(cls=Command)
@click.option("--check", "only_check", is_flag=True, help="Fail if a schema is out of date; change nothing.")
def schemas(only_check: bool) -> None:
    """Export the JSON Schemas of the declarations."""
    from pipelines.declarations.schemas import export_schemas, outdated_schemas

    if only_check:
        if outdated := outdated_schemas():
            raise MlopsError(f"out of date: {', '.join(path.name for path in outdated)}", fix="mlops schemas")
        return
    for path in export_schemas():
        click.echo(f"wrote {path}")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash, add this line to ~/.bashrc: `eval "$(mlops completion bash)"`
    """
    from click.shell_completion import get_completion_class

    from pipelines.cli.main import mlops

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(mlops, {}, "mlops", "_MLOPS_COMPLETE").source())
