"""Judge releases of bundles and corrections of release files, and comment on the pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.git import Git
from pipelines.github.workflow_run import run_url
from pipelines.promotion.attempt import Log
from pipelines.promotion.comments.canary_note import LiveTraffic, canary_note
from pipelines.promotion.comments.correction_comment import render_correction
from pipelines.promotion.comments.gate_comment import CommentContext, render
from pipelines.promotion.correction import CorrectionFacts, judge_correction
from pipelines.promotion.facts import Facts
from pipelines.promotion.facts.gather import ReleaseChange, gather
from pipelines.promotion.facts.served import count_requests
from pipelines.promotion.gates import admits, judge
from pipelines.promotion.live_bundles import live_bundle
from pipelines.promotion.preview import start_preview
from pipelines.promotion.release_comment import comment_on_release
from pipelines.promotion.verdict import log_verdicts
from pipelines.registry import bundles
from pipelines.registry.bundle_quarantine import quarantined
from pipelines.registry.ledger import Ledger
from pipelines.targets import Preview, Target

_TRAFFIC_TIME = timedelta(days=1)
"""Time over which the rate of an endpoint's requests is measured."""


def judge_releases(
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
        if release.bundle == live_bundle(descriptors, release.environment, release.model):
            refused += _judge_correction(target, descriptors, change, number, log)
        else:
            refused += _judge_release(target, git, descriptors, change, number, log)
    return refused


def _judge_release(
    target: Target,
    git: Git,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: ReleaseChange,
    number: int | None,
    log: Log,
) -> list[str]:
    release = change.release
    preview = start_preview(target, release.environment) if number is not None else None
    facts = gather(target.project, git, descriptors, change)
    verdicts = judge(facts)
    log_verdicts(verdicts, log)
    refused = [] if admits(verdicts) else [f"{v.gate}: {v.why}" for v in verdicts if v.outcome != "pass"]

    def text(shown: Preview) -> str:
        return render(facts, verdicts, _surroundings(target.project, descriptors, change, facts, shown))

    return refused + comment_on_release(target, release, number, preview, text)


def _judge_correction(
    target: Target,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: ReleaseChange,
    number: int | None,
    log: Log,
) -> list[str]:
    """Judge a release file that is to name what is live, comment on it, and return why it is refused."""
    release = change.release
    preview = start_preview(target, release.environment) if number is not None else None
    blocked = quarantined(descriptors[release.environment], release.model)
    verdicts = judge_correction(CorrectionFacts(release, change.files, blocked))
    log_verdicts(verdicts, log)
    refused = [f"{verdict.gate}: {verdict.why}" for verdict in verdicts if verdict.outcome != "pass"]

    def text(shown: Preview) -> str:
        return render_correction(release, verdicts, shown.text, run_url())

    return refused + comment_on_release(target, release, number, preview, text)


def _surroundings(
    project: Project,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: ReleaseChange,
    facts: Facts,
    preview: Preview,
) -> CommentContext:
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
    return CommentContext(
        preview=preview.text,
        rollback=head.event.live if head is not None else None,
        sizes=(live[0], candidate[0]),
        datasets=(live[1], candidate[1]),
        canary=_canary_note(project, here, release.model, facts.live),
        run=run_url(),
    )


def _canary_note(project: Project, here: EnvironmentDescriptor, model: str, live: str | None) -> list[str]:
    """Return what the canary checks need at the present rate of requests; empty if nothing is live."""
    if live is None:
        return []
    traffic = None
    with suppress(MlopsError):  # the log cannot be read
        served = count_requests(here, model, live, datetime.now(UTC) - _TRAFFIC_TIME)
        traffic = LiveTraffic(served.requests, served.errors, _TRAFFIC_TIME.total_seconds())
    pauses = project.stack(here.name).config.environment.canary.on_inconclusive == "pause"
    return canary_note(project.model(model).serving, here.name, pauses, traffic)


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
