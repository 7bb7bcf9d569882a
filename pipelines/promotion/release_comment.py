"""Comment on the pull request of a release file, with the preview of what it would change."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.declarations.release import Release
from pipelines.github import pull_requests
from pipelines.github.gh import Gh
from pipelines.promotion.comments.gate_comment import marker
from pipelines.promotion.preview import cannot_be_applied
from pipelines.targets import Preview, Target


def comment_on_release(
    target: Target,
    release: Release,
    number: int | None,
    preview: Callable[[], Preview] | None,
    render: Callable[[Preview], str],
) -> list[str]:
    """Wait for a preview, comment on the pull request, and return why the preview refuses the change.

    Args:
        target: where the environment lives.
        release: what the release file is to say.
        number: the pull request; None if there is none to comment on, as in a merge queue.
        preview: waits for the preview; None if none was started.
        render: returns the comment.

    Raises:
        MlopsError: `gh` failed.
    """
    if preview is None or number is None:
        return []
    shown = preview()
    pull_requests.comment(
        Gh.find(target.project.root), number, marker(release.model, release.environment), render(shown)
    )
    return [cannot_be_applied(release.environment)] if shown.failed else []
