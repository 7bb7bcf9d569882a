"""Outputs of a workflow step."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.cli.options import record_output
from pipelines.declarations.plurals import counted


def test_a_person_does_not_see_the_outputs_of_a_workflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_output("models", "churn")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    record_output("models", "churn")
    assert capsys.readouterr().out == "models: churn\n"
    assert (tmp_path / "outputs").read_text() == "models=churn\n"


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows")])
def test_a_noun_follows_its_number(number: int, text: str) -> None:
    assert counted(number, "row") == text
