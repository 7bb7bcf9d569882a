"""Comment on the pull request that makes a release file name what is live."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.declarations.markdown import short_digest
from pipelines.declarations.release import Release
from pipelines.promotion.comments.withdrawal_comment import render_change
from pipelines.promotion.verdict import Verdict


def render_correction(release: Release, verdicts: Sequence[Verdict], preview: str, run: str) -> str:
    """Return the comment.

    Args:
        release: the release file after the change; it names the live bundle.
        verdicts: of `judge_correction`.
        preview: the Pulumi preview; empty if there is none.
        run: URL or name of the workflow run.
    """
    act = f"keep the bundle that is live in {release.environment}"
    effect = (
        f"The file names `{short_digest(release.bundle)}`, which is live already. Merging it brings git and "
        f"{release.environment} into agreement, and releases nothing."
    )
    return render_change(release, act, effect, verdicts, preview, run)
