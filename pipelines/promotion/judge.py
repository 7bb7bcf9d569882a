"""Judge and review a pull request: run the gates and the previews, and post the results as a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.declarations.release import Release
from pipelines.github import pull_requests
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.github.workflow_run import run_url
from pipelines.promotion.attempt import Log
from pipelines.promotion.comments.gate_comment import Surroundings, marker, render
from pipelines.promotion.comments.pin_comment import pin_marker, render_pins
from pipelines.promotion.comments.review_comment import REVIEW_MARKER, render_review
from pipelines.promotion.comments.withdrawal_comment import render_withdrawal
from pipelines.promotion.contract_changes import find_contract_changes, refuse_contract_breaks
from pipelines.promotion.facts import Facts
from pipelines.promotion.facts.gather import NEW_ENVIRONMENT, ReleaseChange, gather, read_changes
from pipelines.promotion.facts.gather_pin import PinChange, gather_pin, read_pin_changes
from pipelines.promotion.gates import admits, judge
from pipelines.promotion.gates.pins import admits_pin, judge_pin
from pipelines.promotion.preview import start_preview, summarize
from pipelines.promotion.release_changes import ReleaseFileChange, read_release_changes
from pipelines.promotion.select import environments_to_deploy
from pipelines.promotion.verdict import Verdict
from pipelines.promotion.withdrawal import WithdrawalFacts, judge_withdrawal, live_bundle, refuse_untold
from pipelines.registry import bundles
from pipelines.registry.ledger import Ledger
from pipelines.targets import Preview, Target

STACK_FILE = re.compile(r"^Pulumi\.(?P<environment>[^/.]+)\.yaml$")
"""Path of an environment's configuration."""

MARKS = {"pass": "pass", "fail": "FAIL", "inconclusive": "????"}


