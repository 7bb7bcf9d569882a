"""Judge the withdrawal of a model, and the removal of a release file, and comment on the pull request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.release import Release
from pipelines.github.workflow_run import run_url
from pipelines.promotion.attempt import Log
from pipelines.promotion.comments.withdrawal_comment import render_withdrawal
from pipelines.promotion.live_bundles import live_bundle
from pipelines.promotion.preview import start_preview
from pipelines.promotion.release_changes import ReleaseFileChange
from pipelines.promotion.release_comment import comment_on_release
from pipelines.promotion.verdict import log_verdicts
from pipelines.promotion.withdrawal import WithdrawalFacts, judge_withdrawal, refuse_unannounced_removal
from pipelines.targets import Preview, Target


def judge_absence(
    target: Target, descriptors: Mapping[str, EnvironmentDescriptor], file: ReleaseFileChange, log: Log
) -> list[str]:
    """Return why a release file may not be removed, or lose its bundle; empty if it may."""
    where = f"{file.model} in {file.environment}"
    removed = file.kind == "removal"
    if file.environment not in target.project.environments and target.outputs(file.environment):
        return [
            f"{file.environment} is up, but Pulumi.{file.environment}.yaml does not exist: remove the environment "
            "first, then its files (docs/platform-engineer.md#remove-an-environment)"
        ]
    try:
        refuse_unannounced_removal(
            file.model, file.environment, live_bundle(descriptors, file.environment, file.model), removed=removed
        )
    except MlopsError as error:
        return [f"{error.what}; {error.fix}"]
    log(f"pass  {where}: {'nothing is live, so the file may go' if removed else 'releases nothing'}")
    return []


def judge_withdrawal_change(
    target: Target,
    descriptors: Mapping[str, EnvironmentDescriptor],
    release: Release,
    changed: tuple[str, ...],
    number: int | None,
    log: Log,
) -> list[str]:
    """Judge a withdrawal and comment on it. Return why it is refused; empty if it is not."""
    preview = start_preview(target, release.environment) if number is not None else None
    facts = WithdrawalFacts(
        release=release,
        changed_files=changed,
        live=live_bundle(descriptors, release.environment, release.model),
        freezes=target.project.stack(release.environment).config.environment.freezes,
        now=datetime.now(UTC),
    )
    verdicts = judge_withdrawal(facts)
    log_verdicts(verdicts, log)
    refused = [f"{verdict.gate}: {verdict.why}" for verdict in verdicts if verdict.outcome != "pass"]

    def text(shown: Preview) -> str:
        return render_withdrawal(release, verdicts, shown.text, run_url())

    return refused + comment_on_release(target, release, number, preview, text)
