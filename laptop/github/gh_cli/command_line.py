"""The GitHub CLI of the laptop, `gh`: the commands that the product uses.

It accepts the arguments that the product passes. On any other it exits with code 2, rather than behave differently from
GitHub's. `MLOPS_GITHUB` is the folder of the laptop's GitHub, `GH_TOKEN` the caller's token.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from laptop.github.forge.actors import Actor, RequestDeniedError
from laptop.github.forge.github_server import GitHubServer
from laptop.github.gh_cli.api_command import call_api
from laptop.github.gh_cli.arguments import (
    UsageError,
)
from laptop.github.gh_cli.auth_commands import auth_git_credential, auth_setup_git, auth_status
from laptop.github.gh_cli.pull_commands import pr_close, pr_comment, pr_create, pr_list, pr_merge, pr_review, pr_view
from laptop.github.gh_cli.run_commands import run_cancel, run_list, run_view, workflow_run
from laptop.github.gh_cli.secret_commands import secret_set
from pipelines.declarations.errors import MlopsError


class NotAuthenticatedError(Exception):
    """GH_TOKEN is not set."""


_COMMANDS: Mapping[tuple[str, ...], Callable[[GitHubServer, Actor, Sequence[str]], None]] = {
    ("pr", "create"): pr_create,
    ("pr", "list"): pr_list,
    ("pr", "view"): pr_view,
    ("pr", "comment"): pr_comment,
    ("pr", "review"): pr_review,
    ("pr", "merge"): pr_merge,
    ("pr", "close"): pr_close,
    ("api",): call_api,
    ("workflow", "run"): workflow_run,
    ("run", "cancel"): run_cancel,
    ("run", "list"): run_list,
    ("run", "view"): run_view,
    ("secret", "set"): secret_set,
    ("auth", "status"): auth_status,
    ("auth", "setup-git"): auth_setup_git,
    ("auth", "git-credential"): auth_git_credential,
}


def _check_repository(server: GitHubServer, arguments: Sequence[str]) -> None:
    """Check that GH_REPO or `--repo` names the repository, or that the current folder is a clone."""
    named = os.environ.get("GH_REPO", "")
    for at, argument in enumerate(arguments):
        if argument in ("-R", "--repo") and at + 1 < len(arguments):
            named = arguments[at + 1]
    if named and named != server.full_name:
        raise RequestDeniedError(404, f"Could not resolve to a Repository with the name '{named}'.")
    here = Path.cwd()
    if not named and not any((folder / ".git").exists() for folder in (here, *here.parents)):
        raise MlopsError("failed to run git: fatal: not a git repository", fix="check out first, or set GH_REPO")


def main(arguments: Sequence[str]) -> int:
    """Run a command. Return 0 if it succeeded, 1 if it failed, 2 for wrong arguments, 4 without a token."""
    try:
        words = next((words for words in _COMMANDS if tuple(arguments[: len(words)]) == words), None)
        if words is None:
            raise UsageError(f"the command {' '.join(arguments[:2])!r} is not implemented here")
        folder = os.environ.get("MLOPS_GITHUB", "")
        if not folder:
            raise MlopsError("MLOPS_GITHUB is not set")
        token = os.environ.get("GH_TOKEN") or os.environ.get("GITHUB_TOKEN") or ""
        if not token:
            raise NotAuthenticatedError(
                "to use the GitHub CLI in a workflow, set GH_TOKEN: env: GH_TOKEN: ${{ github.token }}"
            )
        server = GitHubServer(Path(folder))
        rest = arguments[len(words) :]
        actor = server.authenticate(token)
        if words[0] != "auth" and words != ("api",):
            _check_repository(server, rest)
        _COMMANDS[words](server, actor, rest)
    except UsageError as error:
        print(f"gh (of the laptop): {error}", file=sys.stderr)
        return 2
    except NotAuthenticatedError as error:
        print(f"gh: {error}", file=sys.stderr)
        return 4
    except MlopsError as error:
        print(f"gh: {error}", file=sys.stderr)
        return 1
    return 0
