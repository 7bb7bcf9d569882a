"""The command `gh secret set`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from laptop.github.forge.actors import Actor
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.settings_routes import set_environment_secret
from laptop.github.gh_cli.arguments import SHORT, read_arguments


def secret_set(server: GitHubServer, actor: Actor, arguments: Sequence[str]) -> None:
    """Set a secret to the text of standard input. GitHub's own `gh` encrypts it on the way."""
    given = read_arguments(arguments, "--env", "", {**SHORT, "-e": "--env"}, 1)
    set_environment_secret(server, actor, given.operands[0], sys.stdin.read(), given.one("--env", ""))
