"""Operations on the laptop's stacks: the engine with the laptop's providers and the product's policies."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from infra.policies import violations
from laptop import lifecycle
from laptop.aws.eks_clusters import declare_clusters, declared_clusters
from laptop.engine.checkpoint import DefaultProvider, PassphraseSeal, export_deployment, has_secrets
from laptop.engine.deployment import Deployment, DeploymentError, Result
from laptop.engine.display import Display, Silence, show_change
from laptop.engine.progress import RunProgress
from laptop.engine.project_file import load_project, load_stack
from laptop.engine.provider import Exporting
from laptop.engine.resource_steps import StepKind
from laptop.engine.sealing import Seal
from laptop.engine.state_file import load, stack_outputs, state_path
from pipelines.declarations.documents import parse_yaml, read_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

if TYPE_CHECKING:
    from laptop.github.hosting import Roles

ACCOUNT_STACK = "account"
"""Stack of `infra/bootstrap`."""

_ACCOUNT_KEY = "mlops-bootstrap:account"
_BOOTSTRAP = Path("infra", "bootstrap")


def deploy(
    root: Path,
    home: Path,
    stack: str,
    operation: Literal["preview", "up", "destroy", "refresh"],
    display: Display | None = None,
) -> Result:
    """Run an operation on a stack, print its progress, and return the result.

    Args:
        root: folder with `Pulumi.yaml`.
        home: folder of the laptop.
        stack: name of the environment.
        operation: method of `Deployment`.
        display: one line per step by default.

    Raises:
        MlopsError: the laptop is not running, or the operation failed or was refused.
    """
    display = display or Display()
    if operation == "up":
        prepare_account(root, home, display)
    deployment = _deployment(root, home, stack, display)
    try:
        # As on AWS: a rollback changes the cluster, and the engine compares the program with its state only.
        result: Result = deployment.up(refresh=True) if operation == "up" else getattr(deployment, operation)()
    except DeploymentError as error:
        display.summary(error.result.counts, error.result.duration, planned=operation == "preview")
        raise
    display.summary(result.counts, result.duration, planned=operation == "preview")
    return result


def find_drift(root: Path, home: Path, stack: str) -> list[str]:
    """List drift from the state and from the program, one line per resource.

    Args:
        root: folder with `Pulumi.yaml`.
        home: folder of the laptop.
        stack: name of the environment.

    Raises:
        MlopsError: the laptop is not running, or a resource cannot be read.
    """
    drifted: dict[str, str] = {}
    for step in _deployment(root, home, stack, Silence()).drift():
        if step.kind in (StepKind.DRIFTED, StepKind.GONE):
            changes = ", ".join(show_change(change) for change in step.changes)
            drifted[step.urn] = f"{step.type} {step.name}: {step.kind.value}{changes and f' ({changes})'}"
        else:
            drifted.setdefault(step.urn, f"{step.type} {step.name}: {step.kind.value} pending")
    return list(drifted.values())


def export_stack(root: Path, home: Path, stack: str, passphrase: str | None) -> dict[str, Any]:
    """Return the state of a stack as `pulumi stack export` does, for `pulumi stack import`.

    Args:
        root: folder with `Pulumi.yaml`.
        home: folder of the laptop.
        stack: name of an environment, or `account`.
        passphrase: encrypts secrets; None refuses a stack that has some.

    Raises:
        MlopsError: the laptop is not running, the stack has no state, or a passphrase is missing.
    """
    running = lifecycle.find(home)
    project = load_project(root / _BOOTSTRAP if stack == ACCOUNT_STACK else root)
    path = state_path(running.home, stack)
    if not path.exists():
        raise MlopsError(
            f"the stack `{stack}` has no state: {path} does not exist",
            fix="apply it: `mlops up --env dev` applies `account` first.",
        )
    contents = load(path, project.name, stack, running.incarnation, Seal(path.parent))
    seal = None
    if has_secrets(contents):
        if passphrase is None:
            raise MlopsError(
                f"the stack `{stack}` has secrets, but no passphrase to encrypt them: expected "
                "PULUMI_CONFIG_PASSPHRASE, found nothing",
                fix='set it, for example by eval "$(mlops laptop env)".',
            )
        seal = PassphraseSeal(passphrase)
    configuration = load_stack(project, stack).values
    providers = {
        package: DefaultProvider(
            metadata.version(f"pulumi-{package}"),
            {key.partition(":")[2]: value for key, value in configuration.items() if key.startswith(f"{package}:")},
            **({"outputs": provider.exported_outputs} if isinstance(provider, Exporting) else {}),
        )
        for package, provider in running.providers().items()
    }
    return export_deployment(contents, providers, seal, datetime.now(UTC))


def _deployment(root: Path, home: Path, stack: str, progress: RunProgress) -> Deployment:
    running = lifecycle.find(home)
    return Deployment(
        root,
        stack,
        running.providers(),
        running.home,
        running.incarnation,
        policies=[violations],
        progress=progress,
    )


def prepare_account(root: Path, home: Path, progress: RunProgress) -> None:
    """Bootstrap the account if an environment has no deploy role yet, and create the clusters that are declared.

    Does nothing in a workflow: as on AWS, a job cannot create the roles of jobs.

    Raises:
        MlopsError: the laptop is not running, or the bootstrap failed or was refused.
    """
    if os.environ.get("GITHUB_ACTIONS") == "true" or not (root / _BOOTSTRAP).is_dir():
        return
    _declare_clusters(root, home)
    if not set(Project(root).environments) <= set(deploy_roles(home)):
        progress.noticed(f"bootstrapping the account with {_BOOTSTRAP}: see docs/bootstrap.md")
        bootstrap(root, home)


def deploy_roles(home: Path) -> dict[str, str]:
    """Return environment → ARN of the deploy role that the last bootstrap made; empty before the first one."""
    return dict((stack_outputs(home, ACCOUNT_STACK) or {}).get("deploy_roles", {}))


def bootstrap(root: Path, home: Path, repository: str | None = None) -> Roles:
    """Apply `infra/bootstrap`, which prepares the account for the workflows of a repository, and declare its clusters.

    Args:
        root: folder with `Pulumi.yaml`.
        home: folder of the laptop.
        repository: `owner/name` on GitHub; None takes the one in `Pulumi.account.yaml`.

    Returns:
        The roles that jobs may assume.

    Raises:
        MlopsError: the laptop is not running, or the bootstrap failed or was refused.
    """
    from laptop.github.hosting import Roles

    _declare_clusters(root, home)
    running, folder = lifecycle.find(home), root / _BOOTSTRAP
    deployment = Deployment(
        folder,
        ACCOUNT_STACK,
        running.providers(),
        running.home,
        running.incarnation,
        policies=[violations],
        configuration=_for_repository(folder, repository) if repository else None,
    )
    outputs = deployment.up().outputs
    return Roles(outputs["deploy_roles"], outputs["preview_role"], outputs["images_role"])


def _declare_clusters(root: Path, home: Path) -> None:
    running = lifecycle.find(home)
    declare_clusters(running.home / "aws", running.home / "kubeconfig", declared_clusters(Project(root)))


def _for_repository(folder: Path, repository: str) -> dict[str, str]:
    """Return the account stack's configuration for another repository."""
    file = folder / f"Pulumi.{ACCOUNT_STACK}.yaml"
    account = parse_yaml(read_bytes(file), file)[0]["config"][_ACCOUNT_KEY]
    plain = {"repository": repository, "repository_ids": None, "subject_template": None}
    return {_ACCOUNT_KEY: json.dumps({**account, **plain})}
