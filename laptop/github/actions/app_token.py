"""actions/create-github-app-token: a token of an app that is installed on the repository."""

from __future__ import annotations

from laptop.github.actions.remote import ActionCall, ActionResult
from laptop.github.workflow.definition import SCOPES
from pipelines.declarations.errors import MlopsError

_PERMISSIONS = frozenset(f"permission-{scope}" for scope in (*SCOPES, "workflows", "administration", "metadata"))
INPUTS = frozenset({"app-id", "client-id", "private-key", "owner", "repositories", "skip-token-revoke"} | _PERMISSIONS)


def create_app_token(call: ActionCall) -> ActionResult:
    """Output `token` (masked, revoked when the job ends), `app-slug` and `installation-id`.

    Raises:
        MlopsError: the credentials are wrong, or the app lacks a requested permission.
    """
    client_id, key = call.input("client-id", call.input("app-id")), call.input("private-key")
    if not client_id or not key:
        raise MlopsError("actions/create-github-app-token: client-id and private-key are required")
    owner, name = call.server.full_name.split("/")
    if call.input("owner", owner) != owner or call.input("repositories", name) not in (name, call.server.full_name):
        raise MlopsError(f"actions/create-github-app-token: the app is installed on {call.server.full_name} only")
    requested = {name.removeprefix("permission-"): value for name, value in call.inputs.items() if name in _PERMISSIONS}
    actor = call.server.app_actor(client_id, key, {k: v for k, v in requested.items() if v} or None)
    token = call.server.issue_token(actor)
    call.mask(token)
    if not call.flag("skip-token-revoke", default=False):
        call.at_end(lambda: call.server.revoke_token(token))
    return ActionResult({"token": token, "app-slug": actor.slug, "installation-id": "1"})
