"""Create the commits that merge a pull request."""

from __future__ import annotations

from dataclasses import replace

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.bare_repository import BareRepository
from laptop.github.forge.branch_moves import RefUpdate
from laptop.github.forge.event_queue import common_payload, queue_event
from laptop.github.forge.github_state import State
from laptop.github.forge.merge_rules import PullRequestRecord, find_blockers
from laptop.github.forge.pull_request_state import load_pull, read_merge_facts
from laptop.github.forge.push_rules import bypasses
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.github.forge.webhook_event import WebhookEvent


def prepare_merge(repository: BareRepository, state: State, actor: Actor, number: int, method: str) -> RefUpdate:
    """Create the merge commit of a pull request, and return the move of its base that completes the merge.

    Args:
        repository: gets the commit.
        state: holds the pull request and the rules.
        actor: merges.
        number: number of the pull request.
        method: "squash" or "merge".

    Raises:
        RequestDeniedError: the rules forbid it (405), or the user has no write access (403).
    """
    pull = load_pull(state, number)
    settings = RepositorySettings.from_json(state["settings"])
    facts = read_merge_facts(repository, state, pull)
    check_collaborator(state, actor)
    rules = replace(settings, protection=None) if bypasses(actor, settings) else settings
    if reasons := find_blockers(pull, facts, rules):
        message = f"Pull request #{number} is not mergeable: the base branch policy prohibits the merge"
        raise RequestDeniedError(405, message, fix=f"resolve: {'; '.join(reasons)}")
    base = str(repository.resolve_ref(pull.base))
    tree = str(repository.merge_tree(base, pull.head_sha))
    if method == "squash":
        merged = repository.commit(tree, (base,), _squash_message(repository, pull, base), pull.author)
    else:
        owner = state["repository"].split("/")[0]
        message = f"Merge pull request #{number} from {owner}/{pull.head}\n\n{pull.title}\n"
        merged = repository.commit(tree, (base, pull.head_sha), message, actor.login)
    return RefUpdate(f"refs/heads/{pull.base}", base, merged)


def queue_trial(repository: BareRepository, state: State, actor: Actor, number: int) -> str:
    """Create the commit that a merge queue would test, queue its `merge_group` event, and return the commit.

    Raises:
        RequestDeniedError: the pull request conflicts with its base (405).
    """
    pull = load_pull(state, number)
    base = str(repository.resolve_ref(pull.base))
    tree = repository.merge_tree(base, pull.head_sha)
    if tree is None:
        raise RequestDeniedError(405, f"Pull request #{number} conflicts with {pull.base}")
    head = repository.commit(tree, (base,), _squash_message(repository, pull, base), pull.author)
    ref = f"refs/heads/gh-readonly-queue/{pull.base}/pr-{number}-{base}"
    repository.move_ref(ref, head)
    group = {"head_sha": head, "head_ref": ref, "base_sha": base, "base_ref": f"refs/heads/{pull.base}"}
    payload = {
        **common_payload(state, actor),
        "action": "checks_requested",
        "merge_group": {**group, "head_commit": repository.commit_payload(head)},
    }
    event = WebhookEvent("merge_group", payload, ref, head, actor.login, action="checks_requested", head_sha=head)
    queue_event(repository, state, actor, event)
    return head


def check_collaborator(state: State, actor: Actor) -> None:
    """Check that a user has write access; apps and jobs have permissions instead.

    Raises:
        RequestDeniedError: the user has none (403).
    """
    if actor.kind == "user" and actor.login not in state["settings"]["users"]:
        raise RequestDeniedError(403, f"{actor.login} is not a collaborator of {state['repository']}")


def _squash_message(repository: BareRepository, pull: PullRequestRecord, base: str) -> str:
    body = repository.squash_message(base, pull.head_sha)
    return f"{pull.title} (#{pull.number})\n\n{body}\n" if body else f"{pull.title} (#{pull.number})\n"
