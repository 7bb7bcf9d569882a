"""Take a bundle live: `mlops release`, `mlops deploy`, `mlops predict`."""

from __future__ import annotations

import json
from pathlib import Path

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
        wait_for_rollout(
            descriptor.namespace, model, on_change=lambda s, m=model: show(m, s), deadline_seconds=deadline
        )
        served = served_bundle(descriptor.endpoints[model], model)
        if served != digest:
            raise MlopsError(f"{environment} answers with {served} for {model}, not with {digest}")
        click.echo(f"{model} in {environment} serves {digest} at {descriptor.endpoints[model]}")


def show(model: str, state: RolloutState) -> None:
    """Print a rollout's state."""
    weight = f", {state.weight} % of the traffic to the new pods" if state.weight else ""
    click.echo(f"  rollout {model}: {state.phase}{weight}" + (f" ({state.message})" if state.message else ""))


def call(url: str, body: bytes | None = None, timeout: float = 10.0) -> dict[str, object]:
    """Ask an endpoint; its JSON answer.

    Raises:
        MlopsError: it does not answer, or answers with an error.
    """
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - the stack's own endpoint
            parsed: dict[str, object] = json.load(answer)
            return parsed
    except urllib.error.HTTPError as error:
        raise MlopsError(f"{url} answered {error.code}: {error.read(2000).decode(errors='replace')}") from None
    except (OSError, ValueError) as error:
        raise MlopsError(f"{url} does not answer: {error}") from None


def served_bundle(endpoint: str, model: str) -> str:
    """The digest of the bundle that an endpoint says it serves."""
    parameters = call(f"{endpoint}/v2/models/{model}").get("parameters")
    return str(parameters.get("bundle")) if isinstance(parameters, dict) else "nothing"


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
) -> tuple[dict[str, object], dict[str, object]]:
    """Send a request (by default the live bundle's golden one) to an endpoint; the request and the answer.

    Raises:
        MlopsError: nothing is released there, or the endpoint answers with an error.
    """
    from pipelines.declarations.bundle import GoldenPredictions
    from pipelines.declarations.documents import parse
    from pipelines.registry.bundles import fetch

    target.project.model(model)
    descriptor = target.descriptor(environment)
    endpoint = descriptor.endpoints.get(model)
    if endpoint is None:
        raise MlopsError(f"{model} is not released in {environment}", fix="release a bundle there, then `mlops deploy`")
    if request is None:
        served = served_bundle(endpoint, model)
        content = fetch(descriptor, model, served, ["golden.json"]).files["golden.json"]
        golden = parse(content, GoldenPredictions, Path("golden.json"))
        request = json.dumps({"inputs": [tensor.model_dump(mode="json") for tensor in golden.inputs]}).encode()
    return json.loads(request), call(f"{endpoint}/v2/models/{model}/infer", request)
