"""Find the root folder of a repository based on this template. Imports little, so that commands start fast."""

from __future__ import annotations

from pathlib import Path

from pipelines.declarations.errors import MlopsError

PROGRAM = "Pulumi.yaml"
"""File that marks the root."""


def find_root(start: Path | None = None) -> Path:
    """Return the root of the project that contains `start`, by default the working directory.

    In a project inside it, such as `infra/bootstrap`, this is the outer one; the search ends at a git repository.

    Raises:
        MlopsError: neither the folder nor any parent has a `Pulumi.yaml`.
    """
    here = (start or Path.cwd()).resolve()
    found: Path | None = None
    for folder in (here, *here.parents):
        if (folder / PROGRAM).is_file():
            found = folder
        if found and (folder / ".git").exists():
            break
    if found is None:
        raise MlopsError(
            f"no {PROGRAM} in {here} or any folder above it", fix="run this inside a clone of the repository"
        )
    return found
