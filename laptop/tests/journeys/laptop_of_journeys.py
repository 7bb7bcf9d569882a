"""Start the laptop for a journey: as quick as it can be, or as late and strict as AWS."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from laptop import delays, lifecycle, stack_operations
from laptop.cli.github import attach
from laptop.github.hosting import REPOSITORY, host
from laptop.github.hub import Hub
from laptop.laptop_target import LaptopTarget
from laptop.lifecycle import Laptop
from laptop.publishing import publish_locally
from laptop.shell_environment import network_variables
from pipelines.declarations.project import Project
from tests.sample_project import ROOT

REALISTIC = "REALISTIC_JOURNEYS"
"""Variable with the time scale of a realistic laptop; `make test-realistic` sets it.

Not one of the project, `MLOPS_…`: tests remove these from their environment before this module is imported.
"""

SCALE = float(os.environ.get(REALISTIC) or 0)
"""Time scale of a realistic laptop; 0 for one that is not."""


def ordinary_laptop_only(why: str) -> pytest.MarkDecorator:
    """Mark a journey that a realistic laptop cannot make. `make test-realistic` skips it, with the reason."""
    return pytest.mark.skipif(bool(SCALE), reason=f"not on a realistic laptop: {why}")


def start_laptop(
    home: Path,
    root: Path,
    patch: pytest.MonkeyPatch,
    *,
    time_scale: float = 1.0,
    scale: float = SCALE,
    factor: float = 1.0,
) -> Laptop:
    """Start a laptop that ends with this process. The process is its administrator, inside of the private network.

    Args:
        home: the laptop's home.
        root: repository that it is started for.
        patch: sets variables.
        time_scale: factor applied to declared rollout pauses, unless the laptop is realistic.
        scale: how many times as fast time runs on a realistic laptop; 0 for one that is not.
        factor: multiplies every delay of a realistic laptop, but not the pauses of rollouts.
    """
    if not scale:
        return lifecycle.start(home, root, attached=True, time_scale=time_scale)
    patch.setenv(lifecycle.ADMINISTRATOR, "1")
    chosen = delays.realistic(time_scale=scale, factor=factor)
    running = lifecycle.start(home, root, attached=True, time_scale=1 / scale, delays=chosen)
    for name, value in network_variables(running).items():
        patch.setenv(name, value)
    return running


def bring_up_dev(project: Project, home: Path, running: Laptop, patch: pytest.MonkeyPatch) -> tuple[LaptopTarget, Hub]:
    """Bring up dev with images of the project, and host the project on the laptop's GitHub."""
    for name, value in running.environ().items():
        patch.setenv(name, value)
    here = LaptopTarget(project)
    roles = stack_operations.bootstrap(project.root, home, REPOSITORY)
    publish_locally(here)
    here.apply("up", "dev")
    hub = attach(here, on_step=lambda step: None)
    host(hub, project.root, region=running.region, roles=roles)
    return here, hub


@contextmanager
def own_home(folder: Path) -> Iterator[tuple[Path, pytest.MonkeyPatch]]:
    """Give a journey a laptop's home of its own, and an environment without other accounts, clusters and repositories.

    Yields the home and what sets further variables. At the end, the laptop is stopped and all variables are restored.
    """
    home = folder / "local"
    with pytest.MonkeyPatch.context() as patch:
        for name in tuple(os.environ):
            if name.startswith(("AWS_", "GITHUB_", "GH_", "KUBE", "MLOPS_")):
                patch.delenv(name)
        patch.setenv("MLOPS_HOME", str(home))
        try:
            yield home, patch
        finally:
            lifecycle.stop(home)


def run_demo(project: Path, flag: str) -> str:
    """Run `mlops demo` in a project, in an environment without other accounts, and return its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GH_", "KUBE", "MLOPS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "demo", flag],
        cwd=project,
        env={**kept, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def part(shown: str, title: str) -> str:
    """Return what was printed from a step's title to the next step."""
    _, _, rest = shown.partition(title)
    assert rest, f"no step {title!r}"
    return rest.partition("\n\n")[0]
