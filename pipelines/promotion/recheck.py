"""Run the gates again for open pull requests that only have to wait: for a soak, a freeze or a scan result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.gh import Gh
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


def decide(run: GateRun | None, outcomes: Mapping[str, Outcome], now: datetime) -> tuple[Action, str]:
    """Return what to do about a pull request, and why.

    Args:
        run: the newest run of the gates; None if there is none.
        outcomes: gate → outcome, from the comment of that run; empty if it wrote none.
        now: the current time.
    """
    if run is None:
        return "leave", "the gates never ran"
    if run.status != "completed":
        return "leave", "the gates are running"
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
    return "renew", waits  # GitHub does not run it again


def recheck(project: Project, log: Log) -> None:
    """Run the gates again for every open pull request that only has to wait.

    Raises:
        MlopsError: GitHub refuses. Earlier pull requests were handled.
    """
    gh, now = Gh.find(project.root), datetime.now(UTC)
    fields = "number,headRefOid,isCrossRepository"
    listed = json.loads(gh.read("pr", "list", "--state", "open", "--base", "main", "--limit", "200", "--json", fields))
    for pull in listed:
        if pull["isCrossRepository"]:  # a fork gets no role
            continue
        run = _newest_run(gh, pull["headRefOid"])
        outcomes = _outcomes(gh, pull["number"]) if run is not None and run.conclusion != "success" else {}
        action, why = decide(run, outcomes, now)
        if action == "rerun" and run is not None:
            gh.run("run", "rerun", str(run.number), "--failed")
        elif action == "renew":
            renew(gh, pull["number"])
        log(f"pull request {pull['number']}: {'gates started again' if action != 'leave' else 'skipped'}: {why}")


def _newest_run(gh: Gh, commit: str) -> GateRun | None:
    fields = "databaseId,attempt,status,conclusion,createdAt"
    query = ("--workflow", WORKFLOW, "--commit", commit, "--limit", "1", "--json", fields)
    found: list[dict[str, Any]] = json.loads(gh.read("run", "list", *query))
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


def renew(gh: Gh, number: int) -> None:
    """Close a pull request and open it again, which starts every check.

    Nothing is pushed: the app would be the last pusher of a commit that anyone with write access may have pushed, who
    may then approve it alone.

    Raises:
        MlopsError: GitHub refuses; the pull request may be closed.
    """
    gh.run("pr", "close", str(number))
    try:
        gh.run("pr", "reopen", str(number))
    except MlopsError as error:
        raise MlopsError(
            f"pull request {number} was closed to start its checks again, and cannot be opened: {error.what}",
            fix=f"gh pr reopen {number}",
        ) from None
