"""What git runs in the bare repository when somebody pushes, before it moves a branch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from laptop.github.forge import Forge, RefUpdate
from pipelines.declarations.errors import MlopsError


def main(_arguments: Sequence[str]) -> int:
    """`pre-receive`: decide, and announce what is about to move; whoever looks next makes events of it."""
    forge = Forge(Path(os.environ["MLOPS_FORGE"]))
    updates = []
    for line in sys.stdin:
        before, after, ref = line.split()
        updates.append(RefUpdate(ref, before, after))
    try:
        actor = forge.authenticate(os.environ.get("MLOPS_FORGE_TOKEN", ""))
        forge.authorize(actor, updates)
        forge.announce(actor, updates, os.getppid())
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
