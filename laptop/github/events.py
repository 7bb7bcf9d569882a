"""What happens on the laptop's GitHub, in the form of GitHub's webhook payloads, and which workflows it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # git waits for the hooks, which need none of it
    from laptop.github.workflow import Workflow

SERVER = "https://github.localhost"
"""A name that never leaves this machine (RFC 6761)."""


@dataclass(frozen=True)
class Event:
    """One event.

    Attributes:
        name: `push`, `pull_request`, …
        payload: the webhook's body.
        ref: the full ref that workflows run for.
        sha: the commit that workflows run on, and whose workflow files count.
        actor: the login.
        action: `opened`, the type of a repository_dispatch, the cron of a schedule; else "".
        workflow: the only workflow file meant (workflow_dispatch), else "".
        head_ref, base_ref: branch names, for a pull request.
        head_sha: the commit that checks are reported on.
    """

    name: str
    payload: dict[str, Any]
    ref: str
    sha: str
    actor: str
    action: str = ""
    workflow: str = ""
    head_ref: str = ""
    base_ref: str = ""
    head_sha: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def branch(self) -> str:
        """The branch that filters are about: the pushed one, or what is to be merged into."""
        if self.name == "merge_group":
            return str(self.payload["merge_group"]["base_ref"]).removeprefix("refs/heads/")
        return self.base_ref or self.ref.removeprefix("refs/heads/")

    @property
    def from_fork(self) -> bool:
        """Is it about a pull request from another repository? Its jobs get no secrets and no variables."""
        pull = self.payload.get("pull_request") if self.name == "pull_request" else None
        return pull is not None and pull["head"]["repo"]["full_name"] != self.payload["repository"]["full_name"]

    @property
    def ref_name(self) -> str:
        """`main`, `7/merge`, `v1.0`."""
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("refs/pull/")


def starts(workflow: Workflow, event: Event, changed: Callable[[], Sequence[str]]) -> bool:
    """Does `event` start `workflow`?

    Args:
        changed: the files that the event changes; only asked for when a filter needs them.
    """
    trigger = workflow.triggers.get(event.name)
    if trigger is None or (event.workflow and event.workflow != workflow.path):
        return False
    if event.name == "schedule":
        return event.action in trigger.crons
    if trigger.types and event.action not in trigger.types:
        return False
    if event.ref.startswith("refs/tags/"):
        if trigger.tags is None:
            return trigger.branches is None
        return trigger.tags.accept(event.ref_name)
    if trigger.branches is None and trigger.tags is not None:
        return False
    if trigger.branches is not None and not trigger.branches.accept(event.branch):
        return False
    return trigger.paths is None or trigger.paths.accept_any(changed())
