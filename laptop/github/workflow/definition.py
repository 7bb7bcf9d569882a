"""Types of a workflow file and a composite action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from laptop.github.expressions.syntax import Node, Template
from laptop.github.workflow.filters import Patterns

Tree = Any
"""A value of the file: a Template, or a dict or list of trees."""

EVENTS = ("merge_group", "pull_request", "push", "repository_dispatch", "schedule", "workflow_dispatch")

PULL_REQUEST_TYPES = (
    *("assigned", "closed", "converted_to_draft", "edited", "labeled", "opened", "ready_for_review", "reopened"),
    *("review_requested", "synchronize", "unassigned", "unlabeled"),
)

SCOPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("actions", "artifact-metadata", "attestations", "checks", "code-quality", "contents", "deployments"),
            *("discussions", "issues", "packages", "pages", "pull-requests", "repository-projects"),
            *("security-events", "statuses"),
        ),
        ("read", "write", "none"),
    ),
    "id-token": ("write", "none"),
    "models": ("read", "none"),
}
"""Scopes of `permissions`, and the levels of each."""

GITHUB_PROPERTIES = frozenset(
    (
        *("action", "action_path", "action_ref", "action_repository", "action_status", "actor", "actor_id", "api_url"),
        *("base_ref", "env", "event", "event_name", "event_path", "graphql_url", "head_ref", "job", "output", "path"),
        *("ref", "ref_name", "ref_protected", "ref_type", "repository", "repository_id", "repository_owner"),
        *("repository_owner_id", "repositoryurl", "retention_days", "run_attempt", "run_id", "run_number"),
        *("secret_source", "server_url", "sha", "step_summary", "token", "triggering_actor", "workflow"),
        *("workflow_ref", "workflow_sha", "workspace"),
    )
)


@dataclass(frozen=True)
class Input:
    """An input of a dispatched workflow or of a composite action."""

    name: str
    kind: str  # string, boolean, number, choice, environment
    required: bool
    default: Template | None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trigger:
    """One event that starts a workflow, with its filters; None means no filter."""

    event: str
    types: tuple[str, ...] = ()
    branches: Patterns | None = None
    tags: Patterns | None = None
    paths: Patterns | None = None
    inputs: tuple[Input, ...] = ()
    crons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Concurrency:
    """A concurrency group: one of its jobs or runs runs at a time.

    Attributes:
        group: its name, compared without case.
        cancel_in_progress: a new run or job stops the running one.
        queue: with "single", a new run or job replaces the waiting one; with "max", up to 100 wait, first in first out.
    """

    group: Template
    cancel_in_progress: Template
    queue: str


@dataclass(frozen=True)
class Defaults:
    """`defaults.run` of a workflow or job."""

    shell: str | None = None
    working_directory: Template | None = None


@dataclass(frozen=True)
class DeploymentEnvironment:
    """`environment` of a job.

    Attributes:
        name: its name.
        url: URL of the deployment.
        deployment: false for a job that uses the environment without deploying to it.
    """

    name: Template
    url: Template | None
    deployment: Template


@dataclass(frozen=True)
class Step:
    """One step. Exactly one of `run` and `uses` is set."""

    number: int
    line: int
    id: str
    name: Template | None
    condition: Node | None
    run: Template | None
    shell: str | None
    uses: str | None
    inputs: Mapping[str, Template]
    env: Mapping[str, Template]
    working_directory: Template | None
    timeout_minutes: Template | None
    continue_on_error: Template


@dataclass(frozen=True)
class Strategy:
    """A matrix: `axes`, `include` and `exclude`, or `whole`, an expression for all of it."""

    axes: Mapping[str, Tree]
    include: Tree
    exclude: Tree
    whole: Template | None
    fail_fast: Template
    max_parallel: Template | None


@dataclass(frozen=True)
class Job:
    """One job. `permissions` is None if the job declares none; those of the workflow apply."""

    id: str
    line: int
    name: Template | None
    needs: tuple[str, ...]
    condition: Node | None
    runs_on: Tree
    environment: DeploymentEnvironment | None
    permissions: Mapping[str, str] | None
    outputs: Mapping[str, Template]
    env: Mapping[str, Template]
    defaults: Defaults
    strategy: Strategy | None
    timeout_minutes: Template
    continue_on_error: Template
    concurrency: Concurrency | None
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Workflow:
    """A workflow file. `permissions` is None if the file declares none; the repository's default applies."""

    path: str
    name: str
    run_name: Template | None
    triggers: Mapping[str, Trigger]
    permissions: Mapping[str, str] | None
    env: Mapping[str, Template]
    defaults: Defaults
    concurrency: Concurrency | None
    jobs: Mapping[str, Job]


@dataclass(frozen=True)
class CompositeAction:
    """A composite action: `runs.using: composite`."""

    name: str
    inputs: tuple[Input, ...]
    outputs: Mapping[str, Template]
    steps: tuple[Step, ...]
