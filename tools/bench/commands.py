"""Benchmarks of whole commands: a project to run them in, and the figure of several runs."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from tools.bench.figures import Figure
from tools.bench.measured_process import ResourceUsage

ROOT = Path(__file__).parents[2]


def copy_project(folder: Path) -> None:
    """Copy what the command line reads of a project, without code and local state."""
    for name in ("pyproject.toml", "Pulumi.yaml", *(path.name for path in ROOT.glob("Pulumi.*.yaml"))):
        shutil.copy(ROOT / name, folder / name)
    for name in ("models", "data-contracts"):
        shutil.copytree(ROOT / name, folder / name)


def median_figure(name: str, used: Sequence[ResourceUsage], most: float) -> Figure:
    """Return the median CPU time of runs, and their median time, which may be `most` seconds."""
    seconds, cpu = (statistics.median(getattr(each, field) for each in used) for field in ("seconds", "cpu"))
    return Figure(name, f"{cpu:.2f} CPU s", "", f"{seconds:.2f} s", f"≤ {most:g} s", seconds <= most)
