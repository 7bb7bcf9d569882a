"""Which pull requests run the gates again, and how."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.promotion.comments.gate_comment import Surroundings, read_outcomes, render
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import judge
from pipelines.promotion.recheck import (
    MOST_ATTEMPTS,
    MOST_REPEATED,
    OLDEST,
    Findings,
    GateRun,
    decide,
    read_findings,
    recheck,
    render_count,
    renew,
)
from pipelines.promotion.verdict import Outcome
from tests.clones import git

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)
RUN = GateRun(71, 1, "completed", "failure", NOW - timedelta(hours=1))
GOLDEN = Path(__file__).parent / "golden"
ACCEPTED = Facts.model_validate_json((Path(__file__).parents[2] / "refused" / "accepted.json").read_text())


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
    found = decide(run, Findings(outcomes), NOW)
    assert found[0] == action
    assert why in found[1]


MEASURED = Findings({"scope": "pass", "runtime": "fail"}, frozenset({"runtime"}))


@pytest.mark.parametrize(
    ("run", "found", "action", "why"),
    [
        (RUN, MEASURED, "rerun", "runtime"),
        (replace(RUN, attempt=MOST_ATTEMPTS), MEASURED, "renew", "runtime"),
        (replace(RUN, attempt=20), replace(MEASURED, repeated=MOST_REPEATED - 1), "rerun", "runtime"),
        (RUN, replace(MEASURED, repeated=MOST_REPEATED), "leave", "measured again 3 times.*: gh run rerun 71 --failed"),
        (RUN, replace(MEASURED, measured=frozenset()), "leave", "does not change runtime"),
        (RUN, replace(MEASURED, outcomes={"runtime": "fail", "champion": "fail"}), "leave", "does not change champion"),
        (
            RUN,
            replace(MEASURED, outcomes={"runtime": "fail", "soak": "fail"}, repeated=MOST_REPEATED),
            "rerun",
            "runtime, soak",
        ),
    ],
)
def test_a_measurement_that_refuses_is_repeated_a_few_times(
    run: GateRun, found: Findings, action: str, why: str
) -> None:
    decided = decide(run, found, NOW)
    assert decided[0] == action
    assert re.search(why, decided[1])


def gate_comment(p99_ms: float, problem: str = "", interrupted: bool = False) -> dict[str, Any]:
    """Return the comment of the gates on a release whose only fault may be its trial."""
    assert ACCEPTED.runtime is not None
    trial = ACCEPTED.runtime.model_copy(update={"p99_ms": p99_ms, "problem": problem, "interrupted": interrupted})
    facts = ACCEPTED.model_copy(update={"runtime": trial})
    return {"id": 1, "body": render(facts, judge(facts), Surroundings()), "user": {"type": "Bot"}}


@pytest.mark.parametrize(
    ("comment", "is_only_measured"),
    [
        (gate_comment(900.0), True),
        (gate_comment(0.0, "the process was ended by the signal SIGKILL", interrupted=True), True),
        (gate_comment(0.0, "golden row 2 gave 151.2, expected 150.1"), False),
        (gate_comment(0.2), False),
    ],
)
def test_the_comment_says_which_refusals_are_measurements(comment: dict[str, Any], is_only_measured: bool) -> None:
    assert read_findings([comment], "a" * 40).is_only_measured is is_only_measured


def test_measurements_are_counted_for_each_commit() -> None:
    counts = {"body": render_count("a" * 40, 2, ["runtime"]), "user": {"type": "Bot"}}
    forged = {"body": render_count("a" * 40, 0, ["runtime"]), "user": {"type": "User"}}
    assert read_findings([counts, forged], "a" * 40).repeated == 2
    assert read_findings([counts], "b" * 40).repeated == 0


def test_a_release_that_stays_too_slow_is_left_after_some_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gh = SlowRelease(tmp_path)
    monkeypatch.setattr(Gh, "find", lambda root: gh)
    lines: list[str] = []
    for _ in range(MOST_REPEATED + 2):
        recheck(Project(tmp_path), lines.append)
    assert [command for command in gh.commands if command.startswith("run rerun")] == [
        "run rerun 71 --failed"
    ] * MOST_REPEATED
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == ["gates started again"] * MOST_REPEATED + [
        "skipped"
    ] * 2
    assert len(gh.comments) == 2, "one comment counts"
    assert f"{MOST_REPEATED} of {MOST_REPEATED} times" in gh.comments[1]["body"]


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


class SlowRelease(Recorder):
    """Has one pull request, which the gate `runtime` refuses as too slow in every run."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        object.__setattr__(self, "comments", [gate_comment(900.0)])

    comments: list[dict[str, Any]]

    def run(self, *arguments: str, **options: Any) -> str:
        super().run(*arguments)
        if arguments[:2] == ("pr", "list"):
            return json.dumps([{"number": 5, "headRefOid": "a" * 40, "isCrossRepository": False}])
        if arguments[:2] == ("run", "list"):
            now = datetime.now(UTC).isoformat()
            run = {"databaseId": 71, "attempt": 1, "status": "completed", "conclusion": "failure", "createdAt": now}
            return json.dumps([run])
        if arguments[:2] == ("pr", "comment"):
            body = Path(arguments[-1]).read_text()
            self.comments.append({"id": 2, "body": body, "user": {"type": "Bot"}})
        if arguments[0] == "api":
            self.comments[1]["body"] = json.loads(Path(arguments[-1]).read_text())["body"]
        return ""

    def list_all(self, path: str, **_: Any) -> list[dict[str, Any]]:
        return list(self.comments)


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
