"""The `pre-receive` hook of the bare repository: git runs it before a push moves a ref."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from laptop.github.forge.branch_moves import RefUpdate
from laptop.github.forge.github_server import GitHubServer
from pipelines.declarations.errors import MlopsError


def main(_arguments: Sequence[str]) -> int:
    """Check the push, and announce the refs that it moves. Return the exit code."""
    server = GitHubServer(Path(os.environ["MLOPS_GITHUB"]))
    updates = []
    for line in sys.stdin:
        before, after, ref = line.split()
        updates.append(RefUpdate(ref, before, after))
    try:
        actor = server.authenticate(os.environ.get("MLOPS_GITHUB_TOKEN", ""))
        server.authorize(actor, updates)
        server.announce(actor, updates, os.getppid())
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
