"""Comment on any other pull request: contract changes and previews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.declarations.markdown import details, escape, short_digest, table
from pipelines.promotion.comments.gate_comment import LONGEST_PREVIEW, join_lines
from pipelines.promotion.contract_impact import ContractImpact, requirement
from pipelines.promotion.preview import summarize
from pipelines.targets import Preview

REVIEW_MARKER = "<!-- mlops:review -->"
"""Hidden first line of the comment, by which the comment is found again."""

MOST_DIFFERENCES = 40
"""Maximum number of differences of a contract in a comment."""

LONGEST_PREVIEWS = 45_000
"""Maximum total length of the previews in a comment, in characters."""


def render_review(
    contracts: Mapping[str, Sequence[str]],
    previews: Mapping[str, Preview],
    impacts: Sequence[ContractImpact] = (),
    unknown: str = "",
) -> str:
    """Return the comment, shorter than GitHub's limit.

    Args:
        contracts: path of a changed contract → breaking changes.
        previews: environment → preview.
        impacts: the differences of the changed contracts, and who reads what differs.
        unknown: why the live releases could not be read; "" if they could.
    """
    lines = [REVIEW_MARKER, "### What this changes", ""]
    for name, breaks in contracts.items():
        lines.append(
            f"- ❌ {escape(name)}: breaking: {escape('; '.join(breaks))}"
            if breaks
            else f"- ✅ {escape(name)}: breaks no consumer"
        )
    if contracts:
        lines.append("")
    if not previews:
        lines += ["No environment changes.", ""]
    # The summaries come first: join_lines cuts at the end.
    for environment, preview in previews.items():
        mark = "❌ " if preview.failed else ""
        lines += [f"**{escape(environment)}**: {mark}{escape(summarize(preview))}", ""]
    for impact in impacts:
        lines += _impact(impact)
    if unknown and impacts:
        lines += [f"Live releases are unknown: {escape(unknown)}", ""]
    for environment, preview in previews.items():
        longest = min(LONGEST_PREVIEW, LONGEST_PREVIEWS // len(previews))
        lines.append(details(f"Pulumi preview of {environment}", preview.text.rstrip(), longest))
    return join_lines(lines)


def _impact(impact: ContractImpact) -> list[str]:
    """Return the lines about one contract: a table of its differences, and the version that they require."""
    if not impact.differences:
        return []
    title = f"**{escape(impact.dataset)}** {impact.before or 'new'} → {impact.after or 'deleted'}"
    rows = []
    for difference in impact.differences[:MOST_DIFFERENCES]:
        what = f"{difference.column or 'the dataset'}: {difference.key} was {difference.before}, is {difference.after}"
        broken = {"consumers": difference.breaks_consumers, "producers": difference.breaks_producers}
        readers = [
            f"{model} ({', '.join(impact.released.get(model, ())) or 'not released'})"
            for model in impact.readers.get(difference.column, ())
        ]
        live = [
            f"{each.environment}: {each.model} {short_digest(each.bundle)}"
            for each in impact.live.get(difference.column, ())
        ]
        rows.append(
            (what, " and ".join(side for side, found in broken.items() if found), *map("; ".join, (readers, live)))
        )
    if len(impact.differences) > MOST_DIFFERENCES:
        rows.append((f"and {len(impact.differences) - MOST_DIFFERENCES} more: mlops contract diff", "", "", ""))
    head = ("Difference", "Breaks", "Read by (released to)", "Live releases that read it")
    return [title, "", *table(head, rows), "", f"{requirement(impact)[:1].upper()}{requirement(impact)[1:]}.", ""]
