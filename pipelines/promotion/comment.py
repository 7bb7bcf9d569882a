"""The comment on a release's pull request: what the gates say, and what a reviewer wants to see beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipelines.declarations.evaluation import Estimate, Evaluation
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import admits
from pipelines.promotion.verdict import Verdict

LONGEST = 60_000
"""Characters; GitHub takes 65,536."""

LONGEST_PREVIEW = 24_000
LONGEST_CELL = 240
MOST_ROWS = 60
"""Of the comparison with the champion."""

MARKS = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️"}


@dataclass(frozen=True)
class Surroundings:
    """What a reviewer wants to see beside the verdicts.

    Attributes:
        preview: what the Pulumi preview prints; empty when there is none.
        rollback: the bundle that a rollback would go back to; None when there is none.
        sizes: of the live and the candidate bundle, in bytes; None where unknown.
        datasets: the dataset versions of the live and the candidate bundle, as text.
        run: link to, or name of, the workflow run.
    """

    preview: str = ""
    rollback: str | None = None
    sizes: tuple[int | None, int | None] = (None, None)
    datasets: tuple[str, str] = ("", "")
    run: str = ""


def marker(model: str, environment: str) -> str:
    """A line nobody sees, by which the comment is found again and edited."""
    return f"<!-- mlops:gates {model} {environment} -->"


def render(facts: Facts, verdicts: Sequence[Verdict], around: Surroundings) -> str:
    """The comment, in GitHub's Markdown; shorter than GitHub's limit whatever it is made of."""
    release = facts.release
    refused = [verdict for verdict in verdicts if verdict.outcome != "pass"]
    headline = (
        f"### {MARKS['pass']} {release.model} may go to {release.environment}"
        if admits(tuple(verdicts))
        else f"### {MARKS['fail']} {release.model} may not go to {release.environment}: "
        + (", ".join(verdict.gate for verdict in refused) or "not every gate was asked")
    )
    lines = [
        marker(release.model, release.environment),
        headline,
        "",
        f"`{short(release.bundle)}` would replace `{short(facts.live)}`. "
        + (
            f"A rollback would go back to `{short(around.rollback)}`."
            if around.rollback
            else "There is nothing to roll back to."
        ),
        "",
        *table(("Gate", "", "Found", "Bound", "Why"), map(row, verdicts)),
        "",
    ]
    if refused:
        lines += ["**What to do**", "", *(f"- {verdict.gate}: {cell(verdict.fix)}" for verdict in refused), ""]
    if facts.contract_breaks:
        lines += ["**The data contract breaks**", "", *(f"- {cell(text)}" for text in facts.contract_breaks[:20]), ""]
    lines += beside(facts, around)
    if around.preview:
        lines += folded("Pulumi preview", around.preview)
    if around.run:
        lines += [f"<sub>{link(around.run)}, {facts.now.isoformat(timespec='seconds')}</sub>"]
    return whole(lines)


def whole(lines: Sequence[str]) -> str:
    """The lines as one text, cut between lines where it would be too long for a comment."""
    kept: list[str] = []
    left = LONGEST
    for line in lines:
        left -= len(line) + 1
        if left < 0:
            return "\n".join([*kept, "", "_cut: too long for a comment_", ""])
        kept.append(line)
    return "\n".join([*kept, ""])


def row(verdict: Verdict) -> tuple[str, ...]:
    """A gate's line."""
    return (verdict.gate, MARKS[verdict.outcome], verdict.figure, verdict.threshold, verdict.why)


def beside(facts: Facts, around: Surroundings) -> list[str]:
    """The candidate beside what it would replace."""
    candidate, live = facts.evaluation, facts.champion
    if candidate is None:
        return []
    rows: list[tuple[str, ...]] = [
        (name, figure(live.metrics.get(name) if live else None), figure(estimate))
        for name, estimate in candidate.metrics.items()
    ]
    for name in candidate.slices:
        rows.append((f"slice {name}", part(live, name), part(candidate, name)))
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
    return ["**Candidate beside champion**", "", *table(("", "Live", "Candidate"), rows), ""]


def part(evaluation: Evaluation | None, name: str) -> str:
    """A slice's metrics, in short."""
    found = evaluation.slices.get(name) if evaluation is not None else None
    if found is None:
        return ""
    metrics = ", ".join(f"{metric} {number(value)}" for metric, value in found.metrics.items())
    return f"{metrics} ({found.rows} rows)"


def figure(estimate: Estimate | None) -> str:
    """A metric with its interval."""
    if estimate is None or estimate.value is None:
        return ""
    interval = f" [{number(estimate.low)}, {number(estimate.high)}]" if estimate.low is not None else ""
    return number(estimate.value) + interval


def number(value: float | None) -> str:
    """A figure with four digits that count."""
    return "" if value is None else f"{value:.4g}"


def short(digest: str | None) -> str:
    """A digest as people recognise it."""
    return digest[:19] if digest else "nothing"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table; cells cannot break out of it."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(cell(text) for text in row) + " |" for row in rows]


def cell(text: str) -> str:
    """Text that stays in its place: on one line, no Markdown or HTML of its own, no mention of a person or an issue."""
    flat = " ".join(text.split())
    short_ = flat if len(flat) <= LONGEST_CELL else flat[: LONGEST_CELL - 1] + "…"
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in short_)
    return "".join(_ESCAPES.get(letter, letter) for letter in shown)


_ESCAPES = {
    "|": "\\|",
    "\\": "\\\\",
    "`": "\\`",
    "[": "\\[",  # neither a link nor an image
    "<": "&lt;",
    "&": "&amp;",
    "@": "@\u200b",  # a space that nobody sees: GitHub makes no mention of it
    "#": "#\u200b",
}


def link(address: str) -> str:
    """A web address as it is, which becomes a link; anything else as text."""
    return address if re.fullmatch(r"https?://[\w./:@?=&%+-]+", address, re.ASCII) else cell(address)


def folded(title: str, text: str, longest: int = LONGEST_PREVIEW) -> list[str]:
    """A section that opens on a click, holding text as it is; one line, so that it is never cut in the middle."""
    body = text if len(text) <= longest else text[:longest] + "\n… cut"
    body = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in body)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", body))])
    section = ["<details><summary>" + cell(title) + "</summary>", "", f"{fence}diff", body, fence, "", "</details>", ""]
    return ["\n".join(section)]
