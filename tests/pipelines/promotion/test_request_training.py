"""New data starts the workflow that trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.promotion.request_training import request_training
from tests.sample_project import PROJECT

MODEL = "diabetes-progression"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    made: list[tuple[str, ...]] = []

    def run(self: Gh, *arguments: str) -> str:
        assert self == Gh(Path(PROJECT), "acme/mlops")
        made.append(arguments)
        return ""

    monkeypatch.setattr(Gh, "run", run)
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/mlops")
    return made


def test_each_model_is_trained_by_the_workflow_on_main(calls: list[tuple[str, ...]]) -> None:
    lines: list[str] = []
    request_training(Project(PROJECT), [MODEL], lines.append)
    assert calls == [("workflow", "run", "train.yml", "--ref", "main", "-f", f"model={MODEL}")]
    assert lines == [f"started the workflow train for {MODEL}"]


def test_an_unknown_model_starts_nothing(calls: list[tuple[str, ...]]) -> None:
    with pytest.raises(MlopsError, match="unknown model '--help'"):
        request_training(Project(PROJECT), [MODEL, "--help"], lambda _: None)
    assert calls == []
