"""The command `gh secret set`."""

from __future__ import annotations

import sys

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.settings_routes import set_environment_secret
from laptop.github.gh_cli.arguments import Arguments, GhCommand


def secret_set(server: GitHubServer, actor: Actor, given: Arguments) -> None:
    """Set a secret to the text of standard input."""
    # GitHub's own gh encrypts the value on the way.
    set_environment_secret(server, actor, given.operands[0], sys.stdin.read(), given.one("--env", ""))


SECRET_COMMANDS = (GhCommand("secret set", secret_set, "NAME", (1, 1), "--env/-e"),)
