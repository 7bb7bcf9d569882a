"""Copy the working tree of a project."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project


def copy_project(project: Project, to: Path) -> Project:
    """Copy the files of a project that git tracks or would track into a new git repository without commits.

    Args:
        project: the project.
        to: folder of the copy, which is replaced.

    Raises:
        MlopsError: git failed.
    """
    if to.exists():
        shutil.rmtree(to)
    to.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project.root,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        raise MlopsError(f"git cannot list the files of {project.root}: {listed.stderr.decode().strip()}")
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, copy = project.root / name, to / name
        if source.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    made = subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=to, capture_output=True, check=False)
    if made.returncode:
        raise MlopsError(f"git cannot create a repository in {to}: {made.stderr.decode().strip()}")
    return Project(to)
