"""`mlops new model` creates a model that passes the tests unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import mlops
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.models.test_every_model import check_model
from tests.sample_project import copy_as_forked


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = copy_as_forked(tmp_path / "fork", "requirements")
    monkeypatch.chdir(root)
    return Project(root)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_new_model_trains_on_its_sample_and_passes_the_gates(project: Project, task: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(mlops, ["new", "model", "churn", "--task", task])
    assert done.exit_code == 0, done.output
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    checked = CliRunner().invoke(mlops, ["validate"])
    assert "declarations are valid" in checked.output
    check_model(Project(project.root), "churn", scratch)


def test_a_new_model_goes_live_in_minutes_rather_than_seconds(project: Project) -> None:
    """AWS applies a weight and finds a target healthy within a minute, so shorter steps would check nothing."""
    assert CliRunner().invoke(mlops, ["new", "model", "churn"]).exit_code == 0
    declared = Project(project.root).model("churn")
    assert len(declared.serving.rollout) > 1
    assert min(step.pause_seconds for step in declared.serving.rollout) >= 120
    assert declared.gates.soak.seconds >= 1800


def test_a_new_model_overwrites_nothing(project: Project) -> None:
    before = project.model_file("diabetes-progression").read_text()
    done = CliRunner().invoke(mlops, ["new", "model", "diabetes-progression"])
    assert isinstance(done.exception, MlopsError)
    assert "already exists" in str(done.exception)
    assert project.model_file("diabetes-progression").read_text() == before
    assert project.dataset_names == ("diabetes-patients",)


@pytest.mark.parametrize("name", ["Churn", "a", "../evil", "x" * 41, "churn_model"])
def test_a_name_that_kubernetes_or_s3_rejects_is_refused(project: Project, name: str) -> None:
    done = CliRunner().invoke(mlops, ["new", "model", name])
    assert isinstance(done.exception, MlopsError)
    assert "lower-case letters" in done.exception.fix
    assert list((project.root / "models").iterdir()) == [project.models_folder / "diabetes-progression"]
