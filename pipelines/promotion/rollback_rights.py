"""Check every right that a rollback needs before it moves traffic. Nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from pipelines.cluster.access import Permission, find_denied
from pipelines.cluster.connection import connect
from pipelines.cluster.rollouts import try_change
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.github.outages import OutageError
from pipelines.github.settings import active_on_main
from pipelines.promotion.attempt import Log
from pipelines.registry import signing
from pipelines.registry.ledger import PREDICATE, Ledger

ARGO, COORDINATION = "argoproj.io", "coordination.k8s.io"

IN_CLUSTER = (
    Permission("get", "rollouts", ARGO),
    Permission("patch", "rollouts", ARGO),
    Permission("patch", "rollouts/status", ARGO),
    Permission("list", "pods"),
    Permission("get", "pods/portforward"),
    Permission("create", "pods/portforward"),
    Permission("get", "leases", COORDINATION),
    Permission("create", "leases", COORDINATION),
    Permission("update", "leases", COORDINATION),
)
"""Permissions in the namespace of the environment."""

_MAY_BYPASS = ("always", "exempt")


class MissingRightsError(MlopsError):
    """The caller lacks rights that a rollback needs."""


def check_rights(project: Project, descriptor: EnvironmentDescriptor, model: str, good: str, log: Log) -> None:
    """Check that the caller may change the Rollout, write the registry, sign for the environment and push to main.

    Args:
        project: the clone.
        descriptor: the environment.
        model: the model's name.
        good: digest of the bundle to return to.
        log: receives what could not be checked.

    Raises:
        MissingRightsError: a right is missing; the message names each.
        MlopsError: the cluster or the registry does not answer.
    """
    with connect(descriptor.namespace) as client:
        problems = [f"may not {one} in {descriptor.namespace}" for one in find_denied(client, IN_CLUSTER)]
    checks: tuple[Callable[[], None], ...] = (
        partial(try_change, descriptor.namespace, model, good),
        partial(_try_registry, descriptor, model, good),
        partial(_try_push, project, log),
    )
    for check in checks:
        try:
            check()
        except OutageError as error:
            log(f"whether main can be changed is not known: {error.what}")
        except MlopsError as error:
            problems.append(error.what)
    if problems:
        raise MissingRightsError(
            f"a rollback of {model} in {descriptor.name} would stop half-way; traffic was not moved:\n"
            + "\n".join(f"  {problem}" for problem in problems),
            fix="run the workflow `rollback` instead, or get these rights",
        )


def _try_registry(descriptor: EnvironmentDescriptor, model: str, good: str) -> None:
    """Sign, and write where the ledger and the quarantine are, on conditions that are never met.

    S3 checks permissions before conditions.
    """
    signing.sign(signing.Statement.about(model, good, PREDICATE, {}), descriptor.signing_key, descriptor.name)
    ledger = Ledger(descriptor, model)
    ledger.try_append()


def _try_push(project: Project, log: Log) -> None:
    """Push main to itself without doing it, and ask GitHub whether its rules let this token push a commit."""
    git = Git(project.root)
    main = git.fetch("main")
    if main is None:
        raise MlopsError("the origin has no branch main")
    git.run("push", "--quiet", "--dry-run", "origin", f"{main}:refs/heads/main")
    if not os.environ.get("GITHUB_REPOSITORY"):
        return
    gh = Gh.find(project.root)
    try:
        listed = [one["id"] for one in gh.get("rulesets") if one.get("target") == "branch"]
        rulesets = [found for one in listed if active_on_main(found := gh.get(f"rulesets/{one}"))]
    except (MlopsError, ValueError, KeyError, TypeError) as error:
        log(f"whether the rules of main let this token push could not be read: {error}")
        return
    for ruleset in rulesets:
        bypass = ruleset.get("current_user_can_bypass")
        if bypass is None:
            log(f"whether the ruleset {ruleset.get('name')!r} lets this token push is not visible")
        elif bypass not in _MAY_BYPASS:
            raise MlopsError(
                f"the ruleset {ruleset.get('name')!r} lets this token push to main: expected always, found {bypass}"
            )
