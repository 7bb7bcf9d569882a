"""Take a bundle live: `mlops release`, `mlops deploy`, `mlops predict`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipelines.cli.targets import Target, environment_option, open_target, target_option
from pipelines.cluster.rollouts import RolloutState, wait_for_rollout
from pipelines.declarations.errors import MlopsError

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
    """Make an environment run what its release files say: copy the bundles, `up`, follow the rollouts."""
    run_deploy(open_target(target), environment)


def run_deploy(target: Target, environment: str) -> None:
    """Make an environment run what its release files say.

    Raises:
        MlopsError: a bundle cannot be trusted, the program failed, or a rollout did not become healthy.
    """
    from pipelines.promotion.endpoint import verify
    from pipelines.promotion.replicate import replicate

    project = target.project
    released = {name: project.release(name, environment).bundle for name in project.model_names}
    previous = project.stack(environment).config.environment.promotes_from
    if previous is not None:
        descriptors = target.descriptors()
        for model, digest in released.items():
            if digest is not None and environment in descriptors:
                replicate(descriptors[previous], descriptors[environment], model, digest)
    target.apply("up", environment)
    descriptor = target.descriptor(environment)
    for model, digest in released.items():
        if digest is None or descriptor.images.serving is None:
            continue
        steps = project.model(model).serving.rollout
        deadline = PAUSE_ALLOWANCE_SECONDS + sum(step.pause_seconds for step in steps)
        wait_for_rollout(descriptor.namespace, model, on_change=partial(show, model), deadline_seconds=deadline)
        proven = verify(descriptor, model, digest, project.model(model).gates.latency.p99_ms)
        click.echo(f"{model} in {environment} serves {digest} at {descriptor.endpoints[model]}")
        click.echo(f"  {proven.rows} golden rows match; median {proven.median_ms:.1f} ms of {proven.requests} requests")


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
    from pipelines.promotion.endpoint import connected, golden_of

    target.project.model(model)
    descriptor = target.descriptor(environment)
    with connected(descriptor, model) as endpoint:
        if request is None:
            golden = golden_of(descriptor, model, endpoint.served())
            asked: dict[str, Any] = {"inputs": [tensor.model_dump(mode="json") for tensor in golden.inputs]}
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
