"""The target on AWS, with `pulumi` and `aws` on the PATH that note how they were called."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets import Preview
from pipelines.targets.aws import AwsTarget, read_events
from tests.sample_project import copy_as_forked

PROGRAM = """#!{python}
import json, os, pathlib, sys
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
if name == "aws":
    print("Added new context to", arguments[-1])
    pathlib.Path(arguments[-1]).write_text("cluster " + arguments[arguments.index("--name") + 1])
else:
    kubeconfig = pathlib.Path(os.environ["KUBECONFIG"])
    with open({notes!r}, "a") as notes:
        print(json.dumps([arguments, kubeconfig.read_text(), str(kubeconfig)]), file=notes)
    print("Resources:\\n    1 unchanged")
    if "--event-log" in arguments and os.environ.get("PULUMI_DEBUG_COMMANDS") == "true":
        pathlib.Path(arguments[arguments.index("--event-log") + 1]).write_text({events!r})
    sys.exit({status})
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(copy_as_forked(tmp_path))


SUMMARY = {"sequence": 9, "summaryEvent": {"resourceChanges": {"create": 2, "same": 75}}}
"""An engine event as Pulumi writes it to its event log."""


def install(folder: Path, patch: pytest.MonkeyPatch, *, status: int = 0, events: Sequence[object] = (SUMMARY,)) -> Path:
    """Put the programs on the PATH; the file of their notes."""
    notes = folder / "notes"
    lines = "".join(json.dumps(event) + "\n" for event in events)
    for name in ("pulumi", "aws"):
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(PROGRAM.format(python=sys.executable, notes=str(notes), status=status, events=lines))
        program.chmod(0o755)
    patch.setenv("PATH", str(folder / "bin"))
    patch.setenv("KUBECONFIG", "/somebody/elses")
    return notes


def test_the_program_of_a_stack_reaches_that_stacks_cluster_whichever_was_connected(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    notes = install(tmp_path, monkeypatch)
    target = AwsTarget(project)
    for name in ("dev", "prod"):
        target.apply("preview", name)
    assert target.drift("staging") == []
    noted = [json.loads(line) for line in notes.read_text().splitlines()]
    assert [cluster for _, cluster, _ in noted] == [f"cluster mlops-{name}" for name in ("dev", "prod", "staging")]
    assert noted[0][0] == ["preview", "--stack", "dev", "--non-interactive", "--diff"]
    assert not any(Path(kubeconfig).exists() for _, _, kubeconfig in noted)
    assert "Added new context" not in capfd.readouterr().out, "it would be in the comment"


def test_a_program_that_fails_is_an_error_or_drift(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, status=255)
    with pytest.raises(MlopsError, match=r"pulumi preview --stack dev .* ended with status 255"):
        AwsTarget(project).apply("preview", "dev")
    assert "    1 unchanged" in AwsTarget(project).drift("dev")


def test_a_preview_counts_changes_and_prints_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path, monkeypatch)
    found = AwsTarget(project).preview("dev")
    assert found == Preview("Resources:\n    1 unchanged\n", {"create": 2, "same": 75})
    assert not found.failed
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([{"diagnosticEvent": {"severity": "error", "message": "error: no role\n"}}, SUMMARY], "no role"),
        ([], "`pulumi preview` ended with status 255"),
    ],
)
def test_a_failed_preview_has_a_problem(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[object], problem: str
) -> None:
    install(tmp_path, monkeypatch, status=255, events=events)
    found = AwsTarget(project).preview("dev")
    assert (found.failed, found.problem) == (True, problem)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"diagnosticEvent": {"severity": "warning", "message": "deprecated"}}, ""),
        ({"diagnosticEvent": {"severity": "error", "message": "error: no role\n"}}, "no role"),
        ({"policyEvent": {"enforcementLevel": "advisory", "message": "no tag"}}, ""),
        ({"policyEvent": {"enforcementLevel": "mandatory", "message": "no tag\n"}}, "no tag"),
        ({"cancelEvent": {}}, ""),
    ],
)
def test_the_first_error_of_an_event_log_is_read(event: object, error: str) -> None:
    last = {"diagnosticEvent": {"severity": "error", "message": "last"}}
    lines = [json.dumps(one) for one in (SUMMARY, event, last)]
    assert read_events([*lines, ""]) == ({"create": 2, "same": 75}, error or "last")
