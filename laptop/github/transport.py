"""What git runs to reach the bare repository: it stands where the network and GitHub's authentication stand.

git starts it by its `ext::` transport, with the service as first argument. The token is found where git would find it:
the `http.<address>.extraheader` that `actions/checkout` leaves in the clone, or a credential helper such as
`gh auth git-credential`.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from laptop.github.access import RefusedError
from laptop.github.events import SERVER
from laptop.github.forge import Forge

_SERVICES = ("git-upload-pack", "git-receive-pack")


def authorization(token: str) -> str:
    """The header by which a clone carries its token."""
    return f"AUTHORIZATION: basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}"


def token_in(header: str) -> str:
    """The token in such a header, or ""."""
    kind, _, value = header.partition(": basic ")
    if kind.upper() != "AUTHORIZATION":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _found_token(address: str) -> str:
    """The token that git itself would send: of the header, or of a credential helper."""
    asked = ["git", "config", "--get-urlmatch", "http.extraheader", address]
    header = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    if token := token_in(header.strip()):
        return token
    environ = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""}
    filled = subprocess.run(
        ["git", "credential", "fill"],
        input=f"url={address}\n\n",
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    ).stdout
    return next((line.removeprefix("password=") for line in filled.splitlines() if line.startswith("password=")), "")


def main(arguments: Sequence[str]) -> int:  # noqa: RET503 (it becomes another program)
    """Authenticate, then become the service."""
    forge = Forge(Path(os.environ["MLOPS_FORGE"]))
    service, repository = arguments[0], arguments[-1].removesuffix(".git").strip("/")
    if service not in _SERVICES or len(arguments) != 2:
        print(f"fatal: unknown service {service!r}", file=sys.stderr)
        return 128
    if repository != forge.repository:
        print(f"remote: Repository not found: {repository}", file=sys.stderr)
        return 128
    token = _found_token(f"{SERVER}/{repository}")
    try:
        actor = forge.authenticate(token) if token else None
        if actor is None and (service == "git-receive-pack" or forge.settings.private):
            raise RefusedError(401, "could not read Username: no credential for the repository is in this clone")
        if actor is not None:
            actor.need("read", "contents")
    except RefusedError as error:
        print(f"fatal: Authentication failed for {SERVER}/{repository}: {error}", file=sys.stderr)
        return 128
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {"MLOPS_FORGE_TOKEN": token, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    if "GIT_PROTOCOL" in os.environ:
        environ["GIT_PROTOCOL"] = os.environ["GIT_PROTOCOL"]
    sys.stdout.flush()
    os.execvpe("git", ["git", service.removeprefix("git-"), str(forge.git)], environ)  # noqa: S606
