"""Decide whether a push is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.bare_repository import NO_COMMIT, BareRepository
from laptop.github.forge.branch_moves import RefUpdate
from laptop.github.forge.github_state import State
from laptop.github.forge.repository_creation import MAIN
from laptop.github.forge.repository_settings import RepositorySettings

WORKFLOWS = ".github/workflows/"
"""Folder of the workflow files."""


def check_push(repository: BareRepository, state: State, actor: Actor, updates: Sequence[RefUpdate]) -> None:
    """Check that an actor may push these updates.

    Raises:
        RequestDeniedError: a rule or a permission forbids it, in GitHub's words.
    """
    actor.need("write", "contents")
    settings = RepositorySettings.from_json(state["settings"])
    if actor.kind == "user" and actor.login not in settings.users:
        raise RequestDeniedError(403, f"Permission to {state['repository']}.git denied to {actor.login}.")
    for update in updates:
        if not update.ref.startswith(("refs/heads/", "refs/tags/")):
            raise RequestDeniedError(422, f"{update.ref}: deny updating a hidden ref")
        if update.ref == f"refs/heads/{MAIN}" and settings.protection and not bypasses(actor, settings):
            message = f"protected branch {MAIN}: changes must be made through a pull request"
            raise RequestDeniedError(422, message, fix="push to another branch and open a pull request")
        if settings.signed_commits and update.after != NO_COMMIT:
            _check_signatures(repository, state, update)
        if actor.kind != "user" and update.after != NO_COMMIT:
            _check_workflow_changes(repository, actor, update)


def _check_signatures(repository: BareRepository, state: State, update: RefUpdate) -> None:
    """Check that new commits are signed. Only those that an app creates through the API are: nobody has a key here."""
    new = repository.run("rev-list", update.after, "--not", "--branches").split()
    if unsigned := [commit for commit in new if commit not in state.get("signed", [])]:
        message = f"Commits must have verified signatures. Found {len(unsigned)} violation: {unsigned[0]}"
        raise RequestDeniedError(422, message, fix="create the commit through the API as an app, or sign it")


def _check_workflow_changes(repository: BareRepository, actor: Actor, update: RefUpdate) -> None:
    if actor.may("workflows", "write"):
        return
    main = repository.resolve_ref(MAIN) or NO_COMMIT
    base = update.before if update.before != NO_COMMIT else main
    touched = [path for path in repository.changed_files(base, update.after) if path.startswith(WORKFLOWS)]
    # A branch that merges or rebases onto main brings main's workflow files along.
    before, after = (repository.read_files(commit, touched) for commit in (main, update.after))
    if touched := [path for path in touched if before.get(path) != after.get(path)]:
        message = f"refusing to allow a GitHub App to create or update workflow `{touched[0]}`"
        raise RequestDeniedError(403, f"{message} without `workflows` permission")


def bypasses(actor: Actor, settings: RepositorySettings) -> bool:
    """Return whether an actor is exempt from the protection rules."""
    return actor.kind == "app" and settings.protection is not None and actor.slug in settings.protection.bypass
