"""Apply an environment's program to the local target: the engine, the providers and the rules put together."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from infra.local import target
from infra.local.engine.deployment import Deployment, DeploymentError
from infra.local.engine.display import Display, Silence
from infra.local.engine.policy import PlannedResource
from infra.local.engine.report import Progress
from infra.local.engine.state import write_atomically
from infra.policies import PlannedResource as JudgedResource
from infra.policies import violations
from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from infra.local.github.laptop import Roles

ACCOUNT_STACK = "account"
"""The stack of `infra/bootstrap`."""

_ACCOUNT_KEY = "mlops-bootstrap:account"


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


def bootstrap(root: Path, home: Path, repository: str) -> Roles:
    """Make the account ready for the workflows of a repository: `infra/bootstrap`, and what it asks to be written down.

    The permissions boundaries that it makes are written into `Pulumi.<environment>.yaml`, as docs/bootstrap.md asks a
    person to do.

    Args:
        root: the folder with `Pulumi.yaml`.
        home: of the local target.
        repository: on GitHub, `owner/name`.

    Returns:
        The roles that jobs may take.

    Raises:
        MlopsError: the local target does not run, or the program failed or was refused.
    """
    from infra.local.github.laptop import Roles

    running, folder = target.find(home), root / "infra" / "bootstrap"
    file = folder / f"Pulumi.{ACCOUNT_STACK}.yaml"
    said = parse_yaml(read_bytes(file), file)[0]["config"][_ACCOUNT_KEY]
    deployment = Deployment(
        folder,
        ACCOUNT_STACK,
        running.providers(),
        running.home,
        running.incarnation,
        policies=[keep_the_rules],
        configuration={_ACCOUNT_KEY: json.dumps({**said, "repository": repository})},
    )
    made = deployment.up().outputs
    for environment, boundary in made["boundaries"].items():
        _write_boundary(root / f"Pulumi.{environment}.yaml", boundary)
    return Roles(made["roles"]["deploy"], made["roles"]["preview"])


def _write_boundary(file: Path, arn: str) -> None:
    line = f"permissions_boundary: {arn}"
    text, found = re.subn(
        r"^(\s+)permissions_boundary:.*$", rf"\g<1>{line}", file.read_text(), count=1, flags=re.MULTILINE
    )
    if not found:
        raise MlopsError(f"{file.name} has no line `permissions_boundary:` under mlops:environment")
    mode = file.stat().st_mode & 0o777
    write_atomically(file, text.encode())
    file.chmod(mode)
