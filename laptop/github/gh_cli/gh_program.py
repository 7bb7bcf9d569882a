"""The GitHub CLI of the laptop, `gh`: the commands that the product and its users need.

It accepts the arguments that it knows. On any other it exits with code 2, rather than behave differently from
GitHub's. `MLOPS_GITHUB` is the folder of the laptop's GitHub, `GH_TOKEN` the caller's token.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from laptop.github.forge.actors import RequestDeniedError
from laptop.github.forge.github_server import GitHubServer
from laptop.github.gh_cli.api_command import API_COMMANDS
from laptop.github.gh_cli.arguments import Arguments, GhCommand, UsageError
from laptop.github.gh_cli.auth_commands import AUTH_COMMANDS
from laptop.github.gh_cli.issue_commands import ISSUE_COMMANDS
from laptop.github.gh_cli.pull_commands import PULL_COMMANDS
from laptop.github.gh_cli.run_commands import RUN_COMMANDS
from laptop.github.gh_cli.secret_commands import SECRET_COMMANDS
from pipelines.declarations.errors import MlopsError


class NotAuthenticatedError(Exception):
    """GH_TOKEN is not set."""


COMMANDS: Mapping[str, GhCommand] = {
    command.words: command
    for command in (*PULL_COMMANDS, *ISSUE_COMMANDS, *RUN_COMMANDS, *API_COMMANDS, *SECRET_COMMANDS, *AUTH_COMMANDS)
}

_HELP = ("--help", "-h")


def find_command(arguments: Sequence[str]) -> GhCommand:
    """Return the command that the first arguments name.

    Raises:
        UsageError: there is none, or it is not implemented here.
    """
    for words in (" ".join(arguments[:2]), " ".join(arguments[:1])):
        if words in COMMANDS:
            return COMMANDS[words]
    group = [words for words in COMMANDS if arguments and words.split()[0] == arguments[0]]
    known = ", ".join(group or sorted({words.split()[0] for words in COMMANDS}))
    raise UsageError(f"the command {' '.join(arguments[:2])!r} is not implemented here; known here: {known}")


def help_text(arguments: Sequence[str]) -> str | None:
    """Return the help that the arguments ask for; None if they ask for none.

    Raises:
        UsageError: they ask for help on a command that is not implemented here.
    """
    words = list(arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], _HELP[0]]
    if not any(word in _HELP for word in words):
        return None
    words = [word for word in words if not word.startswith("-")]
    listed = [command for name, command in COMMANDS.items() if not words or name.split()[0] == words[0]]
    if not words or (len(words) == 1 and len(listed) > 1):
        return "\n".join(f"gh {command.words:<20}{command.summary}" for command in listed)
    return find_command(words).help()


def _check_repository(server: GitHubServer, given: Arguments) -> None:
    """Check that GH_REPO or `--repo` names the repository, or that the current folder is a clone."""
    named = given.one("--repo", os.environ.get("GH_REPO", ""))
    if named and "/".join(named.split("/")[-2:]) != server.full_name:
        raise RequestDeniedError(404, f"Could not resolve to a Repository with the name '{named}'.")
    here = Path.cwd()
    if not named and not any((folder / ".git").exists() for folder in (here, *here.parents)):
        raise MlopsError("failed to run git: fatal: not a git repository", fix="check out first, or set GH_REPO")


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Returns:
        0 if it succeeded, 1 if it failed, 2 for wrong arguments, 4 without a token, 8 for checks that still run.
    """
    try:
        asked = help_text(arguments)
        if asked is not None:
            print(asked)
            return 0
        command = find_command(arguments)
        given = command.read(arguments[len(command.words.split()) :])
        folder = os.environ.get("MLOPS_GITHUB", "")
        if not folder:
            raise MlopsError("MLOPS_GITHUB is not set")
        token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
        if not token:
            raise NotAuthenticatedError(
                "to use the GitHub CLI in a workflow, set GH_TOKEN: env: GH_TOKEN: ${{ github.token }}"
            )
        server = GitHubServer(Path(folder))
        actor = server.authenticate(token)
        if command.words.split()[0] not in ("auth", "api"):
            _check_repository(server, given)
        return command.handler(server, actor, given) or 0
    except UsageError as error:
        print(f"gh (of the laptop): {error}", file=sys.stderr)
        return 2
    except NotAuthenticatedError as error:
        print(f"gh: {error}", file=sys.stderr)
        return 4
    except MlopsError as error:
        print(f"gh: {error}", file=sys.stderr)
        return 1
