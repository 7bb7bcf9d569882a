"""The program that git starts to reach the bare repository, in place of HTTPS to github.com.

git starts it through the `ext::` transport, with the service as its first argument. It takes the token from where git
would: the `http.<url>.extraheader` that `actions/checkout` leaves in the clone, or a credential helper such as
`gh auth git-credential`.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from laptop.github.forge.actors import RequestDeniedError
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.webhook_event import SERVER_URL

_SERVICES = ("git-upload-pack", "git-receive-pack")


def authorization(token: str) -> str:
    """Return the HTTP header that carries a token."""
    return f"AUTHORIZATION: basic {base64.b64encode(f'x-access-token:{token}'.encode()).decode()}"


def token_in(header: str) -> str:
    """Return the token in such a header, or ""."""
    kind, _, value = header.partition(": basic ")
    if kind.upper() != "AUTHORIZATION":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _find_token(url: str) -> str:
    """Return the token that git would send: from the header, or from a credential helper."""
    command = ["git", "config", "--get-urlmatch", "http.extraheader", url]
    header = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if token := token_in(header.strip()):
        return token
    environ = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""}
    filled = subprocess.run(
        ["git", "credential", "fill"],
        input=f"url={url}\n\n",
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    ).stdout
    return next((line.removeprefix("password=") for line in filled.splitlines() if line.startswith("password=")), "")


def main(arguments: Sequence[str]) -> int:  # noqa: RET503 (exec does not return)
    """Authenticate, then replace this process by git's service."""
    server = GitHubServer(Path(os.environ["MLOPS_GITHUB"]))
    service, repository = arguments[0], arguments[-1].removesuffix(".git").strip("/")
    if service not in _SERVICES or len(arguments) != 2:
        print(f"fatal: unknown service {service!r}", file=sys.stderr)
        return 128
    if repository != server.full_name:
        print(f"remote: Repository not found: {repository}", file=sys.stderr)
        return 128
    url = f"{SERVER_URL}/{repository}"
    token = _find_token(url)
    try:
        server.check_available()
        actor = server.authenticate(token) if token else None
        if actor is None and (service == "git-receive-pack" or server.settings.private):
            raise RequestDeniedError(401, "could not read Username: no credential for the repository is in this clone")
        if actor is not None:
            actor.need("read", "contents")
    except RequestDeniedError as error:
        if error.status >= 500:  # in git's own words
            print(
                f"fatal: unable to access '{url}/': The requested URL returned error: {error.status}", file=sys.stderr
            )
        else:
            print(f"fatal: Authentication failed for {url}: {error}", file=sys.stderr)
        return 128
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {"MLOPS_GITHUB_TOKEN": token, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    if "GIT_PROTOCOL" in os.environ:
        environ["GIT_PROTOCOL"] = os.environ["GIT_PROTOCOL"]
    sys.stdout.flush()
    os.execvpe("git", ["git", service.removeprefix("git-"), str(server.repository.path)], environ)  # noqa: S606
