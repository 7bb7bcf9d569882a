from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from laptop.engine.deployment import DeploymentError, Result
from laptop.engine.resource_steps import ResourceStep, StepKind
from laptop.preview_process import count_changes, preview
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets import find_target
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

URN = "urn:pulumi:dev::mlops::fake:index:Thing::a"
STEPS = (
    ResourceStep(StepKind.CREATE, URN, recorded="the emulator has none"),
    ResourceStep(StepKind.REPLACE, URN),
    ResourceStep(StepKind.DELETE_REPLACED, URN),
    ResourceStep(StepKind.UPDATE, URN, error="it is read-only"),
    ResourceStep(StepKind.SAME, URN),
    ResourceStep(StepKind.SAME, URN),
    ResourceStep(StepKind.READ, URN),
    ResourceStep(StepKind.SKIPPED, URN),
)


def test_changes_are_counted_as_the_pulumi_cli_does() -> None:
    assert count_changes(STEPS) == {"create": 1, "replace": 1, "same": 2}


@pytest.mark.parametrize(
    ("error", "problem", "changes"),
    [
        (MlopsError("no laptop:\n  is running", fix="start it"), "no laptop: is running", {}),
        (
            DeploymentError("1 step failed", result=Result(STEPS, {}, 1.0)),
            "1 step failed",
            {"create": 1, "replace": 1, "same": 2},
        ),
    ],
)
def test_a_preview_that_fails_has_a_problem_and_its_text(
    monkeypatch: pytest.MonkeyPatch, error: MlopsError, problem: str, changes: dict[str, int]
) -> None:
    def fail(*_: object) -> Result:
        print("the program prints")
        raise error

    monkeypatch.setattr("laptop.preview_process.deploy", fail)
    found = preview(Path(), Path(), "dev")
    assert (found.problem, found.changes) == (problem, changes)
    assert found.text == f"the program prints\n{error}\n"


def test_the_target_previews_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_HOME", str(tmp_path / "home"))
    found = find_target("laptop", Project(copy_as_forked(tmp_path / "project"))).preview("dev")
    assert found.failed and found.problem in " ".join(found.text.split())


def test_a_preview_whose_process_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = find_target("laptop", Project(copy_as_forked(tmp_path / "project")))
    dead = subprocess.CompletedProcess([sys.executable], 3, "", "Traceback\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: dead)
    with pytest.raises(MlopsError, match="the preview of dev ended with status 3: Traceback"):
        target.preview("dev")
