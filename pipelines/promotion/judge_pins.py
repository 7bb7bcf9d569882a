"""Judge the images that a pull request pins, and comment on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.github import pull_requests
from pipelines.github.gh import Gh
from pipelines.github.git import Git
from pipelines.github.workflow_run import run_url
from pipelines.promotion.attempt import Log
from pipelines.promotion.comments.pin_comment import pin_marker, render_pins
from pipelines.promotion.facts.gather_pin import PinChange, gather_pin
from pipelines.promotion.gates.pins import admits_pin, judge_pin
from pipelines.promotion.preview import cannot_be_applied, start_preview
from pipelines.promotion.verdict import log_verdicts
from pipelines.targets import Target


def judge_pins(
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
        log_verdicts(verdicts, log)
        judged.append((facts, verdicts))
        if not admits_pin(verdicts):
            refused += [f"{change.image} {v.gate}: {v.why}" for v in verdicts if v.outcome != "pass"]
    result = preview() if preview is not None else None
    if number is not None:
        text = render_pins(environment, judged, result.text if result is not None else "", run_url())
        pull_requests.comment(Gh.find(target.project.root), number, pin_marker(environment), text)
    if result is not None and result.failed:
        refused.append(cannot_be_applied(environment))
    return refused
