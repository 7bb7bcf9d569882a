"""Comment on a pull request that pins images: the verdicts of the gates, and a preview."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.declarations.markdown import details, escape, link, short_digest, table
from pipelines.promotion.comments.gate_comment import LONGEST_PREVIEW, MARKS, NOTE, join_lines, row
from pipelines.promotion.facts.pin_facts import PinFacts
from pipelines.promotion.gates.pins import admits_pin
from pipelines.promotion.verdict import Verdict


def pin_marker(environment: str) -> str:
    """Return the hidden first line of the comment, by which the comment is found again."""
    return f"<!-- mlops:pins {environment} -->"


def render_pins(
    environment: str, judged: Sequence[tuple[PinFacts, tuple[Verdict, ...]]], preview: str, run: str
) -> str:
    """Return the comment, shorter than GitHub's limit.

    Args:
        environment: the environment that pins the images.
        judged: facts and verdicts of each image.
        preview: the Pulumi preview; empty if there is none.
        run: URL of the workflow run; empty outside a workflow.
    """
    refused = [facts.image for facts, verdicts in judged if not admits_pin(verdicts)]
    lines = [
        pin_marker(environment),
        f"### {MARKS['fail']} {' and '.join(refused)} may not be pinned in {environment}"
        if refused
        else f"### {MARKS['pass']} {' and '.join(facts.image for facts, _ in judged)} may be pinned in {environment}",
        "",
        NOTE,
        "",
    ]
    for facts, verdicts in judged:
        change = f"`{short_digest(facts.pinned)}` → `{short_digest(facts.digest)}`"
        lines += [f"**{facts.image}**: {change}", ""]
        lines += [*table(("Gate", "", "Found", "Bound", "Why"), map(row, verdicts)), ""]
        bad = [verdict for verdict in verdicts if verdict.outcome != "pass"]
        if bad:
            lines += ["**What to do**", "", *(f"- {verdict.gate}: {escape(verdict.fix)}" for verdict in bad), ""]
    if preview:
        lines.append(details(f"Pulumi preview of {environment}", preview, LONGEST_PREVIEW))
    if run:
        lines += [f"<sub>{link(run)}</sub>"]
    return join_lines(lines)
