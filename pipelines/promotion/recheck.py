"""Run the gates again for open pull requests that only have to wait: for a soak, a freeze or a scan result."""

from __future__ import annotations

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

PAGE, MOST_PAGES = 100, 10
"""Runs in one listing, and listings: GitHub lists no more than 1,000 runs of a commit."""

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

    Pull requests from forks are left out: they get no role.

    Raises:
        MlopsError: GitHub refuses. The other pull requests were handled.
    """
    gh, now = Gh.find(project.root), datetime.now(UTC)
    refused: list[MlopsError] = []
    for pull in gh.list_all("pulls"):
        if pull["base"]["ref"] != "main" or not _is_here(gh, pull["head"]["repo"]):
            continue
        try:
            said = _recheck_one(gh, int(pull["number"]), str(pull["head"]["sha"]), now)
        except MlopsError as error:
            refused.append(error)
            said = error.what
        log(f"pull request {pull['number']}: {said}")
    if refused:
        raise MlopsError("; ".join(error.what for error in refused), fix=refused[0].fix)


def _recheck_one(gh: Gh, number: int, commit: str, now: datetime) -> str:
    """Run the gates of a pull request again if it only has to wait; return what was done and why."""
    run = find_newest_run(gh, commit)
    outcomes = _outcomes(gh, number) if run is not None and run.conclusion != "success" else {}
    action, why = decide(run, outcomes, now)
    if action == "rerun" and run is not None:
        gh.run("run", "rerun", str(run.number), "--failed")
    elif action == "renew":
        renew(gh, number)
    return f"{'gates started again' if action != 'leave' else 'skipped'}: {why}"


def find_newest_run(gh: Gh, commit: str) -> GateRun | None:
    """Return the newest run of the gates on a commit of this repository; None if there is none.

    A fork can have the same commit, and its runs do not count.

    Raises:
        MlopsError: GitHub refuses.
    """
    for page in range(1, MOST_PAGES + 1):
        query = f"head_sha={commit}&per_page={PAGE}&page={page}"
        found: list[dict[str, Any]] = gh.get(f"actions/workflows/{WORKFLOW}/runs?{query}")["workflow_runs"]
        for run in found:
            if _is_here(gh, run["head_repository"]):
                created = datetime.fromisoformat(run["created_at"])
                return GateRun(run["id"], run["run_attempt"], run["status"], run["conclusion"] or "", created)
        if len(found) < PAGE:
            return None
    return None


def _is_here(gh: Gh, repository: Mapping[str, Any] | None) -> bool:
    """Return whether a repository is the one of `gh`; GitHub knows no repository of a deleted fork."""
    return repository is not None and str(repository["full_name"]).lower() == gh.repository.lower()


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
