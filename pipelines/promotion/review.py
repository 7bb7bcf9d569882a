"""Review a pull request that is not a release: its contract changes, and previews of what it affects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipelines.declarations.errors import MlopsError
from pipelines.github import pull_requests
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.lineage.gather_facts import gather_live_facts
from pipelines.promotion.attempt import Log
from pipelines.promotion.comments.review_comment import REVIEW_MARKER, render_review
from pipelines.promotion.contract_changes import find_contract_changes, refuse_contract_breaks
from pipelines.promotion.contract_impact import ContractImpact, find_impacts
from pipelines.promotion.facts.gather import NEW_ENVIRONMENT
from pipelines.promotion.preview import start_preview, summarize
from pipelines.promotion.select import environments_to_deploy
from pipelines.targets import Preview, Target

STACK_FILE = re.compile(r"^Pulumi\.(?P<environment>[^/.]+)\.yaml\Z")
"""Path of an environment's configuration."""


def review_change(target: Target, base: str, number: int, log: Log) -> None:
    """Comment on a pull request with its contract changes and a preview of each affected environment.

    Args:
        target: where the environments live.
        base: the commit that the change would be merged into.
        number: the pull request to comment on.
        log: receives one line for each preview.

    Raises:
        MlopsError: a data contract breaks its consumers, a preview failed, or an environment is up whose configuration
            is removed.
    """
    git = Git(target.project.root)
    changed = git.changed_files(base, "HEAD")
    contracts = find_contract_changes(git, base, changed)
    refuse_orphans(target, changed)
    affected = environments_to_deploy(target.project, changed)
    new = [name for name in affected if _is_new(git, base, target, name)]
    running = {name: start_preview(target, name) for name in affected if name not in new}
    previews = {name: preview() for name, preview in running.items()}
    previews |= {
        name: Preview(f"{name} is new, so there is nothing to compare with: {NEW_ENVIRONMENT}") for name in new
    }
    impacts, unknown = _find_impacts(target, git, base, changed) if contracts else ([], "")
    text = render_review(contracts, previews, impacts, unknown)
    pull_requests.comment(Gh.find(target.project.root), number, REVIEW_MARKER, text)
    for name, preview in previews.items():
        log(f"{name}: {summarize(preview)}")
    refuse_contract_breaks(contracts)
    if failed := [name for name, preview in previews.items() if preview.failed]:
        raise MlopsError(f"the preview of {', '.join(failed)} failed", fix="see the comment on the pull request")


def _find_impacts(target: Target, git: Git, base: str, changed: Sequence[str]) -> tuple[list[ContractImpact], str]:
    """Return what the changed contracts mean for their readers, and why live releases are unknown, if they are."""
    facts, unknown = None, ""
    try:
        facts = gather_live_facts(target.project, target.descriptors())
    except MlopsError as error:
        unknown = error.what
    return find_impacts(git, base, changed, facts), unknown


def refuse_orphans(target: Target, changed: Iterable[str]) -> None:
    """Refuse a change that removes the configuration of an environment which is up.

    Args:
        target: where the environments live.
        changed: the files that the change touches.

    Raises:
        MlopsError: an environment is up, but has no configuration any more.
    """
    for name in changed:
        found = STACK_FILE.match(name)
        if found is None or (target.project.root / name).is_file() or not target.outputs(found["environment"]):
            continue
        raise MlopsError(
            f"{name} is removed, but {found['environment']} is up: expected the environment to be removed first",
            fix="follow docs/platform-engineer.md#remove-an-environment",
        )


def _is_new(git: Git, base: str, target: Target, environment: str) -> bool:
    """Return whether a change adds an environment, and it is not up yet."""
    file = target.project.stack_file(environment).name
    return not git.has_file(git.merge_base(base, "HEAD"), file) and not target.outputs(environment)
