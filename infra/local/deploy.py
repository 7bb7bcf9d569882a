"""Apply an environment's program to the local target: the engine, the providers and the rules put together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from infra.local import target
from infra.local.engine.deployment import Deployment, DeploymentError
from infra.local.engine.display import Display, Silence
from infra.local.engine.policy import PlannedResource
from infra.local.engine.report import Progress
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
    display = Display()
    deployment = _deployment(root, home, stack, display)
    try:
        result = getattr(deployment, operation)()
    except DeploymentError as error:
        display.summary(error.result.counts, error.result.duration, planned=operation == "preview")
        raise
    display.summary(result.counts, result.duration, planned=operation == "preview")


def find_drift(root: Path, home: Path, stack: str) -> list[str]:
    """What is at the target but not as the state or the program says, a line a resource. Drift is taken into the state.

    Args:
        root: the folder with `Pulumi.yaml`.
        home: of the local target.
        stack: the environment.

    Raises:
        MlopsError: the local target does not run, or a resource cannot be read.
    """
    found = _deployment(root, home, stack, Silence()).refresh().changes
    drifted = {step.urn: f"{step.type} {step.name}: {step.kind.value} at the target" for step in found}
    for step in _deployment(root, home, stack, Silence()).preview().changes:
        drifted.setdefault(step.urn, f"{step.type} {step.name}: {step.kind.value} is due")
    return list(drifted.values())


def _deployment(root: Path, home: Path, stack: str, progress: Progress) -> Deployment:
    running = target.find(home)
    return Deployment(
        root,
        stack,
        running.providers(),
        running.home,
        running.incarnation,
        policies=[keep_the_rules],
        progress=progress,
    )


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
