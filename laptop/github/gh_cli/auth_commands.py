"""The commands `gh auth …`."""

from __future__ import annotations

import os
import subprocess
import sys

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.webhook_event import SERVER_URL
from laptop.github.gh_cli.arguments import Arguments, GhCommand


def auth_status(_forge: GitHubServer, actor: Actor, _given: Arguments) -> None:
    """Show the login of the token."""
    print(f"{SERVER_URL.removeprefix('https://')}\n  ✓ Logged in as {actor.login} (GH_TOKEN)\n  - Active account: true")


def auth_setup_git(_forge: GitHubServer, _actor: Actor, _given: Arguments) -> None:
    """Make git use gh as credential helper."""
    subprocess.run(
        ["git", "config", "--global", f"credential.{SERVER_URL}.helper", "!gh auth git-credential"], check=True
    )


def auth_git_credential(_forge: GitHubServer, _actor: Actor, given: Arguments) -> None:
    """Answer git as its credential helper; store and erase have no effect."""
    wanted = dict(line.partition("=")[::2] for line in sys.stdin.read().splitlines())
    if given.operands == ["get"] and f"{wanted.get('protocol')}://{wanted.get('host')}" == SERVER_URL:
        token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN")
        print(f"protocol=https\nhost={wanted['host']}\nusername=x-access-token\npassword={token}")


AUTH_COMMANDS = (
    GhCommand("auth status", auth_status),
    GhCommand("auth setup-git", auth_setup_git),
    GhCommand(
        "auth git-credential",
        auth_git_credential,
        "get | store | erase",
        (1, 1),
    ),
)
