"""A repository as it is right after a fork, whatever was declared, pinned and released in this one since."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROJECT = ROOT / "tests" / "project"
"""The declarations that the tests work on: three environments, a model, its contract and its sample, nothing released.

The repository's own are for whoever forked it to change or delete; only what holds for any of them is tested on them.
"""

_SKIPPED = shutil.ignore_patterns("__pycache__")


def copy_as_forked(to: Path, *more: str) -> Path:
    """Copy the tests' own declarations.

    Args:
        to: a folder, made if it is missing.
        more: files and folders of this repository to copy as well; of a file that both have, the tests' own is taken.
    """
    to.mkdir(parents=True, exist_ok=True)
    for name in more:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, ignore=_SKIPPED)
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return _declare(to)


def declare_as_forked(root: Path) -> Path:
    """Put the tests' own declarations in the place of those in a copy of this repository; returns it."""
    for folder in ("models", "data-contracts"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for stack in root.glob("Pulumi*.yaml"):
        stack.unlink()
    return _declare(root)


def _declare(root: Path) -> Path:
    shutil.copytree(PROJECT, root, dirs_exist_ok=True, ignore=_SKIPPED)
    return root
