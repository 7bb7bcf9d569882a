"""actions/create-github-app-token: a token of an app that is installed on the repository."""

from __future__ import annotations

from laptop.github.actions import Answer, Call
from laptop.github.workflow import SCOPES
from pipelines.declarations.errors import MlopsError

_PERMISSIONS = frozenset(f"permission-{scope}" for scope in (*SCOPES, "workflows", "administration", "metadata"))
INPUTS = frozenset({"app-id", "client-id", "private-key", "owner", "repositories", "skip-token-revoke"} | _PERMISSIONS)


def create_app_token(call: Call) -> Answer:
    """Outputs `token` (hidden from the logs, withdrawn when the job ends), `app-slug` and `installation-id`.

    Raises:
        MlopsError: the credentials are wrong, or the app lacks a permission that is asked for.
    """
    client_id, key = call.input("client-id", call.input("app-id")), call.input("private-key")
    if not client_id or not key:
        raise MlopsError("actions/create-github-app-token: client-id and private-key are needed")
    owner, name = call.forge.repository.split("/")
    if call.input("owner", owner) != owner or call.input("repositories", name) not in (name, call.forge.repository):
        raise MlopsError(f"actions/create-github-app-token: the app is installed on {call.forge.repository} only")
    asked = {name.removeprefix("permission-"): value for name, value in call.inputs.items() if name in _PERMISSIONS}
    actor = call.forge.app_actor(client_id, key, {k: v for k, v in asked.items() if v} or None)
    token = call.forge.token(actor)
    call.mask(token)
    if not call.flag("skip-token-revoke", default=False):
        call.at_end(lambda: call.forge.revoke(token))
    return Answer({"token": token, "app-slug": actor.slug, "installation-id": "1"})
