"""Sort what a change does to release files: release a bundle, withdraw one, add a file, or remove one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.declarations.documents import parse
from pipelines.declarations.errors import DeclarationError
from pipelines.declarations.release import Release
from pipelines.github.git import Git
from pipelines.promotion.select import RELEASE_FILE

Kind = Literal["release", "withdrawal", "nothing", "removal"]
"""What a change does to a release file. `nothing`: the file names no bundle, and withdraws none."""


@dataclass(frozen=True)
class ReleaseFileChange:
    """Change of one release file.

    Attributes:
        model, environment: from its path.
        before: the file before the change; None if it did not exist or was not valid.
        after: the file after the change; None if it is removed.
    """

    model: str
    environment: str
    before: Release | None
    after: Release | None

    @property
    def kind(self) -> Kind:
        """What the change does."""
        if self.after is None:
            return "removal"
        if self.after.bundle is not None:
            return "release"
        return "withdrawal" if self.after.replaces is not None else "nothing"


def read_release_changes(git: Git, base: str, head: str) -> list[ReleaseFileChange]:
    """Return what a change does to release files, in the order of their paths.

    Args:
        git: the clone.
        base: the commit or branch to merge into.
        head: the newest commit of the change.

    Raises:
        MlopsError: a commit does not exist, or a release file is not valid after the change.
    """
    found = []
    newest, oldest = git.resolve(head), git.merge_base(base, head)
    for name in git.changed_files(base, head):
        path = RELEASE_FILE.match(name)
        if path is None:
            continue
        after = parse(git.read_file(newest, name), Release, Path(name)) if git.has_file(newest, name) else None
        found.append(ReleaseFileChange(path["model"], path["environment"], _read_valid(git, oldest, name), after))
    return found


def _read_valid(git: Git, commit: str, name: str) -> Release | None:
    if not git.has_file(commit, name):
        return None
    try:
        return parse(git.read_file(commit, name), Release, Path(name))
    except DeclarationError:
        return None
