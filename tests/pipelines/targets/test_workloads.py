"""Jobs that a person starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets import workloads
from pipelines.targets.workloads import run_log_compaction, run_maintenance, run_model_monitor_job
from tests.infra.recording import edit
from tests.pipelines.registry.chains import offline_environment
from tests.sample_project import copy_as_forked


def test_a_working_tree_without_the_release_may_be_behind_main(tmp_path: Path) -> None:
    target: Any = SimpleNamespace(project=Project(copy_as_forked(tmp_path)))
    with pytest.raises(MlopsError, match=r"models/diabetes-progression/releases/dev\.yaml names no bundle") as caught:
        run_model_monitor_job(target, "dev", "diabetes-progression", print)
    assert caught.value.fix == "pull the newest main if a bundle is released there, otherwise release one first"


@pytest.mark.parametrize("run", [run_model_monitor_job, run_log_compaction])
def test_a_job_of_a_model_needs_the_training_image(tmp_path: Path, run: Any) -> None:
    project = Project(copy_as_forked(tmp_path))
    edit(project.release_file("diabetes-progression", "dev"), "bundle", value=f"sha256:{1:064}")
    descriptor = offline_environment()
    descriptor = descriptor.model_copy(update={"images": descriptor.images.model_copy(update={"training": None})})
    target: Any = SimpleNamespace(project=project, descriptor=lambda _: descriptor)
    with pytest.raises(MlopsError, match="dev pins no training image") as caught:
        run(target, "dev", "diabetes-progression", print)
    assert caught.value.fix == "pin images.training in Pulumi.dev.yaml, and deploy"


def test_a_job_waits_for_others_and_its_lines_are_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = mock.Mock()
    monkeypatch.setattr(workloads, "run_job", ran)
    lines: list[str] = []
    target: Any = SimpleNamespace(project=Project(copy_as_forked(tmp_path)), descriptor=lambda _: offline_environment())
    run_maintenance(target, "dev", "diabetes-patients", lines.append)
    assert ran.call_args.args == (offline_environment().namespace, "maintain-diabetes-patients")
    assert ran.call_args.kwargs["after_others"] is True
    ran.call_args.kwargs["on_line"]("joined 3 files")
    assert lines == ["| joined 3 files"]


def test_predictions_are_cared_for_where_their_model_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = mock.Mock()
    monkeypatch.setattr(workloads, "run_job", ran)
    project = Project(copy_as_forked(tmp_path))
    target: Any = SimpleNamespace(project=project, descriptor=lambda _: offline_environment())
    predictions = "diabetes-progression-predictions"
    with pytest.raises(MlopsError, match="staging does not maintain diabetes-progression-predictions: expected a rel"):
        run_maintenance(target, "staging", predictions, print)
    edit(project.release_file("diabetes-progression", "staging"), "bundle", value=f"sha256:{1:064}")
    run_maintenance(target, "staging", predictions, print)
    assert ran.call_args.args[1] == "maintain-diabetes-progression-predictions"
