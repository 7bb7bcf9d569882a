"""The workflow `respond` answers the alarms of every declared environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.cli.main import main
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.alarm_workflow import (
    RESPOND,
    check_alarm_workflow,
    with_environments,
    write_alarm_environments,
)
from tests.sample_project import ROOT, copy_as_forked

WORKFLOW = """\
jobs:
  respond:
    if: ${{ contains(fromJSON('["dev", "prod"]'), github.event.client_payload.environment) }}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = copy_as_forked(tmp_path)
    (root / RESPOND).parent.mkdir(parents=True, exist_ok=True)
    (root / RESPOND).write_text(WORKFLOW, encoding="utf-8")
    return Project(root)


def test_the_workflow_of_this_repository_lists_its_environments() -> None:
    check_alarm_workflow(Project(ROOT))


def test_an_environment_that_is_not_listed_is_refused_until_it_is_written(project: Project) -> None:
    with pytest.raises(MlopsError) as caught:
        check_alarm_workflow(project)
    assert str(caught.value) == (
        ".github/workflows/respond.yml:3: expected staging in the list of environments whose alarms are answered, "
        """found '["dev", "prod"]'\n  fix: write '["dev", "prod", "staging"]'"""
    )
    assert write_alarm_environments(project)
    written = (project.root / RESPOND).read_text(encoding="utf-8")
    assert written == WORKFLOW.replace('"prod"]', '"prod", "staging"]')
    check_alarm_workflow(project)
    assert not write_alarm_environments(project)


def test_a_removed_environment_is_refused_until_it_is_not_listed(project: Project) -> None:
    """GitHub creates the environment that a job names, without protection rules."""
    file = project.root / RESPOND
    file.write_text(WORKFLOW.replace('"dev",', '"dev", "qa", "staging",'), encoding="utf-8")
    with pytest.raises(MlopsError) as caught:
        check_alarm_workflow(project)
    assert str(caught.value) == (
        ".github/workflows/respond.yml:3: expected no undeclared environment in the list, such as qa: GitHub would "
        """create it, found '["dev", "qa", "staging", "prod"]'\n  fix: write '["dev", "staging", "prod"]'"""
    )
    assert write_alarm_environments(project)
    check_alarm_workflow(project)


def test_a_repository_without_the_workflow_is_not_checked(project: Project) -> None:
    (project.root / RESPOND).unlink()
    check_alarm_workflow(project)
    assert not write_alarm_environments(project)


@pytest.mark.parametrize("text", ["jobs: {}", "fromJSON('[dev]')", "fromJSON('[1]')", "fromJSON('{}')"])
def test_a_workflow_without_a_list_is_refused(text: str) -> None:
    with pytest.raises(MlopsError, match="take the condition of the job respond from the template"):
        with_environments(text, ("dev",))


@pytest.mark.parametrize(
    ("environment", "said"),
    [("production", "production"), ("staging", "staging was not answered: expected the environment in the list")],
)
def test_an_alarm_that_is_not_answered_fails_its_run(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: str,
    said: str,
) -> None:
    payload = {"model": "diabetes-progression", "environment": environment, "reason": "slow"}
    event = project.root / "event.json"
    event.write_text(json.dumps({"action": "breach", "client_payload": payload}), encoding="utf-8")
    monkeypatch.chdir(project.root)
    assert main(["ci", "refuse-alarm", "--event", str(event)]) == 1
    assert said in capsys.readouterr().err
