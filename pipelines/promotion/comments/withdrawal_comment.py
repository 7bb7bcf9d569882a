"""Comment on the pull request that withdraws a model."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.declarations.markdown import details, escape, link, short_digest, table
from pipelines.declarations.release import Release
from pipelines.promotion.comments.gate_comment import LONGEST_PREVIEW, MARKS, NOTE, join_lines, marker, row
from pipelines.promotion.verdict import Verdict


def render_withdrawal(release: Release, verdicts: Sequence[Verdict], preview: str, run: str) -> str:
    """Return the comment.

    Args:
        release: the release file after the change; `replaces` is the bundle that it withdraws.
        verdicts: of `judge_withdrawal`.
        preview: the Pulumi preview; empty if there is none.
        run: URL or name of the workflow run.
    """
    act = f"be withdrawn from {release.environment}"
    effect = f"Withdraws `{short_digest(release.replaces)}`. **The endpoint is removed**; its registry and ledger stay."
    return render_change(release, act, effect, verdicts, preview, run)


def render_change(release: Release, act: str, effect: str, verdicts: Sequence[Verdict], preview: str, run: str) -> str:
    """Return the comment on a change of a release file that releases no other bundle.

    Args:
        release: the release file after the change.
        act: what the model may or may not do, as words after "may".
        effect: what merging it does, in Markdown.
        verdicts: the verdicts on it.
        preview: the Pulumi preview; empty if there is none.
        run: URL or name of the workflow run.
    """
    refused = [verdict for verdict in verdicts if verdict.outcome != "pass"]
    named = f": {', '.join(verdict.gate for verdict in refused)}" if refused else ""
    lines = [
        marker(release.model, release.environment),
        f"### {MARKS['fail' if refused else 'pass']} {release.model} {'may not' if refused else 'may'} {act}{named}",
        "",
        NOTE,
        "",
        effect,
        "",
        *table(("Gate", "", "Found", "Bound", "Why"), map(row, verdicts)),
        "",
    ]
    if refused:
        lines += ["**What to do**", "", *(f"- {verdict.gate}: {escape(verdict.fix)}" for verdict in refused), ""]
    if preview:
        lines.append(details("Pulumi preview", preview, LONGEST_PREVIEW))
    if run:
        lines.append(f"<sub>{link(run)}</sub>")
    return join_lines(lines)
