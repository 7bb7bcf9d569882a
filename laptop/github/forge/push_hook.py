"""What git runs in the bare repository when somebody pushes, before it moves a branch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from laptop.github.forge.github_server import GitHubServer, RefUpdate
from pipelines.declarations.errors import MlopsError


def main(_arguments: Sequence[str]) -> int:
    """`pre-receive`: decide, and announce what is about to move; whoever looks next makes events of it."""
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
