"""Comment on any other pull request: contract changes and previews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.declarations.markdown import details, escape
from pipelines.promotion.comments.gate_comment import LONGEST_PREVIEW, join_lines
from pipelines.promotion.preview import summarize
from pipelines.targets import Preview

REVIEW_MARKER = "<!-- mlops:review -->"
"""Hidden first line of the comment, by which the comment is found again."""

LONGEST_PREVIEWS = 45_000
"""Maximum total length of the previews in a comment, in characters."""


def render_review(contracts: Mapping[str, Sequence[str]], previews: Mapping[str, Preview]) -> str:
    """Return the comment, shorter than GitHub's limit.

    Args:
        contracts: path of a changed contract → breaking changes.
        previews: environment → preview.
    """
    lines = [REVIEW_MARKER, "### What this changes", ""]
    for name, breaks in contracts.items():
        lines.append(
            f"- ❌ {escape(name)}: breaking: {escape('; '.join(breaks))}"
            if breaks
            else f"- ✅ {escape(name)}: no breaking change"
        )
    if contracts:
        lines.append("")
    if not previews:
        lines += ["No environment changes.", ""]
    # The summaries come first: join_lines cuts at the end.
    for environment, preview in previews.items():
        mark = "❌ " if preview.failed else ""
        lines += [f"**{escape(environment)}**: {mark}{escape(summarize(preview))}", ""]
    for environment, preview in previews.items():
        longest = min(LONGEST_PREVIEW, LONGEST_PREVIEWS // len(previews))
        lines.append(details(f"Pulumi preview of {environment}", preview.text.rstrip(), longest))
    return join_lines(lines)
