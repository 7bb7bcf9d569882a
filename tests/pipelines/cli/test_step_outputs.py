"""Outputs of a workflow step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli.main import mlops
from pipelines.cli.options import record_output
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted
from tests.clones import commit_all, make_repository


def test_a_person_does_not_see_the_outputs_of_a_workflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_output("models", "churn")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    record_output("models", "churn")
    assert capsys.readouterr().out == "models: churn\n"
    assert (tmp_path / "outputs").read_text() == "models=churn\n"


def test_the_name_of_a_file_does_not_switch_the_gates_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The names of changed files choose the tests. A line break in one of them could set `code=false` after it."""
    root = make_repository(tmp_path).root
    tests = root / "tests" / "models"
    tests.mkdir(parents=True)
    (tests / "test_every_model.py").write_text("")
    commit_all(root, "Add a test")
    model = root / "models" / "a\ncode=false\nz" / "model.yaml"
    model.parent.mkdir()
    model.write_text("")
    commit_all(root, "Add a model")
    monkeypatch.chdir(root)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    CliRunner().invoke(mlops, ["ci", "select", "changes", "--base", "HEAD^"])
    lines = (tmp_path / "outputs").read_text().splitlines()
    assert "code=true" in lines
    assert "code=false" not in lines


def test_data_that_arrived_trains_its_models_although_another_file_was_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse_a_file(*_: object, **__: object) -> None:
        raise MlopsError("1 of 2 files rejected")

    monkeypatch.chdir(make_repository(tmp_path).root)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    monkeypatch.setattr("pipelines.cli.models.open_target", lambda _: None)
    monkeypatch.setattr("pipelines.targets.workloads.run_ingest", refuse_a_file)
    monkeypatch.setattr("pipelines.targets.training_due.models_due", lambda *_: ("churn", "prices"))
    done = CliRunner().invoke(mlops, ["ingest", "diabetes-patients", "--env", "dev", "--target", "aws"])
    assert (tmp_path / "outputs").read_text() == "models=churn prices\n"
    assert "New data for churn: mlops train churn --env dev" in done.output
    assert isinstance(done.exception, MlopsError)
    assert "1 of 2 files rejected" in str(done.exception)


def test_the_first_error_is_shown_if_nothing_can_be_read_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(what: str) -> Callable[..., None]:
        def run(*_: object, **__: object) -> None:
            raise MlopsError(what)

        return run

    monkeypatch.chdir(make_repository(tmp_path).root)
    monkeypatch.setattr("pipelines.cli.models.open_target", lambda _: None)
    monkeypatch.setattr("pipelines.targets.workloads.run_ingest", fail("the job does not exist"))
    monkeypatch.setattr("pipelines.targets.training_due.models_due", fail("the table cannot be read"))
    done = CliRunner().invoke(mlops, ["ingest", "diabetes-patients", "--env", "dev", "--target", "aws"])
    assert str(done.exception) == "the job does not exist"


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows")])
def test_a_noun_follows_its_number(number: int, text: str) -> None:
    assert counted(number, "row") == text
