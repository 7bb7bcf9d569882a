"""Targets: the places where environments live, found by the entry point group `mlops.targets`."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from pipelines.declarations.errors import MlopsError
from pipelines.targets.target import Finding, Operation, Preview, Target

if TYPE_CHECKING:
    from pipelines.declarations.project import Project

GROUP = "mlops.targets"
"""Entry point group; each entry is a subclass of `Target`, under the name that `--target` takes."""

VARIABLE = "MLOPS_TARGET"
"""Environment variable that names the target when `--target` is absent."""

__all__ = ["Finding", "Operation", "Preview", "Target", "default_target", "find_target", "open_target", "target_names"]


def target_names() -> list[str]:
    """Return the names of the installed targets, sorted."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def default_target() -> str:
    """Return the default of `--target`: `MLOPS_TARGET`, else `laptop` if it is installed, else `aws`."""
    return os.environ.get(VARIABLE) or ("laptop" if "laptop" in target_names() else "aws")


def open_target(name: str) -> Target:
    """Return the target of this project, connected.

    Raises:
        MlopsError: no such target is installed, or it cannot be reached.
    """
    from pipelines.declarations.project import Project

    target = find_target(name, Project.find())
    target.connect()
    return target


def find_target(name: str, project: Project) -> Target:
    """Return a target of a project, not connected.

    Raises:
        MlopsError: no such target is installed.
    """
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            target: Target = entry.load()(project)
            return target
    names = ", ".join(target_names())
    raise MlopsError(
        f"unknown target: expected one of {names}, found {name!r}", fix="make setup, or choose another --target"
    )
