"""Sample project for the tests, in the state of a fresh fork: nothing is pinned or released."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROJECT = ROOT / "tests" / "project"
"""Sample declarations: three environments, and a model with its contract and data. Nothing is released.

Forks change or delete the repository's own declarations, so tests of those check only what holds in every fork.
"""

_SKIPPED = shutil.ignore_patterns("__pycache__")


def copy_as_forked(to: Path, *more: str) -> Path:
    """Copy the sample declarations into a folder, and return it.

    Args:
        to: the folder, created if it is missing.
        more: files and folders of this repository to copy as well; sample declarations overwrite them.
    """
    to.mkdir(parents=True, exist_ok=True)
    for name in more:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=_SKIPPED)
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return _declare(to)


def work_in_sample(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Copy the sample declarations into a folder, and make the copy the working directory.

    Commands that run in `PROJECT` itself find this repository, which is around it, and so the declarations of the fork.
    """
    copy = copy_as_forked(folder / "sample-project")
    monkeypatch.chdir(copy)
    return copy


def declare_as_forked(root: Path) -> Path:
    """Replace the declarations in a copy of this repository by the sample ones, and return the copy."""
    for folder in ("models", "data-contracts"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for stack in root.glob("Pulumi*.yaml"):
        stack.unlink()
    return _declare(root)


def _declare(root: Path) -> Path:
    shutil.copytree(PROJECT, root, dirs_exist_ok=True, ignore=_SKIPPED)
    return root
