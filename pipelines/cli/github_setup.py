"""The commands `mlops github setup|owners|alarm-token`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

import click

from pipelines.cli.commands import Group, Verb, plugin_verbs
from pipelines.cli.options import environment_option, target_option
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.github.repository_setup import PreparedSetup
    from pipelines.github.settings import Setting


class GithubGroup(Group):
    """The commands of this module, and those of a plugin's group of the same name."""

    def verbs(self, ctx: click.Context) -> dict[str, Verb]:
        added = self._added()
        return {**super().verbs(ctx), **(added.verbs(ctx) if added is not None else {})}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and (added := self._added()) is not None:
            return added.get_command(ctx, cmd_name)
        return found

    @staticmethod
    def _added() -> Group | None:
        verb = plugin_verbs().get("github")
        command = None if verb is None else verb.load()
        return command if isinstance(command, Group) else None


@click.group(cls=GithubGroup)
def github() -> None:
    """Set up the repository on GitHub."""


def _pairs(option: str, values: Sequence[str]) -> dict[str, list[str]]:
    """Return name → values of options of the form `name=value`."""
    found: dict[str, list[str]] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise click.UsageError(f"{option}: expected NAME=VALUE, found {text!r}")
        found.setdefault(name, []).append(value)
    return found


def _owners(values: Sequence[str]) -> dict[str, str]:
    found = {}
    for team, owners in _pairs("--owner", values).items():
        found[team] = " ".join(owner if owner.startswith("@") else f"@{owner}" for owner in owners)
    return found


@github.command()
@click.option(
    "--apply", "is_applied", is_flag=True, help="Change the settings; without it, only show what would change."
)
@click.option("--app", default="", metavar="SLUG", help="The GitHub App: the last part of its page's address.")
@click.option(
    "--outputs", type=click.File("r"), metavar="FILE", help="JSON outputs of the bootstrap; - for standard input."
)
@click.option("--app-key", type=click.File("r"), metavar="FILE", help="The app's private key; - for standard input.")
@click.option(
    "--owner", "owners", multiple=True, metavar="TEAM=OWNER", help="Owner that replaces a team of the template."
)
@click.option("--reviewer", "reviewers", multiple=True, metavar="ENV=NAME", help="Who must approve deployments to ENV.")
def setup(
    is_applied: bool,
    app: str,
    outputs: IO[str] | None,
    app_key: IO[str] | None,
    owners: tuple[str, ...],
    reviewers: tuple[str, ...],
) -> None:
    """Set the repository on GitHub up: rules, environments, variables.

    Shows what it would change; `--apply` changes it. Can be run again at any time: it changes only settings that
    differ from docs/repository-settings.md. You must be an administrator of the repository.
    """
    from pipelines.github.gh import Gh
    from pipelines.github.repository_files import read_outputs
    from pipelines.github.repository_setup import SetupOptions, apply_prepared, prepare_setup

    project = Project.find()
    key = app_key.read() if app_key is not None else ""
    if app_key is not None and "PRIVATE KEY" not in key:
        raise MlopsError("--app-key: expected a private key in PEM format, found something else")
    found = read_outputs(outputs.read()) if outputs is not None else None
    options = SetupOptions(
        app,
        found.variables if found is not None else None,
        found.backend if found is not None else None,
        _owners(owners),
        _pairs("--reviewer", reviewers),
        key,
    )
    gh = Gh.find(project.root)
    prepared = prepare_setup(gh, project.environments, options)
    _show(project, prepared)
    if prepared.is_done:
        click.echo("Nothing to do.")
    elif not is_applied:
        click.echo("Nothing was changed. To change it, add --apply.")
    else:
        failed = []
        for change, error in apply_prepared(gh, prepared, options):
            names = ", ".join(setting.name for setting in change.settings)
            click.echo(f"done    {names}" if error is None else f"failed  {names}: {error.what}")
            failed += [] if error is None else [names]
        if failed:
            raise MlopsError(
                f"{len(failed)} of {len(prepared.plan.changes)} changes failed",
                fix="see the errors above, then run the command again: finished changes stay",
            )
    _show_by_hand(prepared.plan.by_hand)


def _show(project: Project, prepared: PreparedSetup) -> None:
    """Print what changes, as a table, and the files that are written."""
    rows = [(each.name, each.found, _after(each)) for change in prepared.plan.changes for each in change.settings]
    for path in prepared.files:
        rows.append((path.relative_to(project.root).as_posix(), "of the template", "of this repository; commit it"))
    if rows:
        _print_table([("setting", "now", "then"), *rows])
    for team in prepared.absent_teams:
        click.echo(f"The team {team} does not exist: create it with write access, or add --owner {team}=OWNER.")


def _after(setting: Setting) -> str:
    return "saved again" if setting.ok else setting.wanted


def _print_table(rows: Sequence[tuple[str, str, str]]) -> None:
    widths = [min(max(len(row[column]) for row in rows), 50) for column in (0, 1)]
    for name, now, then in rows:
        click.echo(f"{name:<{widths[0]}}  {now:<{widths[1]}}  {then}")


def _show_by_hand(settings: Sequence[Setting]) -> None:
    for setting in settings:
        click.echo(f"by hand  {setting.name}: {setting.found}\n         fix: {setting.fix}")


@github.command()
def owners() -> None:
    """Write who approves releases to the last environments."""
    from pipelines.github.release_owners import write_release_owners

    changed = write_release_owners(Project.find())
    click.echo("changed .github/CODEOWNERS" if changed else ".github/CODEOWNERS is unchanged")


@github.command("alarm-token")
@environment_option
@click.option(
    "--file", type=click.File("r"), default="-", metavar="FILE", help="File with the token; - for standard input."
)
@target_option
def alarm_token(environment: str, file: IO[str], target: str) -> None:
    """Set the token that delivers alarms to GitHub.

    It is a fine-grained token for this repository with the permission *Contents: read and write*. EventBridge keeps it
    in AWS Secrets Manager; neither Pulumi nor GitHub's jobs can read it. Set it again before it expires.
    """
    from pipelines.targets import find_target
    from pipelines.targets.alarm_token import set_alarm_token

    project = Project.find()
    find_target(target, project).connect_account()
    set_alarm_token(project, environment, file.read())
    click.echo(f"The alarms of {environment} are sent to GitHub with this token.")
