"""The time at which a workflow run was requested, as GitHub says it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.github.run_request import requested_at

COMMAND = """#!/bin/sh
echo "$@" >> "{folder}/asked"
cat "{folder}/answer"
exit {status}
"""


def prepare(folder: Path, patch: pytest.MonkeyPatch, answer: str, *, status: int = 0) -> None:
    """Let `gh` give an answer in run 7 of a workflow."""
    command = folder / "bin" / "gh"
    command.parent.mkdir()
    command.write_text(COMMAND.format(folder=folder, status=status))
    command.chmod(0o755)
    (folder / "answer").write_text(answer)
    patch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    patch.setenv("GITHUB_REPOSITORY", "acme/mlops")
    patch.setenv("GITHUB_RUN_ID", "7")


def test_a_run_that_was_started_again_was_requested_the_first_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, monkeypatch, '{"created_at": "2026-03-02T10:00:00Z", "run_started_at": "2026-03-02T11:00:00Z"}')
    monkeypatch.setenv("GITHUB_RUN_ATTEMPT", "2")
    assert requested_at(tmp_path) == datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert (tmp_path / "asked").read_text() == "api repos/acme/mlops/actions/runs/7/attempts/1\n"


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"created_at": "soon"}', '{"created_at": "2026-03-02T10:00:00"}'])
def test_an_answer_without_a_time_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    prepare(tmp_path, monkeypatch, answer)
    assert requested_at(tmp_path) is None


def test_a_refusal_or_an_outage_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, monkeypatch, "gh: Service Unavailable (HTTP 503)", status=1)
    assert requested_at(tmp_path) is None
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


def test_no_workflow_was_requested_outside_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    assert requested_at(tmp_path) is None
