"""Apply an environment's program to the local target: the engine, the providers and the rules put together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from infra.policies import PlannedResource as JudgedResource
from infra.policies import violations
from laptop import lifecycle
from laptop.engine.deployment import Deployment, DeploymentError
from laptop.engine.display import Display, Silence, show_change
from laptop.engine.policy import PlannedResource
from laptop.engine.report import Progress
from laptop.engine.state import stack_outputs
from laptop.engine.steps import Kind
from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from laptop.github.hosting import Roles

ACCOUNT_STACK = "account"
"""The stack of `infra/bootstrap`."""

_ACCOUNT_KEY = "mlops-bootstrap:account"
_BOOTSTRAP = Path("infra", "bootstrap")


def deploy(
    root: Path,
    home: Path,
    stack: str,
    operation: Literal["preview", "up", "destroy", "refresh"],
    display: Display | None = None,
) -> None:
    """Run an operation on a stack of the local target, and print what it does.

    Args:
        root: the folder with `Pulumi.yaml`.
        home: of the local target.
        stack: the environment.
        operation: what to do.
        display: how it is printed; a line a step by default.

    Raises:
        MlopsError: the local target does not run, or the operation failed or was refused.
    """
    display = display or Display()
    if operation == "up":
        prepare_account(root, home, display)
    deployment = _deployment(root, home, stack, display)
    try:
        result = getattr(deployment, operation)()
    except DeploymentError as error:
        display.summary(error.result.counts, error.result.duration, planned=operation == "preview")
        raise
    display.summary(result.counts, result.duration, planned=operation == "preview")


def find_drift(root: Path, home: Path, stack: str) -> list[str]:
    """What is at the target but not as the state or the program says, a line a resource.

    Args:
        root: the folder with `Pulumi.yaml`.
        home: of the local target.
        stack: the environment.

    Raises:
        MlopsError: the local target does not run, or a resource cannot be read.
    """
    drifted: dict[str, str] = {}
    for step in _deployment(root, home, stack, Silence()).drift():
        if step.kind in (Kind.DRIFTED, Kind.GONE):
            changes = ", ".join(show_change(change) for change in step.changes)
            drifted[step.urn] = f"{step.type} {step.name}: {step.kind.value} at the target{changes and f' ({changes})'}"
        else:
            drifted.setdefault(step.urn, f"{step.type} {step.name}: {step.kind.value} is due")
    return list(drifted.values())


def _deployment(root: Path, home: Path, stack: str, progress: Progress) -> Deployment:
    running = lifecycle.find(home)
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
    return violations(judged(resources))


def judged(resources: Sequence[PlannedResource]) -> list[JudgedResource]:
    """A plan of the engine as the rules see it."""
    return [
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


def prepare_account(root: Path, home: Path, progress: Progress) -> None:
    """Make the account ready for the environments of a project, unless it is; see `bootstrap`.

    A job of a workflow cannot: as on AWS, the roles of jobs are none of theirs to make.

    Raises:
        MlopsError: the local target does not run, or the program failed or was refused.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true" or not (root / _BOOTSTRAP).is_dir():
        return
    known = (stack_outputs(home, ACCOUNT_STACK) or {}).get("deploy_roles", {})
    if not set(Project(root).environments) <= set(known):
        progress.noticed(f"the account is made ready first, by {_BOOTSTRAP}: see docs/bootstrap.md")
        bootstrap(root, home)


def bootstrap(root: Path, home: Path, repository: str | None = None) -> Roles:
    """Make the account ready for the workflows of a repository: what `infra/bootstrap` says.

    Args:
        root: the folder with `Pulumi.yaml`.
        home: of the local target.
        repository: on GitHub, `owner/name`; None: the one that `Pulumi.account.yaml` names.

    Returns:
        The roles that jobs may take.

    Raises:
        MlopsError: the local target does not run, or the program failed or was refused.
    """
    from laptop.github.hosting import Roles

    running, folder = lifecycle.find(home), root / _BOOTSTRAP
    deployment = Deployment(
        folder,
        ACCOUNT_STACK,
        running.providers(),
        running.home,
        running.incarnation,
        policies=[keep_the_rules],
        configuration=_for_repository(folder, repository) if repository else None,
    )
    made = deployment.up().outputs
    return Roles(made["deploy_roles"], made["preview_role"])


def _for_repository(folder: Path, repository: str) -> dict[str, str]:
    """The configuration of the account's stack, for another repository than its file names."""
    file = folder / f"Pulumi.{ACCOUNT_STACK}.yaml"
    said = parse_yaml(read_bytes(file), file)[0]["config"][_ACCOUNT_KEY]
    return {_ACCOUNT_KEY: json.dumps({**said, "repository": repository, "repository_ids": None})}
