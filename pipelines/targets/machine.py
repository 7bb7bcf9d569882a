"""Check this machine for what every target needs; read-only."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines.declarations.project import Project
from pipelines.targets.target import Finding

REQUIREMENT_GROUPS = ("infra", "pipelines", "cli", "test")
MINIMUM_FREE_DISK = 1 << 30
"""Minimum free disk space, in bytes."""

OLDEST_PYTHON = (3, 11)


def check_machine(project: Project) -> Iterator[Finding]:
    """Check Python, git, the pinned requirements and the free disk space."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", sys.version_info[:2] >= OLDEST_PYTHON, version, "install Python 3.11 or newer")
    git = shutil.which("git")
    yield Finding("git", git is not None, git or "not on the PATH", "install git")
    missing = sorted(missing_requirements(project.root / "requirements"))
    found = f"{len(missing)} missing or of another version: {', '.join(missing[:5])}" if missing else "as pinned"
    yield Finding("requirements", not missing, found, "make setup")
    free = shutil.disk_usage(project.root).free
    yield Finding("disk", free >= MINIMUM_FREE_DISK, f"{free / 1e9:.1f} GB free", "free at least 1 GB")


def missing_requirements(folder: Path) -> Iterator[str]:
    """Yield the pinned requirements that are missing or installed in another version.

    Requirements with an environment marker are skipped: they are for other platforms.
    """
    pinned = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^ \\;]+)(?: *; *(.*?))? *\\?$", re.MULTILINE)
    for group in REQUIREMENT_GROUPS:
        for name, version, marker in pinned.findall((folder / f"{group}.txt").read_text()):
            if marker:
                continue
            try:
                if importlib.metadata.version(name) != version:
                    yield name
            except importlib.metadata.PackageNotFoundError:
                yield name
