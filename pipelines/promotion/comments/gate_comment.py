"""Comment on a release's pull request: the verdicts of the gates, and a comparison with the live bundle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.declarations.evaluation import Estimate, Evaluation
from pipelines.declarations.markdown import details, escape, link, number, short_digest, table
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import admits
from pipelines.promotion.verdict import Outcome, Verdict

LONGEST = 60_000
"""Maximum length of a comment, in characters. GitHub accepts 65,536."""

LONGEST_PREVIEW = 24_000
"""Maximum length of a preview, in characters."""

MOST_ROWS = 60
"""Maximum number of rows in the comparison of candidate and champion."""

NOTE = (
    "Only the check `gates` decides. Everyone who can push to this repository can edit this comment; the summary of "
    "the check's run has the same text."
)
"""Second line of every comment with verdicts: jobs of any branch get a token that edits comments."""

MARKS: dict[Outcome, str] = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️"}


@dataclass(frozen=True)
class CommentContext:
    """Content of the comment besides the verdicts.

    Attributes:
        preview: the Pulumi preview; empty if there is none.
        rollback: the bundle that a rollback would return to; None if there is none.
        sizes: sizes of the live and the candidate bundle, in bytes; None if unknown.
        datasets: dataset versions of the live and the candidate bundle, as text.
        canary: lines about the canary checks; none if nothing is live.
        run: URL or name of the workflow run.
    """

    preview: str = ""
    rollback: str | None = None
    sizes: tuple[int | None, int | None] = (None, None)
    datasets: tuple[str, str] = ("", "")
    canary: Sequence[str] = ()
    run: str = ""


def marker(model: str, environment: str) -> str:
    """Return the hidden first line of the comment, by which the comment is found again."""
    return f"<!-- mlops:gates {model} {environment} -->"


def render(facts: Facts, verdicts: Sequence[Verdict], around: CommentContext) -> str:
    """Return the comment, at most `LONGEST` characters."""
    release = facts.release
    refused = [verdict for verdict in verdicts if verdict.outcome != "pass"]
    headline = (
        f"### {MARKS['pass']} {release.model} may go to {release.environment}"
        if admits(tuple(verdicts))
        else f"### {MARKS['fail']} {release.model} may not go to {release.environment}: "
        + (", ".join(verdict.gate for verdict in refused) or "a gate gave no verdict")
    )
    replaces = f"Replaces `{short_digest(facts.live)}`" if facts.live else "Replaces none"
    rollback = (
        f"a rollback returns to `{short_digest(around.rollback)}`"
        if around.rollback
        else "there is nothing to roll back to"
    )
    lines = [
        marker(release.model, release.environment),
        headline,
        "",
        NOTE,
        "",
        f"Releases `{short_digest(release.bundle)}`. {replaces}; {rollback}.",
        "",
        *table(("Gate", "", "Found", "Bound", "Why"), map(row, verdicts)),
        "",
        *(f"<!-- mlops:measured {verdict.gate} -->" for verdict in refused if verdict.measured),
    ]
    if refused:
        lines += ["**What to do**", "", *(f"- {verdict.gate}: {escape(verdict.fix)}" for verdict in refused), ""]
    if facts.contract_breaks:
        lines += ["**Breaking contract changes**", ""]
        lines += [*(f"- {escape(text)}" for text in facts.contract_breaks[:20]), ""]
    lines += compare(facts, around)
    lines += around.canary
    if around.preview:
        lines.append(details("Pulumi preview", around.preview, LONGEST_PREVIEW))
    if around.run:
        lines += [f"<sub>{link(around.run)}, {facts.now.isoformat(timespec='seconds')}</sub>"]
    return join_lines(lines)


def join_lines(lines: Sequence[str]) -> str:
    """Join lines, and drop the last ones if the text would be longer than `LONGEST`."""
    kept: list[str] = []
    left = LONGEST
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            return "\n".join([*kept, "", "_cut: too long for a comment_", ""])
        kept.append(line)
    return "\n".join([*kept, ""])


def row(verdict: Verdict) -> tuple[str, ...]:
    """Return a verdict as a row of the table."""
    return (verdict.gate, MARKS[verdict.outcome], verdict.figure, verdict.threshold, verdict.why)


def read_outcomes(body: str) -> dict[str, Outcome]:
    """Return gate → outcome from the text of a comment; a gate that refused one of several images is refused."""
    words = {mark: outcome for outcome, mark in MARKS.items()}
    found: dict[str, Outcome] = {}
    for gate, mark in re.findall(r"^\| (\w+) \| (\S+) \|", body, re.MULTILINE):
        if mark in words and found.get(gate) != "fail":
            found[gate] = words[mark] if words[mark] != "pass" else found.get(gate, "pass")
    return found


def read_measured(body: str) -> set[str]:
    """Return the gates whose refusal is a measurement, from the text of a comment."""
    return set(re.findall(r"^<!-- mlops:measured (\w+) -->$", body, re.MULTILINE))


def compare(facts: Facts, around: CommentContext) -> list[str]:
    """Return a table that compares candidate and champion; empty if the candidate has no evaluation."""
    candidate, live = facts.evaluation, facts.champion
    if candidate is None:
        return []
    rows: list[tuple[str, ...]] = [
        (name, describe_estimate(live.metrics.get(name) if live else None), describe_estimate(estimate))
        for name, estimate in candidate.metrics.items()
    ]
    for name in candidate.slices:
        rows.append((f"slice {name}", describe_slice(live, name), describe_slice(candidate, name)))
    for attribute, groups in candidate.groups.items():
        for metric, ratio in groups.ratio.items():
            other = live.groups[attribute].ratio.get(metric) if live and attribute in live.groups else None
            rows.append((f"{metric}, ratio by {attribute}", number(other), number(ratio)))
    if facts.runtime is not None:
        rows.append(("p99 of one row, ms", "", number(facts.runtime.p99_ms)))
    if len(rows) > MOST_ROWS:
        rows = [*rows[:MOST_ROWS], (f"and {len(rows) - MOST_ROWS} more, in the report", "", "")]
    rows.append(("size, bytes", *(f"{size:,}" if size is not None else "" for size in around.sizes)))
    rows.append(("data", *around.datasets))
    return ["**Candidate and champion**", "", *table(("", "Live", "Candidate"), rows), ""]


def describe_slice(evaluation: Evaluation | None, name: str) -> str:
    """Return the metrics of a slice in one line; empty if there are none."""
    found = evaluation.slices.get(name) if evaluation is not None else None
    if found is None:
        return ""
    metrics = ", ".join(f"{metric} {number(value)}" for metric, value in found.metrics.items())
    return f"{metrics} ({found.rows} rows)"


def describe_estimate(estimate: Estimate | None) -> str:
    """Return a metric with its interval; empty if it has no value."""
    if estimate is None or estimate.value is None:
        return ""
    interval = f" [{number(estimate.low)}, {number(estimate.high)}]" if estimate.low is not None else ""
    return number(estimate.value) + interval
