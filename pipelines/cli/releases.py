"""Take a bundle live: `mlops release`, `mlops deploy`, `mlops predict`."""

from __future__ import annotations

import json
import os
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.cli.options import environment_option, open_target, target_option
from pipelines.cli.workflow import run_link, set_output
from pipelines.cluster.rollouts import RolloutState, wait_for_rollout
from pipelines.declarations.errors import MlopsError
from pipelines.targets import Target

if TYPE_CHECKING:
    from pipelines.declarations.release import Release
    from pipelines.github.git import Git
    from pipelines.promotion.facts.gather import Change
    from pipelines.promotion.promote import Context

PAUSE_ALLOWANCE_SECONDS = 300


@click.command()
@click.argument("model")
@environment_option
@click.option("--bundle", required=True, metavar="DIGEST", help="sha256:… of the bundle.")
@target_option
def release(model: str, environment: str, bundle: str, target: str) -> None:
    """Write into MODEL's release file that an environment is to run a bundle; refuses one it cannot trust."""
    from pipelines.promotion.release import release as write_release

    opened = open_target(target)
    path = write_release(opened.project, opened.descriptors(), model, environment, bundle)
    click.echo(f"{path.relative_to(opened.project.root)} now names {bundle}")


@click.command()
@environment_option
@target_option
def deploy(environment: str, target: str) -> None:
    """Make an environment run what its release files say: judge, apply, follow the rollouts, verify, record."""
    opened = open_target(target)
    run_deploy(opened, environment)
    set_output("follow", json.dumps([f"{release.model} to {to}" for release, to in following(opened, environment)]))


@click.command("propose-next")
@environment_option
@target_option
def propose_next(environment: str, target: str) -> None:
    """Open, or renew, the pull requests that take what an environment runs to those that follow it."""
    from pipelines.cli.promote import propose_release

    opened = open_target(target)
    for release, to in following(opened, environment):
        propose_release(opened, release.model, to, str(release.bundle))


def following(target: Target, environment: str) -> list[tuple[Release, str]]:
    """What is released to an environment but not to one that follows it, each with that one."""
    project = target.project
    after = [e for e in project.environments if project.stack(e).config.environment.promotes_from == environment]
    releases = [project.release(model, environment) for model in project.model_names]
    return [
        (release, to)
        for release in releases
        for to in after
        if release.bundle is not None and project.release(release.model, to).bundle != release.bundle
    ]


def run_deploy(target: Target, environment: str) -> None:
    """Make an environment run what its release files say, and record each release that went live.

    Raises:
        MlopsError: a release was refused, the program failed, or a rollout did not become healthy.
    """
    from pipelines.github.git import Git
    from pipelines.promotion.promote import Effects, admit, take_live
    from pipelines.promotion.traffic import move_traffic

    project, repository = target.project, Git(target.project.root)
    if environment not in target.descriptors():
        # The first time: there is no registry yet in which a release could be judged.
        target.apply("up", environment)
    target.get_ready()
    descriptors = target.descriptors()
    releases = [project.release(model, environment) for model in project.model_names]
    released = [release for release in releases if release.bundle is not None]

    def say(text: str) -> None:
        click.echo(f"  {text}")

    # All are judged before anything is applied: applying brings all of them.
    admitted = [
        admit(project, repository, descriptors, *introduced(repository, release), say=say) for release in released
    ]

    @cache
    def apply() -> None:
        target.apply("up", environment)

    if not admitted:
        apply()
    effects = Effects(
        apply=apply,
        follow=partial(follow, target, environment),
        descriptor=partial(target.descriptor, environment),
        take_back=lambda model, digest: move_traffic(target.descriptor(environment), model, digest),
        say=say,
    )
    for one in admitted:
        release, entry = one.release, take_live(project, descriptors, one, effects)
        live = target.descriptor(environment).endpoints[release.model]
        click.echo(f"{release.model} in {environment} serves {release.bundle} at {live}")
        click.echo(f"  record {entry.record.number} of its ledger")


def introduced(repository: Git, release: Release) -> tuple[Change, Context]:
    """The merge that brought a release to main: all of its files, and who let it in.

    Raises:
        MlopsError: the release file is not committed.
    """
    from pipelines.github import pull_requests
    from pipelines.github.gh import Gh
    from pipelines.promotion.facts.gather import Change
    from pipelines.promotion.promote import Context

    path = f"models/{release.model}/releases/{release.environment}.yaml"
    commit = repository.last_change(path)
    merge = pull_requests.find_merge(Gh.find(repository.root), commit) if os.environ.get("GITHUB_REPOSITORY") else None
    context = Context(
        commit=commit,
        actor=merge.author if merge else (os.environ.get("GITHUB_ACTOR") or os.environ.get("USER") or ""),
        run=run_link(),
        pull_request=merge.number if merge else None,
        approvers=merge.approvers if merge else (),
    )
    return Change(release, repository.changed_files(f"{commit}^", commit)), context


def follow(target: Target, environment: str, model: str) -> None:
    """Wait until the newest release of a model is live, showing each step of the rollout.

    Raises:
        MlopsError: the rollout failed, or did not end in time.
    """
    namespace = target.project.stack(environment).config.environment.namespace
    steps = target.project.model(model).serving.rollout
    deadline = PAUSE_ALLOWANCE_SECONDS + sum(step.pause_seconds for step in steps)
    wait_for_rollout(namespace, model, on_change=partial(show, model), deadline_seconds=deadline)


def show(model: str, state: RolloutState) -> None:
    """Print a rollout's state."""
    weight = f", {state.weight} % of the traffic to the new pods" if state.weight else ""
    click.echo(f"  rollout {model}: {state.phase}{weight}" + (f" ({state.message})" if state.message else ""))


@click.command()
@click.argument("model")
@environment_option
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An Open Inference Protocol request; without it, the golden request of the live bundle.",
)
@target_option
def predict(model: str, environment: str, file: Path | None, target: str) -> None:
    """Ask MODEL's endpoint in an environment for a prediction."""
    opened = open_target(target)
    request, answer = ask(opened, model, environment, file.read_bytes() if file else None)
    click.echo(f"request  {json.dumps(request)}")
    click.echo(f"answer   {json.dumps(answer)}")


def ask(
    target: Target, model: str, environment: str, request: bytes | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send a request (by default the live bundle's golden one) to an endpoint; the request and the answer.

    Raises:
        MlopsError: nothing is released there, or the endpoint answers with an error.
    """
    from pipelines.serving.golden import request_of
    from pipelines.serving.probe import golden_of, open_endpoint

    target.project.model(model)
    descriptor = target.descriptor(environment)
    with open_endpoint(descriptor, model) as endpoint:
        if request is None:
            asked = request_of(golden_of(descriptor, model, endpoint.served()))
        else:
            asked = read_request(request)
        return asked, endpoint.infer(asked)


def read_request(content: bytes) -> dict[str, Any]:
    """A request from a file.

    Raises:
        MlopsError: it is not a JSON object.
    """
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise MlopsError(f"the request is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise MlopsError("the request is not a JSON object")
    return parsed
