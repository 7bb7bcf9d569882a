"""Pull requests in the state: load, save, open, and update them when a branch moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.bare_repository import NO_COMMIT, BareRepository
from laptop.github.forge.event_queue import pull_request_event, queue_event
from laptop.github.forge.github_state import State, take_number, timestamp
from laptop.github.forge.merge_rules import MergeFacts, PullRequestRecord
from laptop.github.forge.owners import CODEOWNERS_PATHS, read_owners


def load_pull(state: State, number: int) -> PullRequestRecord:
    """Return one pull request.

    Raises:
        RequestDeniedError: there is no pull request with this number.
    """
    if str(number) not in state["pulls"]:
        raise RequestDeniedError(404, f"Could not resolve to a PullRequest with the number of {number}.")
    return PullRequestRecord.from_json(state["pulls"][str(number)])


def load_pulls(state: State) -> list[PullRequestRecord]:
    """Return all pull requests, newest first."""
    found = [PullRequestRecord.from_json(value) for value in state["pulls"].values()]
    return sorted(found, key=lambda pull: -pull.number)


def save_pull(state: State, pull: PullRequestRecord) -> None:
    """Replace or add a pull request."""
    state["pulls"][str(pull.number)] = pull.to_json()


def add_pull(
    repository: BareRepository,
    state: State,
    actor: Actor,
    *,
    title: str,
    body: str,
    branches: tuple[str, str],
    commits: tuple[str, str],
    labels: Sequence[str] = (),
    fork: str = "",
) -> PullRequestRecord:
    """Open a pull request and queue its event.

    Args:
        repository: holds the commits.
        state: gets the pull request.
        actor: the author.
        title, body: as GitHub shows them.
        branches: head and base.
        commits: of head and base.
        labels: their names.
        fork: full name of the repository that holds the head, "" for the base repository.
    """
    now = timestamp()
    pull = PullRequestRecord(
        number=take_number(state, "issue"),
        title=title,
        body=body,
        author=actor.login,
        head=branches[0],
        base=branches[1],
        head_sha=commits[0],
        base_sha=commits[1],
        state="OPEN",
        labels=tuple(dict.fromkeys(labels)),
        created_at=now,
        updated_at=now,
        fork=fork,
        pushed_by=actor.login,
    )
    save_pull(state, pull)
    queue_event(repository, state, actor, pull_request_event(repository, state, actor, pull, "opened"))
    return pull


def follow_branch(repository: BareRepository, state: State, actor: Actor, branch: str, before: str, after: str) -> None:
    """Update the open pull requests whose head branch moved; close them if it was deleted."""
    dismiss = (state["settings"]["protection"] or {}).get("dismiss_stale", False)
    for pull in load_pulls(state):
        if pull.head != branch or pull.state != "OPEN" or pull.fork:
            continue
        if after == NO_COMMIT:
            pull, action = replace(pull, state="CLOSED", updated_at=timestamp()), "closed"
        else:
            base = repository.resolve_ref(pull.base) or pull.base_sha
            pull = replace(pull, head_sha=after, base_sha=base, updated_at=timestamp(), pushed_by=actor.login)
            pull, action = (pull.dismiss_approvals() if dismiss else pull), "synchronize"
        save_pull(state, pull)
        event = pull_request_event(repository, state, actor, pull, action, before=before, after=after)
        queue_event(repository, state, actor, event)


def record_merge(repository: BareRepository, state: State, actor: Actor, number: int, merged: str) -> None:
    """Mark a pull request as merged by a commit, and queue its event."""
    pull = load_pull(state, number)
    now = timestamp()
    base = repository.run("rev-parse", f"{merged}^1")
    pull = replace(pull, state="MERGED", base_sha=base, merged_by=actor.login, merge_commit=merged)
    pull = replace(pull, merged_at=now, updated_at=now)
    save_pull(state, pull)
    queue_event(repository, state, actor, pull_request_event(repository, state, actor, pull, "closed"))


def changes_of(repository: BareRepository, pull: PullRequestRecord) -> list[tuple[str, str]]:
    """Return the paths that a pull request changes, each with `added`, `modified` or `removed`."""
    base = pull.base_sha if pull.state != "OPEN" else repository.resolve_ref(pull.base) or pull.base_sha
    return repository.changes_since_fork(base, pull.head_sha)


def read_merge_facts(repository: BareRepository, state: State, pull: PullRequestRecord) -> MergeFacts:
    """Return the facts that the merge of a pull request depends on."""
    base = repository.resolve_ref(pull.base) or pull.base_sha
    found = repository.read_files(base, CODEOWNERS_PATHS)
    owners = next((found[path] for path in CODEOWNERS_PATHS if path in found), b"")
    checks = state["checks"].get(pull.head_sha, {})
    return MergeFacts(
        conflict=repository.merge_tree(base, pull.head_sha) is None,
        behind=not repository.contains(pull.head_sha, base),
        files=[path for path, _ in changes_of(repository, pull)],
        owners=read_owners(owners.decode("utf-8", errors="replace")),
        checks={name: check["conclusion"] for name, check in checks.items()},
    )
