"""Events on the laptop's GitHub, in the form of GitHub's webhook payloads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SERVER_URL = "https://github.localhost"
"""Address of the laptop's GitHub. The name never leaves this machine (RFC 6761)."""


@dataclass(frozen=True)
class WebhookEvent:
    """An event that may start workflows.

    Attributes:
        name: `push`, `pull_request`, …
        payload: the webhook's body.
        ref: the full ref that workflows run for.
        sha: the commit that workflows run on, and whose workflow files count.
        actor: the login that caused it.
        action: `opened`, …; the type of a repository_dispatch; the cron of a schedule; else "".
        workflow: path of the only workflow to start (workflow_dispatch), else "".
        head_ref, base_ref: branch names of a pull request.
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
        """The branch that `branches` filters apply to: the pushed one, or the base of a pull request."""
        if self.name == "merge_group":
            return str(self.payload["merge_group"]["base_ref"]).removeprefix("refs/heads/")
        return self.base_ref or self.ref.removeprefix("refs/heads/")

    @property
    def from_fork(self) -> bool:
        """True for a pull request from another repository. Its jobs get no secrets and no variables."""
        pull = self.payload.get("pull_request") if self.name == "pull_request" else None
        return pull is not None and pull["head"]["repo"]["full_name"] != self.payload["repository"]["full_name"]

    @property
    def ref_name(self) -> str:
        """The short name: `main`, `7/merge`, `v1.0`."""
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix("refs/pull/")
