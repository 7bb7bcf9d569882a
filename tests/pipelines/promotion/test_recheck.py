"""Which pull requests run the gates again, and how."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.promotion.comments.gate_comment import read_outcomes
from pipelines.promotion.recheck import MOST_ATTEMPTS, OLDEST, GateRun, decide, renew
from pipelines.promotion.verdict import Outcome
from tests.clones import git

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
RUN = GateRun(71, 1, "completed", "failure", NOW - timedelta(hours=1))
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("run", "outcomes", "action", "why"),
    [
        (None, {}, "leave", "the gates never ran"),
        (replace(RUN, status="in_progress"), {"soak": "fail"}, "leave", "are running"),
        (replace(RUN, conclusion="success"), {}, "leave", "the gates pass"),
        (RUN, {"scope": "pass", "soak": "fail"}, "rerun", "soak"),
        (RUN, {"soak": "fail", "freeze": "fail"}, "rerun", "soak, freeze"),
        (RUN, {"image": "fail"}, "rerun", "image"),
        (RUN, {"vulnerabilities": "inconclusive"}, "rerun", "vulnerabilities"),
        (RUN, {"soak": "fail", "thresholds": "fail"}, "leave", "does not change thresholds"),
        (RUN, {}, "rerun", "no verdict was given"),
        (replace(RUN, attempt=5), {}, "leave", "no verdict in 5 attempts"),
        (replace(RUN, attempt=MOST_ATTEMPTS), {"soak": "fail"}, "renew", "soak"),
        (replace(RUN, created=NOW - OLDEST), {"soak": "fail"}, "renew", "soak"),
    ],
)
def test_the_gates_run_again_for_a_pull_request_that_only_has_to_wait(
    run: GateRun | None, outcomes: dict[str, Outcome], action: str, why: str
) -> None:
    found = decide(run, outcomes, NOW)
    assert found[0] == action
    assert why in found[1]


@pytest.mark.parametrize(
    ("page", "refused"),
    [
        ("accepted.md", set()),
        ("refused.md", {"thresholds", "champion", "fairness", "leakage", "contract"}),
        ("review.md", set()),
    ],
)
def test_outcomes_are_read_from_the_comment(page: str, refused: set[str]) -> None:
    outcomes = read_outcomes((GOLDEN / page).read_text())
    assert {gate for gate, outcome in outcomes.items() if outcome != "pass"} == refused


def test_a_gate_that_refused_one_of_two_images_is_refused() -> None:
    rows = ["| order | ✅ | a | b | c |", "| order | ❌ | a | b | c |", "| order | ⚠️ | a | b | c |", "| size | ⚠️ | a |"]
    assert read_outcomes("\n".join(rows)) == {"order": "fail", "size": "inconclusive"}
    assert read_outcomes("\n".join(reversed(rows))) == {"order": "fail", "size": "inconclusive"}


class Recorder(Gh):
    """Records the commands; refuses those that start with `refused`."""

    def __init__(self, root: Path, refused: str = "-") -> None:
        super().__init__(root, "acme/mlops")
        object.__setattr__(self, "commands", [])
        object.__setattr__(self, "refused", refused)

    commands: list[str]
    refused: str

    def run(self, *arguments: str, **_: object) -> str:
        self.commands.append(" ".join(arguments))
        if self.commands[-1].startswith(self.refused):
            raise MlopsError("gh: Server Error (HTTP 500)")
        return ""


def test_a_renewed_pull_request_keeps_its_commits_and_its_last_pusher(clone: Path) -> None:
    """A push by the app would let the person whose commit it is approve it alone."""
    git(clone, "switch", "--quiet", "--create", "pin/dev")
    (clone / "pins").write_text("of someone else\n")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "Pin images in dev")
    git(clone, "push", "--quiet", "origin", "pin/dev")
    before = git(clone, "rev-parse", "HEAD")
    gh = Recorder(clone)
    renew(gh, 5)
    assert gh.commands == ["pr close 5", "pr reopen 5"]
    assert Git(clone).fetch("pin/dev") == before


def test_a_pull_request_that_stays_closed_is_named(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match=r"pull request 5 was closed .* cannot be opened: gh: Server Error") as caught:
        renew(Recorder(tmp_path, "pr reopen"), 5)
    assert caught.value.fix == "gh pr reopen 5"
