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

    Declarations are the models, contracts, releases and environments of this repository.
    """
    from pipelines.declarations.validation import describe_order, validate_project
    from pipelines.targets.bootstrap_limits import check_role_sizes

    project = Project.find()
    click.echo(f"{validate_project(project)} declarations are valid.")
    click.echo(f"Promotion: {describe_order(project)}")
    if size := check_role_sizes(project):
        click.echo(f"Note: {size}")
    if base:
        from pipelines.github.git import Git
        from pipelines.promotion.contract_changes import find_contract_changes, refuse_contract_breaks

        git = Git(project.root)
        contracts = find_contract_changes(git, base, git.changed_files(base, "HEAD"))
        refuse_contract_breaks(contracts)
        for name in contracts:
            click.echo(f"{name} breaks nothing.")


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
