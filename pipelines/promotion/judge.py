"""Judge a pull request: its changes of release files, and the images that it pins."""

from __future__ import annotations

from pipelines.declarations.errors import MlopsError
from pipelines.github.git import Git
from pipelines.promotion.attempt import Log
from pipelines.promotion.facts.gather import read_changes
from pipelines.promotion.facts.gather_pin import read_pin_changes
from pipelines.promotion.judge_pins import judge_pins
from pipelines.promotion.judge_releases import judge_releases
from pipelines.promotion.judge_withdrawals import judge_absence, judge_withdrawal_change
from pipelines.promotion.release_changes import read_release_changes
from pipelines.targets import Target


def judge_change(target: Target, base: str, number: int | None, log: Log) -> None:
    """Judge the image pins that the checked-out change proposes, and what it does to releases.

    A release of a bundle is judged by every gate; a correction or a withdrawal by those that apply. A release file that
    names no bundle releases nothing, and may be added. No change may take a live model away without withdrawing it.

    Args:
        target: where the environments live.
        base: the commit or branch that the change would be merged into.
        number: the pull request to comment on with the verdicts and a preview; None to judge without a comment.
        log: receives one line for each verdict.

    Raises:
        MlopsError: the change proposes nothing to judge, a gate refused, a preview failed, or a model is live that the
            change takes away.
    """
    git = Git(target.project.root)
    files, pins = read_release_changes(git, base, "HEAD"), read_pin_changes(git, base, "HEAD")
    if not files and not pins:
        raise MlopsError(
            "the change proposes nothing to judge: expected a change of models/*/releases/*.yaml, or of the images in "
            "Pulumi.*.yaml, found none"
        )
    descriptors = target.descriptors()
    refused: list[str] = []
    for file in files:
        if file.kind in ("nothing", "removal"):
            refused += judge_absence(target, descriptors, file, log)
        elif file.kind == "withdrawal" and file.after is not None:
            changed = git.changed_files(base, "HEAD")
            refused += judge_withdrawal_change(target, descriptors, file.after, changed, number, log)
    refused += judge_releases(target, git, descriptors, read_changes(git, base, "HEAD"), number, log)
    for environment in dict.fromkeys(change.environment for change in pins):
        own = [change for change in pins if change.environment == environment]
        refused += judge_pins(target, git, descriptors, environment, own, number, log)
    if refused:
        raise MlopsError("refused: " + "; ".join(refused))
