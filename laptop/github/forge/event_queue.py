"""Build events and queue them in the state, unless GitHub would start no workflow for them."""

from __future__ import annotations

import re
from typing import Any

from laptop.github.forge import payloads
from laptop.github.forge.actors import Actor
from laptop.github.forge.bare_repository import NO_COMMIT, BareRepository
from laptop.github.forge.github_state import State
from laptop.github.forge.merge_rules import PullRequestRecord
from laptop.github.forge.webhook_event import WebhookEvent

_SKIP = re.compile(r"\[(?:skip ci|ci skip|no ci|skip actions|actions skip)\]")
_SKIP_TRAILER = re.compile(r"\n\n\n(?:[A-Za-z][A-Za-z-]*:.*\n)*skip-checks: ?true\s*$")
"""The last of the trailers, which two empty lines precede ("Skipping workflow runs")."""
_STARTED_BY_JOBS = ("workflow_dispatch", "repository_dispatch")
"""Events that start workflows even if a job's GITHUB_TOKEN causes them."""
_LONGEST_HISTORY = 100
"""Number of suppressed events to keep."""


def queue_event(repository: BareRepository, state: State, actor: Actor, event: WebhookEvent) -> None:
    """Queue an event. An event that would start no workflow on GitHub goes to `suppressed`, with the reason."""
    why = _suppressed_because(repository, actor, event)
    if why:
        entry = {"event": event.name, "action": event.action, "why": why}
        state["suppressed"] = [*state["suppressed"], entry][-_LONGEST_HISTORY:]
    else:
        state["events"].append(event.to_json())


def _suppressed_because(repository: BareRepository, actor: Actor, event: WebhookEvent) -> str:
    if actor.kind == "job" and event.name not in _STARTED_BY_JOBS:
        return "caused with GITHUB_TOKEN; use the token of a GitHub App to start workflows"
    if event.name == "pull_request" and not event.sha:
        return "the pull request conflicts with its base"
    if event.name in ("push", "pull_request") and event.head_sha:
        message = repository.commit_payload(event.head_sha)["message"]
        skipped = _SKIP.search(message) or _SKIP_TRAILER.search(message)
        return "the commit message says to skip workflows" if skipped else ""
    return ""


def common_payload(state: State, actor: Actor) -> dict[str, Any]:
    """Return the part that all payloads have: `repository` and `sender`."""
    private = bool(state["settings"]["private"])
    return {
        "repository": payloads.repository(state["repository"], private=private),
        "sender": payloads.user(actor.login),
    }


def push_event(
    repository: BareRepository, state: State, actor: Actor, ref: str, before: str, after: str
) -> WebhookEvent:
    """Return the event of a ref that moved from one commit to another."""
    head = repository.commit_payload(after)
    payload = {
        **common_payload(state, actor),
        "ref": ref,
        "before": before,
        "after": after,
        "created": before == NO_COMMIT,
        "deleted": False,
        "forced": before != NO_COMMIT and not repository.contains(after, before),
        "pusher": {"name": actor.login},
        "head_commit": head,
        "commits": [head],
    }
    return WebhookEvent("push", payload, ref, after, actor.login, head_sha=after)


def pull_request_event(
    repository: BareRepository, state: State, actor: Actor, pull: PullRequestRecord, action: str, **extra: Any
) -> WebhookEvent:
    """Return an event of a pull request, and update its trial merge commit, which workflows run on.

    Args:
        repository: holds the commits.
        state: holds the settings.
        actor: caused the event.
        pull: the pull request.
        action: `opened`, `synchronize`, `labeled`, `closed`.
        extra: further properties of the payload.
    """
    sha = pull.merge_commit or _trial_merge(repository, pull)
    common = common_payload(state, actor)
    body = payloads.pull_request(pull, common["repository"], mergeable=bool(sha))
    return WebhookEvent(
        "pull_request",
        {**common, "action": action, "number": pull.number, "pull_request": body, **extra},
        f"refs/pull/{pull.number}/merge",
        sha,
        actor.login,
        action=action,
        head_ref=pull.head,
        base_ref=pull.base,
        head_sha=pull.head_sha,
    )


def _trial_merge(repository: BareRepository, pull: PullRequestRecord) -> str:
    """Merge the head into the base under `refs/pull/<number>/merge`; return the commit, or "" on a conflict."""
    repository.move_ref(f"refs/pull/{pull.number}/head", pull.head_sha)
    base = repository.resolve_ref(pull.base) or pull.base_sha
    tree = repository.merge_tree(base, pull.head_sha)
    if tree is None:
        return ""
    merged = repository.commit(tree, (base, pull.head_sha), f"Merge {pull.head_sha} into {base}\n", pull.author)
    repository.move_ref(f"refs/pull/{pull.number}/merge", merged)
    return merged
