"""Run the gates again for open pull requests that may pass without a change.

Some only have to wait: for a soak, a freeze or a scan result. Others were refused by a measurement, which may come out
differently when it is repeated. It is repeated a few times for a commit, so a model that is too slow stays refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted
from pipelines.declarations.project import Project
from pipelines.github import pull_requests
from pipelines.github.gh import Gh
from pipelines.promotion.attempt import Log
from pipelines.promotion.comments.gate_comment import read_measured, read_outcomes
from pipelines.promotion.verdict import Outcome

WORKFLOW = "promote.yml"
"""Workflow of the gates."""

PASS_WITH_TIME = ("soak", "freeze", "order", "image")
"""Gates whose refusal may end without a change of the pull request. An inconclusive gate may pass, too."""

MOST_ATTEMPTS = 45
"""Attempts of one run. GitHub allows 50 reruns ("Limits in GitHub Actions")."""

MOST_WITHOUT_VERDICT = 5
"""Attempts of one run that ended before it gave verdicts."""

MOST_REPEATED = 3
"""Number of times that the gates run again for a commit because of a measurement alone."""

OLDEST = timedelta(days=28)
"""Age of a run that is not run again. GitHub allows 30 days ("Re-running workflows and jobs")."""

PAGE, MOST_PAGES = 100, 10
"""Runs in one listing, and listings: GitHub lists no more than 1,000 runs of a commit."""

MARKER = "<!-- mlops:recheck "
"""Beginning of the comment that counts repeated measurements."""

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


@dataclass(frozen=True)
class Findings:
    """The verdicts in the comments on a pull request.

    Attributes:
        outcomes: gate → outcome; empty if no comment has verdicts.
        measured: the gates that refused because of a measurement.
        repeated: number of times that the gates ran again for the newest commit because of a measurement alone.
    """

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    measured: frozenset[str] = frozenset()
    repeated: int = 0

    @property
    def refused(self) -> list[str]:
        """The gates that did not pass."""
        return [gate for gate, outcome in self.outcomes.items() if outcome != "pass"]

    @property
    def is_only_measured(self) -> bool:
        """True if every gate that refuses does so because of a measurement."""
        return bool(self.refused) and self.measured.issuperset(self.refused)


def decide(run: GateRun | None, found: Findings, now: datetime) -> tuple[Action, str]:
    """Return what to do about a pull request, and why.

    Args:
        run: the newest run of the gates; None if there is none.
        found: what the comments of that run say.
        now: the current time.
    """
    if run is None:
        return "leave", "the gates never ran"
    if run.status != "completed":
        return "leave", "the gates are running"
    if run.conclusion == "success":
        return "leave", "the gates pass"
    may_pass = found.measured.union(PASS_WITH_TIME)
    lasting = [gate for gate in found.refused if found.outcomes[gate] == "fail" and gate not in may_pass]
    if lasting:
        return "leave", f"waiting does not change {', '.join(lasting)}"
    waits = ", ".join(found.refused) or "no verdict was given"
    if found.is_only_measured and found.repeated >= MOST_REPEATED:
        again = f"to measure again: gh run rerun {run.number} --failed"
        return "leave", f"{waits} was measured again {counted(found.repeated, 'time')}, and still refuses it; {again}"
    if not found.outcomes and run.attempt >= MOST_WITHOUT_VERDICT:
        return "leave", f"the gates gave no verdict in {run.attempt} attempts; see the log of run {run.number}"
    if run.attempt < MOST_ATTEMPTS and now - run.created < OLDEST:
        return "rerun", waits
    return "renew", waits  # GitHub does not run it again


def recheck(project: Project, log: Log) -> None:
    """Run the gates again for every open pull request that may pass without a change.

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
    """Run the gates of a pull request again if it may pass without a change; return what was done and why."""
    run = find_newest_run(gh, commit)
    found = Findings()
    if run is not None and run.status == "completed" and run.conclusion != "success":
        found = read_findings(gh.list_all(f"issues/{number}/comments"), commit)
    action, why = decide(run, found, now)
    if action != "leave" and found.is_only_measured:  # counted first: a count that is lost would not bound anything
        text = render_count(commit, found.repeated + 1, found.refused)
        pull_requests.comment(gh, number, MARKER, text)
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


def read_findings(comments: Sequence[Mapping[str, Any]], commit: str) -> Findings:
    """Read the verdicts from the comments on a pull request.

    Args:
        comments: as GitHub's API returns them.
        commit: the newest commit of the pull request.
    """
    found: dict[str, Outcome] = {}
    measured: set[str] = set()
    lasting: set[str] = set()
    repeated = 0
    for comment in comments:
        body, author = str(comment.get("body")), comment.get("user") or {}
        if author.get("type") != "Bot":
            continue
        if body.startswith(("<!-- mlops:gates ", "<!-- mlops:pins ")):
            outcomes, again = read_outcomes(body), read_measured(body)
            measured |= again
            lasting |= {gate for gate, outcome in outcomes.items() if outcome == "fail" and gate not in again}
            for gate, outcome in outcomes.items():
                found[gate] = outcome if found.get(gate, "pass") == "pass" or outcome == "fail" else found[gate]
        elif counts := re.match(rf"{MARKER}{commit} (\d{{1,4}}) -->", body):
            repeated = int(counts[1])
    return Findings(found, frozenset(measured - lasting), repeated)


def render_count(commit: str, repeated: int, gates: Sequence[str]) -> str:
    """Return the comment that counts repeated measurements, for `read_findings`.

    Args:
        commit: the newest commit of the pull request.
        repeated: number of times that the gates ran again for it, with this time.
        gates: the gates whose measurement is repeated.
    """
    return (
        f"{MARKER}{commit} {repeated} -->\n"
        f"Only a measurement refuses `{commit[:12]}`: {', '.join(gates)}. It may come out differently when it is "
        f"repeated, so the gates were started again, {repeated} of {MOST_REPEATED} times. After the last time, push a "
        "change, or start the failed job again.\n"
    )


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
