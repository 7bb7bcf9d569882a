"""Commands for releases."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pipelines.cli.commands import Command
from pipelines.cli.options import environment_option, log, open_target, target_option, timed_log, write_output
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.registry.ledger import Entry

EXAMPLE_TIME = "2026-03-02T10:00:00+00:00"

bundle_option = click.option("--bundle", required=True, metavar="DIGEST", help="Digest of the bundle: sha256:…")


@click.command(cls=Command)
@click.argument("model")
@environment_option
@bundle_option
@target_option
def release(model: str, environment: str, bundle: str, target: str) -> None:
    """Write a bundle into a release file after verifying it.

    The release file of MODEL then names the bundle and the one that it replaces.
    """
    from pipelines.promotion.propose import write_release

    opened = open_target(target)
    path = write_release(opened.project, opened.descriptors(), model, environment, bundle)
    click.echo(f"{path.relative_to(opened.project.root)} names {bundle}")


@click.command(cls=Command)
@click.argument("model")
@environment_option
@bundle_option
@target_option
def propose(model: str, environment: str, bundle: str, target: str) -> None:
    """Open or update the pull request that releases a bundle."""
    from pipelines.promotion.propose import propose_release

    number = propose_release(open_target(target), model, environment, bundle, log)
    write_output("pull-request", str(number or ""))


@click.command(cls=Command)
@environment_option
@target_option
def deploy(environment: str, target: str) -> None:
    """Deploy the merged releases of an environment.

    Judges the releases, applies the Pulumi program, follows the rollouts, verifies the endpoints, and records each
    release in the ledger.
    """
    from pipelines.promotion import deploy as module
    from pipelines.promotion.propose import next_releases

    opened = open_target(target)
    module.deploy(opened, environment, log)
    following = next_releases(opened.project, environment)
    write_output("next", json.dumps([f"{release.model} to {to}" for release, to in following]))


reason_option = click.option(
    "--reason", required=True, help="Reason; recorded, and shown if the bundle is proposed again."
)


@click.command(cls=Command)
@click.argument("model")
@environment_option
@reason_option
@click.option(
    "--stop-only",
    is_flag=True,
    envvar="MLOPS_STOP_ONLY",
    help="Only stop a bundle on trial, as `mlops stop` does. [env: MLOPS_STOP_ONLY]",
)
@target_option
def rollback(model: str, environment: str, reason: str, stop_only: bool, target: str) -> None:
    """Return to the last good bundle: traffic first, then git.

    A bundle on trial is stopped instead, and the live one stays. Checks every right that it needs before it moves
    traffic. An interrupted rollback can be run again, with the same reason. On AWS, run the workflow `rollback`, which
    has these rights.
    """
    from pipelines.promotion.rollback import roll_back, stop_trial

    _move_traffic(stop_trial if stop_only else roll_back, model, environment, reason, target)


@click.command(cls=Command)
@click.argument("model")
@environment_option
@reason_option
@target_option
def stop(model: str, environment: str, reason: str, target: str) -> None:
    """Stop the bundle that is on trial; the live one stays.

    Traffic returns to the live bundle at once, and nothing promotes the stopped one again. An interrupted stop can be
    run again. On AWS, run the workflow `rollback` with its box "stop only".
    """
    from pipelines.promotion.rollback import stop_trial

    _move_traffic(stop_trial, model, environment, reason, target)


def _move_traffic(act: Callable[..., Entry], model: str, environment: str, reason: str, target: str) -> None:
    from pipelines.github.git import Git
    from pipelines.promotion.attempt import Attribution

    opened = open_target(target)
    attribution = Attribution.of_caller(Git(opened.project.root))
    entry = act(opened, environment, model, reason, attribution, timed_log())
    click.echo(f"{model} in {environment} runs {entry.event.live} (ledger record {entry.record.number})")


@click.command(cls=Command)
@click.argument("model")
@environment_option
@click.option("--at", "moment", metavar="TIME", help="Show what ran at an ISO 8601 time with a time zone.")
@click.option("--verify", "verifying", is_flag=True, help="Check every signature, and that no record is missing.")
@click.option("--offline", is_flag=True, help="Use only the records fetched earlier.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON lines.")
@target_option
def history(
    model: str, environment: str, moment: str | None, verifying: bool, offline: bool, as_json: bool, target: str
) -> None:
    """Show the promotions and rollbacks of a model.

    Each record names the bundle, its dataset version and source commit, and the approvers.
    """
    from pipelines.promotion.history import at_time, describe, read_history

    project = Project.find()
    project.model(model)
    project.stack(environment)
    when = _parse_time(moment) if moment is not None else None
    folder = project.root / ".mlops" / "ledgers" / environment
    descriptor = None if offline else open_target(target).descriptor(environment)
    entries = read_history(folder, model, descriptor, verify=verifying)
    if when is not None:
        found = at_time(entries, when)
        entries = [found] if found is not None else []
    for entry in entries:
        click.echo(entry.record.model_dump_json() if as_json else describe(entry))
    if not entries:
        click.echo(f"no bundle of {model} ran in {environment}" + (f" at {moment}" if moment else ""))
    elif verifying:
        click.echo(f"{len(entries)} records: every signature is valid, and no record is missing.")


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise MlopsError(f"{text!r} is not a valid ISO 8601 timestamp", fix=f"for example {EXAMPLE_TIME}") from None
    if time.tzinfo is None:
        raise MlopsError(f"{text!r} has no time zone", fix=f"for example {EXAMPLE_TIME}")
    return time
