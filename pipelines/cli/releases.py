"""Commands for releases."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pipelines.cli.commands import Command
from pipelines.cli.options import environment_option, log, open_target, record_output, target_option, timed_log
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from pipelines.registry.ledger import Entry

EXAMPLE_TIME = "2026-03-02T10:00:00+00:00"

bundle_option = click.option("--bundle", metavar="DIGEST", help="Digest of the bundle: sha256:…")
live_option = click.option("--live", is_flag=True, help="Name the live bundle, or none, after a failed deployment.")


def _check_choice(bundle: str | None, live: bool) -> None:
    if (bundle is None) != live:
        raise click.UsageError("expected either --bundle or --live")


@click.command(cls=Command)
@click.argument("model")
@environment_option
@bundle_option
@live_option
@target_option
def release(model: str, environment: str, bundle: str | None, live: bool, target: str) -> None:
    """Write a bundle into a release file after verifying it.

    Writes the bundle, and the live one that it replaces, into the release file of MODEL. With --live, names the live
    bundle again: this brings git and the environment into agreement after a deployment that was refused or failed.
    """
    from pipelines.promotion.propose import write_live_release, write_release

    _check_choice(bundle, live)
    opened = open_target(target)
    if bundle is None:
        path = write_live_release(opened.project, opened.descriptors(), model, environment)
    else:
        path = write_release(opened.project, opened.descriptors(), model, environment, bundle)
    named = opened.project.release(model, environment).bundle
    click.echo(f"{path.relative_to(opened.project.root)} names {named or 'no bundle'}")


@click.command(cls=Command)
@click.argument("model")
@environment_option
@bundle_option
@live_option
@target_option
def propose(model: str, environment: str, bundle: str | None, live: bool, target: str) -> None:
    """Open or update the pull request that releases a bundle.

    With --live, the pull request makes the release file name the live bundle again.
    """
    from pipelines.promotion.propose import propose_live, propose_release

    _check_choice(bundle, live)
    opened = open_target(target)
    if bundle is None:
        number = propose_live(opened, model, environment, log)
    else:
        number = propose_release(opened, model, environment, bundle, log)
    record_output("pull-request", str(number or ""))


@click.command(cls=Command)
@environment_option
@click.option(
    "--create",
    is_flag=True,
    envvar="MLOPS_CREATE",
    help="Create the environment if it was never brought up. [env: MLOPS_CREATE]",
)
@target_option
def deploy(environment: str, create: bool, target: str) -> None:
    """Deploy the merged releases of an environment.

    Judges the releases and the pinned images, applies the Pulumi program, follows the rollouts, verifies the endpoints,
    and records each release in the ledger. Does nothing for an environment that was never brought up.
    """
    from pipelines.promotion import deploy as module
    from pipelines.promotion.propose import next_pins, next_releases

    opened = open_target(target)
    module.deploy(opened, environment, log, create=create)
    following = [f"{release.model} to {to}" for release, to in next_releases(opened.project, environment)]
    following += [f"images to {to}" for _, to in next_pins(opened.project, environment)]
    record_output("next", json.dumps(following if opened.is_up(environment) else []))


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
@click.option("--verify", "verifying", is_flag=True, help="Check signatures, and that no record is missing or changed.")
@click.option("--offline", is_flag=True, help="Use only the records fetched earlier.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON lines.")
@target_option
def history(
    model: str, environment: str, moment: str | None, verifying: bool, offline: bool, as_json: bool, target: str
) -> None:
    """Show the promotions and rollbacks of a model.

    Each record names the bundle, its dataset version and source commit, and the approvers.
    """
    from pipelines.promotion.history import at_time, check_history, describe, read_history
    from pipelines.registry.ledger import find_false_dates

    project = Project.find()
    project.model(model)
    project.stack(environment)
    when = _parse_time(moment) if moment is not None else None
    folder = project.root / ".mlops" / "ledgers" / environment
    opened = None if offline else open_target(target)
    descriptor = opened.descriptor(environment) if opened is not None else None
    entries = read_history(folder, model, descriptor, verify=verifying)
    if verifying and opened is not None:
        check_history(opened.descriptors(), environment, model, entries)
    false_dates = find_false_dates(entries)
    if when is not None:
        found = at_time(entries, when)
        entries = [found] if found is not None else []
    for entry in entries:
        click.echo(entry.record.model_dump_json() if as_json else describe(entry))
    for said in false_dates:
        click.echo(f"warning: {said} (docs/on-call.md#a-record-has-a-false-date)", err=True)
    if not entries:
        click.echo(f"no bundle of {model} ran in {environment}" + (f" at {moment}" if moment else ""))
    elif verifying:
        whole = "no record before the last is missing" if offline else "no record is missing or was replaced"
        click.echo(f"{counted(len(entries), 'record')}: every signature is valid, and {whole}.")


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise MlopsError(
            f"{text!r} is not a valid ISO 8601 timestamp", fix=f"write a time such as {EXAMPLE_TIME}"
        ) from None
    if time.tzinfo is None:
        raise MlopsError(f"{text!r} has no time zone", fix=f"write a time such as {EXAMPLE_TIME}")
    return time
