"""Users, apps and jobs that call the server, their tokens and permissions."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.declarations.errors import MlopsError

BOT = "github-actions[bot]"
_LEVELS = {"none": 0, "read": 1, "write": 2}
_PREFIX = {"user": "ghp", "app": "ghs", "job": "ghs"}


class RequestDeniedError(MlopsError):
    """The laptop's GitHub refused a request.

    Args:
        status: the HTTP status of GitHub's answer.
        message: GitHub's own message.
        fix: what to do about it.
    """

    def __init__(self, status: int, message: str, *, fix: str = "") -> None:
        self.status = status
        self.message = message
        super().__init__(f"{message} (HTTP {status})", fix=fix)


@dataclass(frozen=True)
class Actor:
    """The owner of a token.

    Attributes:
        login: `maria`, `mlops-bot[bot]`, `github-actions[bot]`.
        kind: "user", "app" (an installation token) or "job" (a job's GITHUB_TOKEN).
        permissions: scope → level; ignored for users, who have all.
        run: number of the run, for a job.
        triggered_by: login that started the run, for a job.
    """

    login: str
    kind: str
    permissions: Mapping[str, str]
    run: int | None = None
    triggered_by: str = ""

    def may(self, scope: str, level: str) -> bool:
        """Return whether a scope is granted at a level."""
        if self.kind == "user" or scope == "metadata":
            return True
        return _LEVELS[self.permissions.get(scope, "none")] >= _LEVELS[level]

    def need(self, level: str, *scopes: str) -> None:
        """Check that one of `scopes` is granted at `level`.

        Raises:
            RequestDeniedError: no scope is granted at this level (403).
        """
        if not any(self.may(scope, level) for scope in scopes):
            where = "the job's `permissions`" if self.kind == "job" else "the app's permissions"
            wanted = " or ".join(f"`{scope}: {level}`" for scope in scopes)
            raise RequestDeniedError(403, "Resource not accessible by integration", fix=f"add {wanted} to {where}")

    @property
    def slug(self) -> str:
        """The login without `[bot]`."""
        return self.login.removesuffix("[bot]")


def person(login: str) -> Actor:
    """Return the actor for a user."""
    return Actor(login, "user", {})


def issue_token(state: dict[str, Any], actor: Actor) -> str:
    """Return a new token for an actor. The state keeps only its digest.

    A job for a pull request from a fork may only read, whatever its workflow requests, and gets no OIDC token.
    """
    token = f"{_PREFIX[actor.kind]}_{os.urandom(18).hex()}"
    permissions = dict(actor.permissions)
    if _is_for_fork(state, actor):
        permissions = {scope: "read" for scope, level in permissions.items() if level != "none"} | {"id-token": "none"}
    state["tokens"][digest(token)] = {
        "login": actor.login,
        "kind": actor.kind,
        "permissions": permissions,
        "run": actor.run,
        "triggered_by": actor.triggered_by,
    }
    return token


def _is_for_fork(state: dict[str, Any], actor: Actor) -> bool:
    run = state["runs"].get(str(actor.run)) if actor.kind == "job" else None
    number = re.fullmatch(r"refs/pull/(\d+)/merge", run["ref"]) if run is not None else None
    return number is not None and bool(state["pulls"][number[1]].get("fork"))


def revoke_token(state: dict[str, Any], token: str) -> None:
    """Revoke a token. An unknown token is not an error."""
    state["tokens"].pop(digest(token), None)


def authenticate(state: dict[str, Any], token: str) -> Actor:
    """Return the owner of a token.

    Raises:
        RequestDeniedError: the token is unknown (401).
    """
    found = state["tokens"].get(digest(token)) if token else None
    if found is None:
        raise RequestDeniedError(401, "Bad credentials")
    return Actor(**found)


def digest(token: str) -> str:
    """Return the SHA-256 of a secret, which is stored in its place."""
    return hashlib.sha256(token.encode()).hexdigest()
