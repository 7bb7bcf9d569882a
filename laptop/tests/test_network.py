"""Nothing phones home: the laptop, and what runs on it, stay on this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from laptop.demo.material import DATASET, MODEL, own_clone
from pipelines.declarations.project import Project
from tests.network_isolation import isolated, leaving, why_not_isolated
from tests.sample_project import ROOT, declare_as_forked

pytestmark = pytest.mark.slow

_STEPS = f"""
set -e
mlops() {{ {shlex.quote(sys.executable)} -P -m pipelines.cli "$@"; }}
git add --all
git -c user.name=ada -c user.email=ada@example.org commit --quiet --message "Start"
trap 'mlops laptop stop' EXIT
mlops laptop start
mlops laptop publish-images --env dev
mlops up --env dev
mlops land {DATASET} data-contracts/samples/{DATASET}.csv --env dev
mlops ingest {DATASET} --env dev
mlops train {MODEL} --env dev
mlops doctor || true
"""


@pytest.mark.timeout(900)
def test_no_step_on_the_laptop_asks_other_machines_or_keeps_anything_about_this_one(tmp_path: Path) -> None:
    if why_not_isolated():
        pytest.skip(why_not_isolated())
    project = declare_as_forked(own_clone(Project(ROOT), tmp_path / "project").root)
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    done = subprocess.run(
        isolated(trace, "sh", "-c", _STEPS),
        cwd=project,
        env={
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "MLOPS_HOME": str(tmp_path / "laptop"),
            "MLOPS_TARGET": "laptop",
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), "/usr/bin", "/bin")),
            "PYTHONPATH": str(project),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert leaving(trace.read_text(errors="replace").splitlines()) == []
    assert [path for path in home.rglob("*") if path.is_file()] == []
