"""Judge and review a pull request: run the gates and the previews, and comment the results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.github.forge import Forge
from pipelines.github.repository import Repository
from pipelines.github.workflow_run import run_url
from pipelines.promotion.attempt import Log
from pipelines.promotion.comment import Surroundings, marker, render
from pipelines.promotion.facts import Facts
from pipelines.promotion.gates import admits, judge
from pipelines.promotion.gather import Change, gather, proposed
from pipelines.promotion.review import Preview, contract_changes, refuse_broken, render_review
from pipelines.promotion.select import environments_to_deploy
from pipelines.registry import bundles
from pipelines.registry.ledger import Ledger
from pipelines.targets import Target

REVIEW_MARKER = "<!-- mlops:review -->"
MARKS = {"pass": "pass", "fail": "FAIL", "inconclusive": "????"}


def judge_releases(target: Target, base: str, number: int | None, log: Log) -> None:
    """Judge the releases that the checked-out change proposes.

    Args:
        target: where the environments live.
        base: the commit or branch that the change would be merged into.
        number: of the pull request, which gets a comment with the verdicts and a preview; None to only judge.
        log: receives one line for each verdict.

    Raises:
        MlopsError: the change proposes no release, a gate refused one, or a preview failed.
    """
    repository = Repository(target.project.root)
    changes = proposed(repository, base, "HEAD")
    if not changes:
        raise MlopsError("the change proposes no release: expected a change of models/*/releases/*.yaml, found none")
    descriptors = target.descriptors()
    refused: list[str] = []
    for change in changes:
        release = change.release
        preview = start_preview(target, release.environment) if number is not None else None
        facts = gather(target.project, repository, descriptors, change)
        verdicts = judge(facts)
        for verdict in verdicts:
            log(f"{MARKS[verdict.outcome]}  {verdict.gate:<14} {verdict.figure:<28} {verdict.why}")
        if not admits(verdicts):
            refused += [f"{v.gate}: {v.why}" for v in verdicts if v.outcome != "pass"]
        if preview is not None and number is not None:
            shown = preview.finish()
            text = render(facts, verdicts, _surroundings(target.project, descriptors, change, facts, shown))
            Forge.of(target.project.root).comment(number, marker(release.model, release.environment), text)
            if shown.failed:
                refused.append(f"preview: the program of {release.environment} cannot be applied; see the comment")
    if refused:
        raise MlopsError("refused by " + "; ".join(refused))


def review_change(target: Target, base: str, number: int, log: Log) -> None:
    """Comment on a pull request what it changes: data contracts, and a preview of each affected environment.

    Args:
        target: where the environments live.
        base: the commit that the change would be merged into.
        number: of the pull request.
        log: receives one line for each preview.

    Raises:
        MlopsError: a data contract breaks its consumers, or a preview failed.
    """
    repository = Repository(target.project.root)
    changed = repository.changed_files(base, "HEAD")
    contracts = contract_changes(repository, base, changed)
    running = {name: start_preview(target, name) for name in environments_to_deploy(target.project, changed)}
    previews = {name: preview.finish() for name, preview in running.items()}
    Forge.of(target.project.root).comment(number, REVIEW_MARKER, render_review(contracts, previews))
    for name, preview in previews.items():
        log(f"{name}: {preview.summary}")
    refuse_broken(contracts)
    if failed := [name for name, preview in previews.items() if preview.failed]:
        raise MlopsError(f"the preview of {', '.join(failed)} failed", fix="see the comment on the pull request")


@dataclass(frozen=True)
class RunningPreview:
    """A preview that runs in a process, so that the gates can be judged at the same time."""

    process: subprocess.Popen[str]

    def finish(self) -> Preview:
        """Wait for the preview, and return what it printed."""
        text, _ = self.process.communicate()
        failed = self.process.returncode != 0
        return Preview(text + ("\nthe preview failed" if failed else ""), failed)


def start_preview(target: Target, environment: str) -> RunningPreview:
    """Start a preview of an environment."""
    command = [sys.executable, "-m", "pipelines.cli", "preview", "--env", environment, "--target", target.name]
    return RunningPreview(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))


def _surroundings(
    project: Project,
    descriptors: Mapping[str, EnvironmentDescriptor],
    change: Change,
    facts: Facts,
    preview: Preview,
) -> Surroundings:
    """Collect what the comment shows in addition to the verdicts."""
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
