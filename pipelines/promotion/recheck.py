"""Ask the gates again about open pull requests that only have to wait: for a soak, a freeze, a scan result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.promotion.attempt import Log
from pipelines.promotion.comments.gate_comment import read_outcomes
from pipelines.promotion.verdict import Outcome

WORKFLOW = "promote.yml"
"""Workflow of the gates."""

PASS_WITH_TIME = ("soak", "freeze", "order", "image")
"""Gates whose refusal may end without a change of the pull request. An inconclusive gate may pass, too."""

MOST_ATTEMPTS = 45
"""Attempts of one run. GitHub allows 50 reruns ("Limits in GitHub Actions")."""

MOST_WITHOUT_VERDICT = 5
"""Attempts of one run that ended before it gave verdicts."""

OLDEST = timedelta(days=28)
"""Age of a run that is not run again. GitHub allows 30 days ("Re-running workflows and jobs")."""

OUR_BRANCHES = ("release/", "pin/")
"""Prefixes of the branches that workflows push."""

Action = Literal["rerun", "renew", "leave"]


@dataclass(frozen=True)
class GateRun:
    """The newest run of the gates on a pull request.

    Attributes:
        number: id of the run.
        attempt: its newest attempt, from 1.
        status: `completed` once it has ended.
        conclusion: `success` if every gate passed.
        created: when it was started.
    """

    number: int
    attempt: int
    status: str
    conclusion: str
    created: datetime


def decide(run: GateRun | None, outcomes: Mapping[str, Outcome], branch: str, now: datetime) -> tuple[Action, str]:
    """Return what to do about a pull request, and why.

    Args:
        run: the newest run of the gates; None if there is none.
        outcomes: gate → outcome, from the comment of that run; empty if it wrote none.
        branch: the branch of the pull request.
        now: the current time.
    """
    if run is None:
        return "leave", "the gates were never asked"
    if run.status != "completed":
        return "leave", "the gates are being asked"
    if run.conclusion == "success":
        return "leave", "the gates pass"
    lasting = [gate for gate, outcome in outcomes.items() if outcome == "fail" and gate not in PASS_WITH_TIME]
    if lasting:
        return "leave", f"waiting does not change {', '.join(lasting)}"
    waits = ", ".join(gate for gate, outcome in outcomes.items() if outcome != "pass") or "no verdict was given"
    if not outcomes and run.attempt >= MOST_WITHOUT_VERDICT:
        return "leave", f"the gates gave no verdict in {run.attempt} attempts; see the log of run {run.number}"
    if run.attempt < MOST_ATTEMPTS and now - run.created < OLDEST:
        return "rerun", waits
    if branch.startswith(OUR_BRANCHES):
        return "renew", waits
    return "leave", f"GitHub does not run {run.number} again; push a commit to {branch}"


def recheck(project: Project, log: Log) -> None:
    """Ask the gates again about every open pull request that only has to wait.

    Raises:
        MlopsError: git or GitHub refuses. Pull requests before it were asked.
    """
    gh, now = Gh.find(project.root), datetime.now(UTC)
    fields = "number,headRefName,headRefOid,isCrossRepository"
    listed = json.loads(gh.run("pr", "list", "--state", "open", "--base", "main", "--limit", "200", "--json", fields))
    for pull in listed:
        if pull["isCrossRepository"]:  # a fork gets no role
            continue
        run = _newest_run(gh, pull["headRefOid"])
        outcomes = _outcomes(gh, pull["number"]) if run is not None and run.conclusion != "success" else {}
        action, why = decide(run, outcomes, pull["headRefName"], now)
        if action == "rerun" and run is not None:
            gh.run("run", "rerun", str(run.number), "--failed")
        elif action == "renew":
            renew(gh, pull["headRefName"])
        log(f"pull request {pull['number']}: {'asked again' if action != 'leave' else 'left'}: {why}")


def _newest_run(gh: Gh, commit: str) -> GateRun | None:
    fields = "databaseId,attempt,status,conclusion,createdAt"
    query = ("--workflow", WORKFLOW, "--commit", commit, "--limit", "1", "--json", fields)
    found: list[dict[str, Any]] = json.loads(gh.run("run", "list", *query))
    if not found:
        return None
    first = found[0]
    created = datetime.fromisoformat(first["createdAt"])
    return GateRun(first["databaseId"], first["attempt"], first["status"], first["conclusion"] or "", created)


def _outcomes(gh: Gh, number: int) -> dict[str, Outcome]:
    """Return gate → outcome from the comments of the gates on a pull request."""
    found: dict[str, Outcome] = {}
    for comment in gh.list_all(f"issues/{number}/comments"):
        body, author = str(comment.get("body")), comment.get("user") or {}
        if author.get("type") == "Bot" and body.startswith(("<!-- mlops:gates ", "<!-- mlops:pins ")):
            for gate, outcome in read_outcomes(body).items():
                found[gate] = outcome if found.get(gate, "pass") == "pass" or outcome == "fail" else found[gate]
    return found


def renew(gh: Gh, branch: str) -> None:
    """Push the change of a branch again, as a new commit on main, which starts every check.

    Nothing happens if the branch was merged or deleted since it was listed.

    Raises:
        MlopsError: git refuses.
    """
    git = Git(gh.root)
    main, tip = git.fetch("main"), git.fetch(branch)
    if main is None or tip is None:
        return
    contents = {name: git.read_file(tip, name) for name in git.changed_files(main, tip) if git.has_file(tip, name)}
    message = git.read("log", "-1", "--format=%B", tip)
    git.push(git.commit_files(main, contents, message), branch, force=True)
