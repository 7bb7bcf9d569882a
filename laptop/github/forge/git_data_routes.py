"""REST API of git: trees, commits and branches. A commit that an app creates here is signed by GitHub."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.bare_repository import NO_COMMIT, GitError
from laptop.github.forge.branch_moves import RefUpdate
from laptop.github.forge.github_server import GitHubServer

GitRoute = Callable[[GitHubServer, Actor, "re.Match[str]", Mapping[str, Any]], Any]

_MODES = ("100644", "100755")


def _add_tree(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    """Create a tree from another one, with files whose content is in the request."""
    actor.need("write", "contents")
    lines = []
    for entry in fields["tree"]:
        if entry.get("type") != "blob" or entry.get("mode") not in _MODES or "content" not in entry:
            raise RequestDeniedError(501, "the laptop's GitHub creates trees of files with their content only")
        blob = server.repository.run("hash-object", "-w", "--stdin", text=str(entry["content"]))
        lines.append(f"{entry['mode']},{blob},{entry['path']}")
    return {"sha": server.tree_with(str(fields["base_tree"]), lines)}


def _add_commit(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    actor.need("write", "contents")
    if {"author", "committer"} & set(fields):
        raise RequestDeniedError(501, "the laptop's GitHub creates commits of the caller only")
    commit = server.repository.commit(fields["tree"], fields["parents"], str(fields["message"]), actor.login)
    is_signed = actor.kind != "user"
    if is_signed:
        with server.change() as state:
            state.setdefault("signed", []).append(commit)
    reason = "valid" if is_signed else "unsigned"
    return {"sha": commit, "verification": {"verified": is_signed, "reason": reason}}


def _add_ref(server: GitHubServer, actor: Actor, _match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    ref = str(fields["ref"])
    if server.repository.resolve(ref) is not None:
        raise RequestDeniedError(422, "Reference already exists")
    return _move(server, actor, RefUpdate(ref, NO_COMMIT, str(fields["sha"])))


def _move_ref(server: GitHubServer, actor: Actor, match: re.Match[str], fields: Mapping[str, Any]) -> Any:
    ref, after = f"refs/{match['ref']}", str(fields["sha"])
    before = server.repository.resolve(ref)
    if before is None:
        raise RequestDeniedError(422, "Reference does not exist")
    if not fields.get("force") and not server.repository.contains(after, before):
        raise RequestDeniedError(422, "Update is not a fast forward")
    return _move(server, actor, RefUpdate(ref, before, after))


def _move(server: GitHubServer, actor: Actor, update: RefUpdate) -> Any:
    if server.repository.resolve(update.after) is None:
        raise RequestDeniedError(422, "Object does not exist")
    try:
        server.move_branch(actor, update)
    except GitError:
        raise RequestDeniedError(409, "Reference cannot be updated") from None
    return {"ref": update.ref, "object": {"type": "commit", "sha": update.after}}


GIT_ROUTES: Mapping[tuple[str, str], GitRoute] = {
    ("POST", r"git/trees"): _add_tree,
    ("POST", r"git/commits"): _add_commit,
    ("POST", r"git/refs"): _add_ref,
    ("PATCH", r"git/refs/(?P<ref>heads/.+)"): _move_ref,
}
