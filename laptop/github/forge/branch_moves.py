"""Announce moves of refs before git makes them, and turn those that happened into events.

git moves a ref in one write and the state changes in another. A move is therefore announced first. The next reader of
the state finishes the moves of a killed process that git made, and drops those that it did not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from laptop.github.forge.actors import Actor
from laptop.github.forge.bare_repository import NO_COMMIT, BareRepository
from laptop.github.forge.event_queue import push_event, queue_event
from laptop.github.forge.github_state import State
from laptop.github.forge.pull_request_state import follow_branch, record_merge
from laptop.github.process_tracking import identity, is_alive


@dataclass(frozen=True)
class RefUpdate:
    """A ref that moves; `NO_COMMIT` stands for a ref that does not exist."""

    ref: str
    before: str
    after: str


def announce_move(state: State, actor: Actor, update: RefUpdate, process: int, **extra: Any) -> None:
    """Record that a process is about to move a ref.

    Args:
        state: gets the announcement.
        actor: causes the move.
        update: the move.
        process: pid of the process that runs git.
        extra: `pull`, the number of the pull request that the move merges.
    """
    move = {"ref": update.ref, "before": update.before, "after": update.after, "process": identity(process)}
    state["moves"].append({**move, "login": actor.login, "kind": actor.kind, **extra})


def settle_moves(repository: BareRepository, state: State) -> None:
    """Queue the events of announced moves that happened; drop those whose process ended before git moved the ref."""
    moves, state["moves"] = state["moves"], []
    for move in moves:
        if (repository.resolve(move["ref"]) or NO_COMMIT) == move["after"]:
            _record(repository, state, move)
        elif is_alive(move["process"]):
            state["moves"].append(move)


def _record(repository: BareRepository, state: State, move: Mapping[str, Any]) -> None:
    actor = Actor(move["login"], move["kind"], {})
    ref, before, after = move["ref"], move["before"], move["after"]
    if "pull" in move:
        record_merge(repository, state, actor, move["pull"], after)
    if ref.startswith("refs/heads/"):
        follow_branch(repository, state, actor, ref.removeprefix("refs/heads/"), before, after)
    if after != NO_COMMIT:
        queue_event(repository, state, actor, push_event(repository, state, actor, ref, before, after))
