"""Jobs that a person starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.workloads import run_model_monitor_job
from tests.sample_project import copy_as_forked


def test_a_working_tree_without_the_release_may_be_behind_main(tmp_path: Path) -> None:
    target: Any = SimpleNamespace(project=Project(copy_as_forked(tmp_path)))
    with pytest.raises(MlopsError, match=r"models/diabetes-progression/releases/dev\.yaml names no bundle") as caught:
        run_model_monitor_job(target, "dev", "diabetes-progression", print)
    assert caught.value.fix == "pull the newest main if a bundle is released there, otherwise release one first"
