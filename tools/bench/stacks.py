"""Benchmark of `mlops up`.

Fresh: `mlops up --env dev` on a laptop that has just started, with the images pinned. Unchanged: the same command
again. Both are medians of whole processes, including the start of Python and the import of the SDKs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.bench.figures import Figure

ROOT = Path(__file__).parents[2]
ROUNDS = 3


def measure() -> list[Figure]:
    """Measure a fresh and an unchanged `mlops up`."""
    from laptop import lifecycle
    from laptop.demo.material import CENSUS, own_clone
    from laptop.publishing import local_digests
    from pipelines.declarations.project import Project
    from pipelines.promotion.images import pin_images

    fresh, unchanged, resources = [], [], ""
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            home, project = Path(folder) / "home", own_clone(Project(ROOT), Path(folder) / "clone", without=(CENSUS,))
            pin_images(project, "dev", local_digests(project))
            lifecycle.start(home, project.root, attached=True)
            try:
                if number == 0:
                    up(project.root, home)  # warm-up: Python compiles the SDKs once
                    lifecycle.stop(home)
                    lifecycle.start(home, project.root, attached=True)
                seconds, resources = up(project.root, home)
                fresh.append(seconds)
                unchanged += [up(project.root, home)[0] for _ in range(2)]
            finally:
                lifecycle.stop(home)
    first, again = statistics.median(fresh), statistics.median(unchanged)
    return [
        Figure("`mlops up` of a fresh environment", f"{first:.1f} s", resources, f"{first:.1f} s", "≤ 5 s", first <= 5),
        Figure("`mlops up` without changes", f"{again:.1f} s", resources, f"{again:.1f} s", "≤ 2 s", again <= 2),
    ]


def up(root: Path, home: Path) -> tuple[float, str]:
    """Run `mlops up --env dev`; return its seconds and its summary."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "up", "--env", "dev"],
        cwd=root,
        env={**environ, "MLOPS_HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - began
    summaries = [line for line in done.stdout.splitlines() if line.startswith("Resources:")]
    return seconds, summaries[-1].partition(";")[0]


if __name__ == "__main__":
    for figure in measure():
        print(figure)