def judge_change(target: Target, base: str, number: int | None, log: Log) -> None:
    """Judge the image pins that the checked-out change proposes, and what it does to releases.

    A release of a bundle is judged by every gate; a withdrawal by those that apply. A release file that names no bundle
    releases nothing, and may be added. No change may take a live model away without withdrawing it.

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
            refused += _judge_absence(target, descriptors, file, log)
        elif file.kind == "withdrawal" and file.after is not None:
            refused += _judge_withdrawal(target, descriptors, file.after, git.changed_files(base, "HEAD"), number, log)
    refused += _judge_releases(target, git, descriptors, read_changes(git, base, "HEAD"), number, log)
    for environment in dict.fromkeys(change.environment for change in pins):
        own = [change for change in pins if change.environment == environment]
        refused += _judge_pins(target, git, descriptors, environment, own, number, log)
    if refused:
        raise MlopsError("refused by " + "; ".join(refused))


def _judge_releases(
    target: Target,
    git: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    changes: Sequence[ReleaseChange],
    number: int | None,
    log: Log,
) -> list[str]:
    """Judge releases of bundles, comment on each, and return why they are refused."""
    refused: list[str] = []
    for change in changes:
        release = change.release
        preview = start_preview(target, release.environment) if number is not None else None
        facts = gather(target.project, git, descriptors, change)
        verdicts = judge(facts)
        _log_verdicts(verdicts, log)
        if not admits(verdicts):
            refused += [f"{v.gate}: {v.why}" for v in verdicts if v.outcome != "pass"]
        if preview is not None and number is not None:
            shown = preview()
            text = render(facts, verdicts, _surroundings(target.project, descriptors, change, facts, shown))
            pull_requests.comment(
                Gh.find(target.project.root), number, marker(release.model, release.environment), text
            )
            if shown.failed:
                refused.append(_cannot_be_applied(release.environment))
    return refused


def _judge_pins(
    target: Target,
    git: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    environment: str,
    changes: Sequence[PinChange],
    number: int | None,
    log: Log,
) -> list[str]:
    """Judge the images that an environment is to pin, comment on them, and return why they are refused."""
    refused: list[str] = []
    # A preview shows what would be created in an environment that was never brought up; it is long and of no use.
    shown = number is not None and environment in descriptors
    preview = start_preview(target, environment) if shown else None
    judged = []
    for change in changes:
        facts = gather_pin(target.project, git, descriptors, change)
        verdicts = judge_pin(facts)
        log(f"{change.image} image in {environment}:")
        _log_verdicts(verdicts, log)
        judged.append((facts, verdicts))
        if not admits_pin(verdicts):
            refused += [f"{change.image} {v.gate}: {v.why}" for v in verdicts if v.outcome != "pass"]
    result = preview() if preview is not None else None
    if number is not None:
        text = render_pins(environment, judged, result.text if result is not None else "", run_url())
        pull_requests.comment(Gh.find(target.project.root), number, pin_marker(environment), text)
    if result is not None and result.failed:
        refused.append(_cannot_be_applied(environment))
    return refused


def _log_verdicts(verdicts: Sequence[Verdict], log: Log) -> None:
    for verdict in verdicts:
        log(f"{MARKS[verdict.outcome]}  {verdict.gate:<15} {verdict.figure:<28} {verdict.why}")


def _cannot_be_applied(environment: str) -> str:
    return f"preview: the program of {environment} cannot be applied; see the comment"


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


def _judge_absence(
    target: Target, descriptors: Mapping[str, EnvironmentDescriptor], file: ReleaseFileChange, log: Log
) -> list[str]:
    """Return why a release file may not be removed, or may not name no bundle; empty if it may."""
    where = f"{file.model} in {file.environment}"
    removed = file.kind == "removal"
    if file.environment not in target.project.environments and target.outputs(file.environment):
        return [
            f"{file.environment} is up, but Pulumi.{file.environment}.yaml does not exist: remove the environment "
            "first, then its files (docs/platform-engineer.md#remove-an-environment)"
        ]
    try:
        refuse_untold(
            file.model, file.environment, live_bundle(descriptors, file.environment, file.model), removed=removed
        )
    except MlopsError as error:
        return [f"{error.what}; {error.fix}"]
    log(f"pass  {where}: {'nothing is live, so the file may go' if removed else 'releases nothing'}")
    return []


def _judge_withdrawal(
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
    _log_verdicts(verdicts, log)
    refused = [f"{verdict.gate}: {verdict.why}" for verdict in verdicts if verdict.outcome != "pass"]
    if preview is not None and number is not None:
        shown = preview()
        text = render_withdrawal(release, verdicts, shown.text, run_url())
        pull_requests.comment(Gh.find(target.project.root), number, marker(release.model, release.environment), text)
        if shown.failed:
            refused.append(_cannot_be_applied(release.environment))
    return refused


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
    pull_requests.comment(Gh.find(target.project.root), number, REVIEW_MARKER, render_review(contracts, previews))
    for name, preview in previews.items():
        log(f"{name}: {summarize(preview)}")
    refuse_contract_breaks(contracts)
    if failed := [name for name, preview in previews.items() if preview.failed]:
        raise MlopsError(f"the preview of {', '.join(failed)} failed", fix="see the comment on the pull request")


def _surroundings(
    project: Project,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: ReleaseChange,
    facts: Facts,
    preview: Preview,
) -> Surroundings:
    """Collect the content of the comment besides the verdicts."""
    release = change.release
    here = descriptors[release.environment]
    previous = project.stack(release.environment).config.environment.promotes_from
    source = descriptors[previous or release.environment]
    head = Ledger(here, release.model).head()
    live, candidate = (
        _describe_bundle(here, release.model, facts.live),
        _describe_bundle(source, release.model, release.bundle),
    )
    return Surroundings(
        preview=preview.text,
        rollback=head.event.live if head is not None else None,
        sizes=(live[0], candidate[0]),
        datasets=(live[1], candidate[1]),
        run=run_url(),
    )


def _describe_bundle(descriptor: EnvironmentDescriptor, model: str, digest: str | None) -> tuple[int | None, str]:
    """Return the size of a bundle in bytes and its dataset version in words; (None, "") if it cannot be read."""
    if digest is None:
        return None, ""
    try:
        manifest = bundles.fetch(descriptor, model, digest, []).manifest
    except MlopsError:
        return None, ""
    dataset = manifest.dataset
    size = sum(file.size for file in manifest.files.values())
    return size, f"{dataset.dataset} @ {dataset.snapshot} ({dataset.rows} rows)"
