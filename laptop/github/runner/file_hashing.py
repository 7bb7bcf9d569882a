"""The `hashFiles()` function of workflow expressions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pipelines.declarations.errors import MlopsError


def hash_files(workspace: Path, patterns: Sequence[str]) -> str:
    """Return the digest of the files that match, or "" if no file does.

    As in GitHub's `hashFiles()`, it is the SHA-256 over the SHA-256 of each file, in the order of their names.

    Args:
        workspace: the job's folder.
        patterns: glob patterns, one or more per string; `!` excludes files again.

    Raises:
        MlopsError: a pattern leads out of the workspace.
    """
    chosen: set[Path] = set()
    for pattern in patterns:
        for line in filter(None, (line.strip() for line in pattern.splitlines())):
            relative = line.removeprefix("!").lstrip("/").removeprefix("./")
            if ".." in relative.split("/"):
                raise MlopsError(f"hashFiles(): expected a pattern inside the workspace, found {line!r}")
            found = {path for path in workspace.glob(relative) if path.is_file()}
            chosen = chosen - found if line.startswith("!") else chosen | found
    if not chosen:
        return ""
    total = hashlib.sha256()
    for path in sorted(chosen):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
