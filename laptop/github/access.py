"""Who calls, and what their token lets them do."""

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


class RefusedError(MlopsError):
    """The laptop's GitHub refuses a request.

    Args:
        status: the HTTP status that GitHub answers.
        message: GitHub's words.
    """

    def __init__(self, status: int, message: str, *, fix: str = "") -> None:
        self.status = status
        self.message = message
        super().__init__(f"{message} (HTTP {status})", fix=fix)


@dataclass(frozen=True)
class Actor:
    """Whoever a token speaks for.

    Attributes:
        login: `maria`, `mlops-bot[bot]`, `github-actions[bot]`.
        kind: "user"; "app" (an installation token); "job" (a workflow's own GITHUB_TOKEN).
        permissions: scope → level; users have them all.
        run: the run whose token it is, for a job.
        triggered_by: for a job, the login that started its run.
    """

    login: str
    kind: str
    permissions: Mapping[str, str]
    run: int | None = None
    triggered_by: str = ""

    def may(self, scope: str, level: str) -> bool:
        if self.kind == "user" or scope == "metadata":
            return True
        return _LEVELS[self.permissions.get(scope, "none")] >= _LEVELS[level]

    def need(self, level: str, *scopes: str) -> None:
        """Refuse unless one of `scopes` is granted at `level`.

        Raises:
            RefusedError: with 403, in GitHub's words.
        """
        if not any(self.may(scope, level) for scope in scopes):
            where = "the job's `permissions`" if self.kind == "job" else "the app's permissions"
            wanted = " or ".join(f"`{scope}: {level}`" for scope in scopes)
            raise RefusedError(403, "Resource not accessible by integration", fix=f"add {wanted} to {where}")

    @property
    def slug(self) -> str:
        return self.login.removesuffix("[bot]")


def person(login: str) -> Actor:
    """A person, as themselves."""
    return Actor(login, "user", {})


def issue_token(state: dict[str, Any], actor: Actor) -> str:
    """A new token that speaks for `actor`; the state keeps its digest only.

    A job for a pull request from a fork may only read, whatever its workflow asks for, and gets no OIDC token.
    """
    token = f"{_PREFIX[actor.kind]}_{os.urandom(18).hex()}"
    permissions = dict(actor.permissions)
    if _works_for_a_fork(state, actor):
        permissions = {scope: "read" for scope, level in permissions.items() if level != "none"} | {"id-token": "none"}
    state["tokens"][digest(token)] = {
        "login": actor.login,
        "kind": actor.kind,
        "permissions": permissions,
        "run": actor.run,
        "triggered_by": actor.triggered_by,
    }
    return token


def _works_for_a_fork(state: dict[str, Any], actor: Actor) -> bool:
    run = state["runs"].get(str(actor.run)) if actor.kind == "job" else None
    number = re.fullmatch(r"refs/pull/(\d+)/merge", run["ref"]) if run is not None else None
    return number is not None and bool(state["pulls"][number[1]].get("fork"))


def revoke_token(state: dict[str, Any], token: str) -> None:
    state["tokens"].pop(digest(token), None)


def authenticate(state: dict[str, Any], token: str) -> Actor:
    """Whoever `token` speaks for.

    Raises:
        RefusedError: with 401, when nobody.
    """
    found = state["tokens"].get(digest(token)) if token else None
    if found is None:
        raise RefusedError(401, "Bad credentials")
    return Actor(**found)


def digest(token: str) -> str:
    """The sha256 by which a secret is known without being kept."""
    return hashlib.sha256(token.encode()).hexdigest()
