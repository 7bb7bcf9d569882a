"""The repository as it is right after a fork, whatever was pinned and released in it since."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_as_forked(to: Path, *more: str) -> Path:
    """Copy the stacks, the models and the contracts, with no image pinned and nothing released.

    Args:
        to: a folder, made if it is missing.
        more: other folders of the repository to copy.
    """
    to.mkdir(parents=True, exist_ok=True)
    for file in ROOT.glob("Pulumi*.yaml"):
        shutil.copy(file, to)
    for name in ("models", "data-contracts", *more):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return undo_releases(to)


def undo_releases(root: Path) -> Path:
    """Pin no image and release nothing in a copy of the repository; returns it."""
    for stack in root.glob("Pulumi.*.yaml"):
        none = r"\1images: {training: null, serving: null}"
        stack.write_text(re.sub(r"(?m)^( +)images:.*$", none, stack.read_text()))
    for release in root.glob("models/*/releases/*.yaml"):
        release.write_text(re.sub(r"(?m)^(bundle|replaces):.*$", r"\1: null", release.read_text()))
    return root
