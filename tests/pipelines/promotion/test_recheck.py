"""Which pull requests are asked again, and how."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.promotion.comments.gate_comment import read_outcomes
from pipelines.promotion.recheck import MOST_ATTEMPTS, OLDEST, GateRun, decide, renew
from pipelines.promotion.verdict import Outcome
from tests.clones import commit_all, git

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
RUN = GateRun(71, 1, "completed", "failure", NOW - timedelta(hours=1))
GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(
    ("run", "outcomes", "branch", "action", "why"),
    [
        (None, {}, "release/prod/m", "leave", "the gates were never asked"),
        (replace(RUN, status="in_progress"), {"soak": "fail"}, "release/prod/m", "leave", "are being asked"),
        (replace(RUN, conclusion="success"), {}, "release/prod/m", "leave", "the gates pass"),
        (RUN, {"scope": "pass", "soak": "fail"}, "release/prod/m", "rerun", "soak"),
        (RUN, {"soak": "fail", "freeze": "fail"}, "fix", "rerun", "soak, freeze"),
        (RUN, {"image": "fail"}, "release/prod/m", "rerun", "image"),
        (RUN, {"vulnerabilities": "inconclusive"}, "pin/dev", "rerun", "vulnerabilities"),
        (RUN, {"soak": "fail", "thresholds": "fail"}, "release/prod/m", "leave", "does not change thresholds"),
        (RUN, {}, "release/prod/m", "rerun", "no verdict was given"),
        (replace(RUN, attempt=5), {}, "release/prod/m", "leave", "no verdict in 5 attempts"),
        (replace(RUN, attempt=MOST_ATTEMPTS), {"soak": "fail"}, "release/prod/m", "renew", "soak"),
        (replace(RUN, created=NOW - OLDEST), {"soak": "fail"}, "pin/prod", "renew", "soak"),
        (replace(RUN, created=NOW - OLDEST), {"soak": "fail"}, "fix", "leave", "push a commit to fix"),
    ],
)
def test_a_pull_request_is_asked_again_if_it_only_has_to_wait(
    run: GateRun | None, outcomes: dict[str, Outcome], branch: str, action: str, why: str
) -> None:
    found = decide(run, outcomes, branch, NOW)
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


def test_a_change_is_pushed_again_as_a_new_commit_on_main(clone: Path) -> None:
    git(clone, "switch", "--quiet", "--create", "pin/dev")
    (clone / "pins").write_text("new\n")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "Pin images in dev")
    git(clone, "push", "--quiet", "origin", "pin/dev")
    before = git(clone, "rev-parse", "HEAD")
    git(clone, "switch", "--quiet", "main")
    (clone / "README.md").write_text("changed\n")
    main = commit_all(clone, "Change main")

    renew(Gh(clone, "acme/mlops"), "pin/dev")
    tip = Git(clone).fetch("pin/dev")
    assert tip is not None and tip != before
    assert Git(clone).parents(tip) == [main]
    assert Git(clone).changed_files(main, tip) == ("pins",)
    assert (Git(clone).read_file(tip, "pins"), git(clone, "log", "-1", "--format=%s", tip)) == (
        b"new\n",
        "Pin images in dev",
    )
    renew(Gh(clone, "acme/mlops"), "pin/gone")
