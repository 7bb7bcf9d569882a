"""The images workflow pushes to the repositories from which environments pull."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.scopes import Environment
from pipelines.cli.ci import ci
from pipelines.declarations.project import Project
from tests.sample_project import PROJECT

REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("image", ["training", "serving"])
def test_the_workflow_pushes_where_environments_pull(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    monkeypatch.setenv("GITHUB_OUTPUT", str(output))
    monkeypatch.chdir(PROJECT)
    done = CliRunner().invoke(ci, ["images", "repository", image, "--registry", REGISTRY], catch_exceptions=False)
    assert done.exit_code == 0
    project = Project(PROJECT)
    config = project.stack("prod").config
    prod = Environment("prod", project.name, config.environment, "123456789012", config.region)
    assert output.read_text() == f"repository={prod.image_repository(image)}\n"
