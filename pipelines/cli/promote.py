"""Promote by pull request: `mlops plan|gates|propose|rollback|respond|audit|history|review|connect`."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pipelines.cli.options import environment_option, open_target, target_option
from pipelines.cli.workflow import run_link, set_output
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.git import Git
from pipelines.targets import Target

NO_COMMIT = "0" * 40
"""What GitHub gives as the commit before, when a branch is new."""


@click.group()
def plan() -> None:
    """Which environments or models a change concerns; for workflows."""


def _changed(repository: Git, base: str) -> tuple[str, ...] | None:
    """The files changed since a commit; None when there is no such commit to compare with."""
    if not base or base == NO_COMMIT:
        return None
    return repository.changed_files(base, "HEAD")


@plan.command("deploy")
@click.option("--base", default="", help="The commit before the change; without it, all environments.")
@click.option("--env", "environment", default="", help="Only this environment.")
def plan_deploy(base: str, environment: str) -> None:
    """The environments to deploy, in order, as JSON."""
    from pipelines.promotion.plan import environments_to_deploy

    project = Project.find()
    files = _changed(Git(project.root), base)
    chosen = project.environments if files is None else environments_to_deploy(project, files)
    if environment:
        project.stack(environment)
        chosen = (environment,)
    set_output("environments", json.dumps(chosen))


@plan.command("review")
@click.option("--base", required=True, help="The commit that the change would be merged into.")
def plan_review(base: str) -> None:
    """Whether a change holds releases (`releases`, a JSON list of their files), and anything else (`code`)."""
    from pipelines.promotion.plan import RELEASE_FILE

    files = Git(Project.find().root).changed_files(base, "HEAD")
    releases = [name for name in files if RELEASE_FILE.match(name)]
    set_output("releases", json.dumps(releases))
    set_output("code", json.dumps(len(releases) < len(files)))


@plan.command("train")
@click.option("--base", default="", help="The commit before the change; without it, all models.")
@click.option("--model", default="", help="Only this model.")
def plan_train(base: str, model: str) -> None:
    """The models to train, as JSON."""
    from pipelines.promotion.plan import models_to_train

    project = Project.find()
    since = base not in ("", NO_COMMIT)
    chosen = models_to_train(project, Git(project.root), base) if since else project.model_names
    if model:
        project.model(model)
        chosen = (model,)
    set_output("models", json.dumps(chosen))


@click.command()
@environment_option
@target_option
def connect(environment: str, target: str) -> None:
    """Make the cluster of an environment reachable: on AWS, `aws eks update-kubeconfig`."""
    opened = open_target(target)
    opened.reach_cluster(environment)
    click.echo(f"{environment} on {target}: connected")


@click.command()
@click.option("--base", required=True, help="The commit or branch that the change would be merged into.")
@click.option("--pull-request", "number", default="", help="Its number: the verdicts are written there.")
@target_option
def gates(base: str, number: str, target: str) -> None:
    """Judge the releases that the checked-out change proposes; fails unless every gate passes."""
    from pipelines.github import pull_requests
    from pipelines.github.gh import Gh
    from pipelines.promotion.comments.gate_comment import Surroundings, marker, render
    from pipelines.promotion.facts.gather import gather, proposed
    from pipelines.promotion.gates import admits, judge
    from pipelines.promotion.preview import start_preview

    opened = open_target(target)
    repository = Git(opened.project.root)
    changes = proposed(repository, base, "HEAD")
    if not changes:
        raise MlopsError("the change proposes no release: it changes no models/*/releases/*.yaml")
    descriptors = opened.descriptors()
    refused = []
    for change in changes:
        release = change.release
        preview = start_preview(opened, release.environment) if number else None
        facts = gather(opened.project, repository, descriptors, change)
        verdicts = judge(facts)
        for verdict in verdicts:
            mark = {"pass": "pass", "fail": "FAIL", "inconclusive": "????"}[verdict.outcome]
            click.echo(f"{mark}  {verdict.gate:<14} {verdict.figure:<28} {verdict.why}")
        if not admits(verdicts):
            refused += [f"{v.gate}: {v.why}" for v in verdicts if v.outcome != "pass"]
        if preview is not None:
            shown = preview()
            around = Surroundings(
                preview=shown.text,
                rollback=rollback_target(descriptors[release.environment], release.model),
                sizes=sizes_of(
                    descriptors, opened.project, change.release.environment, release.model, facts.live, release.bundle
                ),
                datasets=(
                    dataset_of(descriptors[release.environment], release.model, facts.live),
                    dataset_of(
                        source_of(descriptors, opened.project, release.environment), release.model, release.bundle
                    ),
                ),
                run=run_link(),
            )
            text = render(facts, verdicts, around)
            pull_requests.comment(
                Gh.find(opened.project.root), int(number), marker(release.model, release.environment), text
            )
            if shown.failed:
                refused.append(
                    f"preview: the Pulumi program of {release.environment} cannot be applied; see the comment"
                )
    if refused:
        raise MlopsError("refused by " + "; ".join(refused))
    click.echo("Every gate passes.")


def source_of(
    descriptors: dict[str, EnvironmentDescriptor], project: Project, environment: str
) -> EnvironmentDescriptor:
    """The environment that a release to `environment` comes from."""
    before = project.stack(environment).config.environment.promotes_from
    return descriptors[before or environment]


def sizes_of(
    descriptors: dict[str, EnvironmentDescriptor],
    project: Project,
    environment: str,
    model: str,
    live: str | None,
    candidate: str | None,
) -> tuple[int | None, int | None]:
    """The sizes of the live and of the candidate bundle, in bytes."""
    from pipelines.registry import bundles

    def size(descriptor: EnvironmentDescriptor, digest: str | None) -> int | None:
        if digest is None:
            return None
        try:
            files = bundles.fetch(descriptor, model, digest, []).manifest.files
        except MlopsError:
            return None
        return sum(file.size for file in files.values())

    return size(descriptors[environment], live), size(source_of(descriptors, project, environment), candidate)


def dataset_of(descriptor: EnvironmentDescriptor, model: str, digest: str | None) -> str:
    """The dataset version of a bundle, in words; empty when it cannot be read."""
    from pipelines.registry import bundles

    if digest is None:
        return ""
    try:
        dataset = bundles.fetch(descriptor, model, digest, []).manifest.dataset
    except MlopsError:
        return ""
    return f"{dataset.dataset} @ {dataset.snapshot} ({dataset.rows} rows)"


def rollback_target(descriptor: EnvironmentDescriptor, model: str) -> str | None:
    """What a rollback of a model would go back to, once the next release is live: what is live now."""
    from pipelines.registry.ledger import Ledger

    head = Ledger(descriptor, model).head()
    return head.event.live if head is not None else None


@click.command()
@click.option("--base", required=True, help="The commit that the change would be merged into.")
@click.option("--pull-request", "number", required=True, type=int)
@target_option
def review(base: str, number: int, target: str) -> None:
    """Comment on a pull request what it would change: the preview of every environment, and its data contracts."""
    from pipelines.github import pull_requests
    from pipelines.github.gh import Gh
    from pipelines.promotion.comments.review_comment import REVIEW_MARKER, render_review
    from pipelines.promotion.contract_changes import find_contract_changes, refuse_contract_breaks
    from pipelines.promotion.plan import environments_to_deploy
    from pipelines.promotion.preview import start_preview, summarize

    opened = open_target(target)
    repository = Git(opened.project.root)
    changed = repository.changed_files(base, "HEAD")
    contracts = find_contract_changes(repository, base, changed)
    started = {name: start_preview(opened, name) for name in environments_to_deploy(opened.project, changed)}
    previews = {name: finish() for name, finish in started.items()}
    pull_requests.comment(Gh.find(opened.project.root), number, REVIEW_MARKER, render_review(contracts, previews))
    for name, preview in previews.items():
        click.echo(f"{name}: {summarize(preview)}")
    refuse_contract_breaks(contracts)
    if failed := [name for name, preview in previews.items() if preview.failed]:
        raise MlopsError(f"the preview of {', '.join(failed)} failed", fix="see the comment on the pull request")


@click.command()
@click.argument("model")
@environment_option
@click.option("--bundle", required=True, metavar="DIGEST")
@target_option
def propose(model: str, environment: str, bundle: str, target: str) -> None:
    """Open, or renew, the pull request that releases a bundle of MODEL to an environment."""
    number = propose_release(open_target(target), model, environment, bundle)
    set_output("pull-request", str(number or ""))


def propose_release(target: Target, model: str, environment: str, bundle: str) -> int | None:
    """Open, or renew, the pull request of a release; its number, or None when main names the bundle already.

    Raises:
        MlopsError: the bundle cannot be trusted, or GitHub refuses.
    """
    from pipelines.github import pull_requests
    from pipelines.github.gh import Gh
    from pipelines.promotion.release import release

    project = target.project
    if project.release(model, environment).bundle == bundle:
        click.echo(f"{model} in {environment} names {bundle} already; there is nothing to propose")
        return None
    path = release(project, target.descriptors(), model, environment, bundle)
    title = f"Release {model} to {environment}"
    body = (
        f"Merging this makes {environment} run `{bundle}` of {model}.\n\n"
        "It was opened by a workflow; the gates write their verdicts below, and run again when it is merged.\n"
    )
    request = pull_requests.propose(Gh.find(project.root), f"release/{environment}/{model}", [path], title, body)
    click.echo(f"proposed: pull request {request.number}, {request.url}")
    return request.number


@click.command()
@click.argument("model")
@environment_option
@click.option("--reason", required=True, help="Why; it is recorded, and shown to whoever proposes the bundle again.")
@target_option
def rollback(model: str, environment: str, reason: str, target: str) -> None:
    """Go back to the last verified bundle of MODEL: traffic first, then git. Run it again if it was interrupted."""
    run_rollback(open_target(target), model, environment, reason)


def run_rollback(
    target: Target, model: str, environment: str, reason: str, *, automatic: bool = False, suspect: str | None = None
) -> None:
    """Roll a model back in an environment, showing each step with the time since the beginning; see `roll_back`.

    Raises:
        MlopsError: there is nothing to go back to, or a step failed; it can be run again.
    """
    from pipelines.promotion.restore import restore_release
    from pipelines.promotion.rollback import Effects, Plan, roll_back
    from pipelines.promotion.traffic import move_traffic

    project = target.project
    project.model(model)
    descriptor = target.descriptor(environment)
    began = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"  {time.monotonic() - began:5.2f} s  {text}")

    def move(name: str, digest: str) -> None:
        say(f"traffic moved within {move_traffic(descriptor, name, digest):.2f} s")

    def restore(plan: Plan) -> None:
        restore_release(project, model, environment, plan.target, plan.bad, reason)

    entry = roll_back(
        project,
        descriptor,
        model,
        reason,
        context_of(Git(project.root)),
        Effects(move, restore, say),
        automatic=automatic,
        suspect=suspect,
    )
    click.echo(f"{model} in {environment} runs {entry.event.live}; record {entry.record.number} of its ledger says so")


def context_of(repository: Git) -> Any:
    """Who runs this, from what the workflow says."""
    from pipelines.promotion.promote import Context

    actor = os.environ.get("GITHUB_ACTOR") or os.environ.get("USER") or ""
    return Context(commit=repository.head(), actor=actor, run=run_link())


@click.command()
@click.option("--event", "event_file", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@target_option
def respond(event_file: Path, target: str) -> None:
    """Answer an alarm: drift asks for training, a breach rolls back."""
    from pipelines.github.gh import Gh
    from pipelines.promotion.alarm import read_alarm

    alarm = read_alarm(event_file.read_bytes())
    opened = open_target(target)
    if alarm.kind == "drift":
        Gh.find(opened.project.root).dispatch("train.yml", {"model": alarm.model})
        click.echo(f"asked for training of {alarm.model}")
    else:
        run_rollback(opened, alarm.model, alarm.environment, alarm.reason, automatic=True, suspect=alarm.bundle)


@click.command()
@environment_option
@target_option
def audit(environment: str, target: str) -> None:
    """Compare an environment with git: its infrastructure, and the bundles that it really serves."""
    from pipelines.serving.probe import open_endpoint

    opened = open_target(target)
    descriptor = opened.descriptor(environment)
    differences = opened.drift(environment)
    for model in opened.project.model_names:
        wanted = opened.project.release(model, environment).bundle
        if wanted is None and model not in descriptor.endpoints:
            continue
        try:
            with open_endpoint(descriptor, model) as endpoint:
                served = endpoint.served()
        except MlopsError as error:  # what else differs is said all the same
            differences.append(
                f"{model}: git says {wanted or 'nothing'}, and what {environment} serves is not known: {error.what}"
            )
            continue
        if served != wanted:
            differences.append(f"{model}: {environment} serves {served}, git says {wanted or 'nothing'}")
        else:
            click.echo(f"{model}: serves {served}, as git says")
    if differences:
        raise MlopsError(
            f"{environment} is not as git says:\n" + "\n".join(f"- {difference}" for difference in differences),
            fix=f"find out who changed it; to undo it: mlops refresh --env {environment}, then mlops deploy",
        )
    click.echo(f"{environment} is as git says.")


@click.command()
@click.argument("model")
@environment_option
@click.option("--at", "moment", help="What ran then: an ISO 8601 time, with its zone.")
@click.option("--verify", "verifying", is_flag=True, help="Check every signature, and that the chain is whole.")
@click.option("--offline", is_flag=True, help="Use the records fetched before; ask nobody.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON lines.")
@target_option
def history(
    model: str, environment: str, moment: str | None, verifying: bool, offline: bool, as_json: bool, target: str
) -> None:
    """What ran when, who approved it, on which data, from which commit."""
    from pipelines.promotion.history import at_time, describe, read_history

    project = Project.find()
    project.model(model)
    project.stack(environment)
    folder = project.root / ".mlops" / "ledgers" / environment
    descriptor = None if offline else open_target(target).descriptor(environment)
    entries = read_history(folder, model, descriptor, verify=verifying)
    if moment is not None:
        try:
            when = datetime.fromisoformat(moment)
        except ValueError:
            raise MlopsError(f"{moment!r} is no ISO 8601 time", fix="for example 2026-03-02T10:00:00+00:00") from None
        if when.tzinfo is None:
            raise MlopsError(f"{moment!r} says no time zone", fix="for example 2026-03-02T10:00:00+00:00")
        found = at_time(entries, when)
        entries = [found] if found is not None else []
    for entry in entries:
        click.echo(entry.record.model_dump_json() if as_json else describe(entry))
    if not entries:
        click.echo(f"nothing of {model} ran in {environment}" + (f" at {moment}" if moment else ""))
    elif verifying:
        click.echo(f"{len(entries)} records: every signature verifies, and the chain is whole.")
