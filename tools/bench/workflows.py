"""Benchmark of workflow jobs: what each installs, and how long the gates and a deployment take.

The set-up is `make setup PARTS=…` in a fresh clone with an empty environment, from uv's cache of downloaded packages.
The other steps are those of the demo, timed by the laptop's runner. A job on GitHub also starts a machine, checks out,
and restores Pulumi from a cache, which is not measured here. The deployment includes its rollout: `pulumi up` starts
earlier.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.bench.demo import demo
from tools.bench.figures import Figure

ROOT = Path(__file__).parents[2]

LIGHT, USUAL, DATA = "cli serving", "cli infra serving", "cli infra pipelines"
"""Requirement groups of jobs: that select and propose, that judge and deploy, that train and ingest."""

SLOWEST_GATES, SLOWEST_DEPLOYMENT = 180, 60
"""Seconds."""


def measure() -> list[Figure]:
    """Measure the set-up of each kind of job, and the jobs of the demo."""
    figures, seconds = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for groups in (LIGHT, USUAL, DATA, ""):
            seconds[groups], size = set_up(Path(folder) / (groups.replace(" ", "-") or "all"), groups)
            name = f"set-up of a job with {groups or 'all groups'}"
            value = f"{seconds[groups]:.1f} s, {size / 1e6:,.0f} MB"
            figures.append(Figure(name, value, "", f"{seconds[groups]:.1f} s", "≤ 30 s", seconds[groups] <= 30))
        clone = Path(folder) / "demo"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        demo(clone, Path(folder))
        runs = clone / ".mlops" / "demo" / "laptop" / "github" / "runs"
        gates = max(job["seconds"] for job in jobs(runs, "gates"))
        deployment = max(job["seconds"] for job in jobs(runs, "deploy dev", "deploy staging", "deploy prod"))
    for name, job, target in (
        ("a release pull request judged", gates, SLOWEST_GATES),
        ("a release deployed, rollout included", deployment, SLOWEST_DEPLOYMENT),
    ):
        total = seconds[USUAL] + job
        against = f"the slowest job of the demo: {job:.1f} s"
        figures.append(
            Figure(
                f"{name}, with set-up", f"{total:.1f} s", against, f"{total:.1f} s", f"≤ {target} s", total <= target
            )
        )
    return figures


def set_up(clone: Path, groups: str) -> tuple[float, int]:
    """Install requirement groups in a fresh clone; return the seconds, and the size of the environment in bytes."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    began = time.monotonic()
    subprocess.run(["make", "setup", f"PARTS={groups}"], cwd=clone, check=True, capture_output=True)
    seconds = time.monotonic() - began
    return seconds, sum(file.stat().st_size for file in (clone / ".venv").rglob("*") if file.is_file())


def jobs(runs: Path, *names: str) -> Iterator[dict[str, Any]]:
    """Yield the jobs with these names that succeeded or failed by what they found."""
    for file in runs.glob("*/run.json"):
        for job in json.loads(file.read_bytes())["jobs"]:
            if job["name"] in names and job["conclusion"] in ("success", "failure"):
                yield job


if __name__ == "__main__":
    for figure in measure():
        print(figure)
