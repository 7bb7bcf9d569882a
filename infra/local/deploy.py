"""Apply an environment's program to the local target: the engine, the providers and the rules put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from infra.local import target
from infra.local.engine.deployment import Deployment, DeploymentError
from infra.local.engine.display import Display
from infra.local.engine.policy import PlannedResource
from infra.policies import PlannedResource as JudgedResource
from infra.policies import violations


def deploy(root: Path, home: Path, stack: str, operation: Literal["preview", "up", "destroy", "refresh"]) -> None:
    """Run an operation on a stack of the local target, and print what it does.

    Args:
        root: the folder with `Pulumi.yaml`.
        home: of the local target.
        stack: the environment.
        operation: what to do.

    Raises:
        MlopsError: the local target does not run, or the operation failed or was refused.
    """
    running = target.find(home)
    display = Display()
    deployment = Deployment(
        root,
        stack,
        running.providers(),
        running.home,
        running.incarnation,
        policies=[keep_the_rules],
        progress=display,
    )
    try:
        result = getattr(deployment, operation)()
    except DeploymentError as error:
        display.summary(error.result.counts, error.result.duration, planned=operation == "preview")
        raise
    display.summary(result.counts, result.duration, planned=operation == "preview")


def keep_the_rules(resources: Sequence[PlannedResource]) -> Iterable[object]:
    """The rules of `infra.policies` over a plan of the engine."""
    judged = [
        JudgedResource(
            type=resource.type,
            name=resource.name,
            urn=resource.urn,
            props=resource.inputs,
            protect=bool(resource.options.protect),
            parent=resource.parent,
        )
        for resource in resources
    ]
    return violations(judged)
