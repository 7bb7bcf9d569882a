"""Decisions of a canary rollout, as pure functions.

They follow the part of Argo Rollouts 1.8 that the cluster runs (argoproj.github.io/rollouts: canary, rollback,
analysis).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.cluster.durations import seconds_of

Step = Mapping[str, Any]


@dataclass(frozen=True)
class CanaryFacts:
    """Facts from which the next step of a rollout is decided.

    Attributes:
        steps: `spec.strategy.canary.steps`.
        index: current step; `len(steps)` if all are done.
        replicas: number of pods wanted.
        new_available: available pods of the newest template.
        stable_available: available pods of the stable template.
        first: no template has been stable yet.
        settled: the newest template is the stable one.
        aborted: the update was aborted.
        paused: `spec.paused`.
        pausing: seconds that the current pause has lasted, or None if it has not begun.
        time_scale: factor applied to declared pauses.
        analysis: phase of the current analysis step's run, or "" if there is none yet.
    """

    steps: Sequence[Step]
    index: int
    replicas: int
    new_available: int
    stable_available: int
    first: bool = False
    settled: bool = False
    aborted: bool = False
    paused: bool = False
    pausing: float | None = None
    time_scale: float = 1.0
    analysis: str = ""


@dataclass(frozen=True)
class CanaryDecision:
    """Next step of a rollout.

    Attributes:
        index: current step from now on.
        new_replicas: pods of the newest template.
        stable_replicas: pods of the stable template.
        weight: percent of the traffic for the newest template; None leaves it unchanged.
        phase: Healthy, Progressing, Paused or Degraded.
        message: reason, in Argo's words.
        pause: reason of a pause that begins or goes on, in Argo's words.
        wait: seconds until the pause ends; None for an indefinite pause.
        analyse: True to start the run of the current analysis step.
        abort: reason to abort the update.
        promote: True to make the newest template the stable one.
    """

    index: int
    new_replicas: int
    stable_replicas: int
    weight: int | None
    phase: str
    message: str = ""
    pause: str = ""
    wait: float | None = None
    analyse: bool = False
    abort: str = ""
    promote: bool = False


def weight_before(steps: Sequence[Step], index: int) -> int:
    """Return the weight that the steps before `index` set, in percent."""
    set_before = [step["setWeight"] for step in steps[:index] if "setWeight" in step]
    return int(set_before[-1]) if set_before else 0


def pods_for(weight: int, replicas: int) -> int:
    """Return the number of new pods for a weight in percent, rounded up: a weight above 0 has at least one."""
    return math.ceil(replicas * weight / 100)


def decide(facts: CanaryFacts) -> CanaryDecision:
    """Return the next step of a rollout."""
    full = facts.replicas
    if facts.settled or facts.first:
        return _settled(facts)
    if facts.aborted:
        return CanaryDecision(0, 0, full, 0, "Degraded", "RolloutAborted")
    if facts.index >= len(facts.steps):
        return _complete(facts)
    step = facts.steps[facts.index]
    before = weight_before(facts.steps, facts.index)
    if "setWeight" in step:
        weight = int(step["setWeight"])
        new = pods_for(weight, full)
        if facts.new_available < new:
            # Remove pods only after their traffic has moved away; add pods before traffic moves to them.
            now = max(new, pods_for(before, full))
            return _progressing(facts, now, None, "more replicas need to be updated")
        if facts.paused:
            return CanaryDecision(facts.index, new, full, None, "Paused", "manually paused")
        return CanaryDecision(facts.index + 1, new, full, weight, "Progressing", "updating traffic")
    new = pods_for(before, full)
    if facts.new_available < new:
        return _progressing(facts, new, before, "more replicas need to be updated")
    if "pause" in step:
        return _pause(facts, step["pause"] or {}, new, before)
    return _analyse(facts, new, before)


def _settled(facts: CanaryFacts) -> CanaryDecision:
    done = len(facts.steps)
    if facts.new_available < facts.replicas:
        message = "waiting for all pods to be available"
        return CanaryDecision(done, facts.replicas, facts.replicas, 0, "Progressing", message)
    return CanaryDecision(done, facts.replicas, facts.replicas, 0, "Healthy", promote=facts.first)


def _complete(facts: CanaryFacts) -> CanaryDecision:
    done, full = len(facts.steps), facts.replicas
    if facts.new_available < full:
        weight = weight_before(facts.steps, done)
        return CanaryDecision(done, full, full, weight, "Progressing", "more replicas need to be updated")
    return CanaryDecision(done, full, full, 100, "Progressing", "updating traffic", promote=True)


def _progressing(facts: CanaryFacts, new: int, weight: int | None, message: str) -> CanaryDecision:
    return CanaryDecision(facts.index, new, facts.replicas, weight, "Progressing", message)


def _pause(facts: CanaryFacts, pause: Mapping[str, Any], new: int, weight: int) -> CanaryDecision:
    reason = "CanaryPauseStep"
    wait = None
    if "duration" in pause and not facts.paused:
        wait = seconds_of(pause["duration"]) * facts.time_scale - (facts.pausing or 0.0)
        if facts.pausing is not None and wait <= 0:
            return CanaryDecision(facts.index + 1, new, facts.replicas, weight, "Progressing", "pause is over")
    return CanaryDecision(facts.index, new, facts.replicas, weight, "Paused", reason, pause=reason, wait=wait)


def _analyse(facts: CanaryFacts, new: int, weight: int) -> CanaryDecision:
    full, index = facts.replicas, facts.index
    if facts.paused:
        return CanaryDecision(index, new, full, weight, "Paused", "manually paused")
    if facts.analysis == "":
        return CanaryDecision(index, new, full, weight, "Progressing", "analysis step", analyse=True)
    if facts.analysis == "Successful":
        return CanaryDecision(index + 1, new, full, weight, "Progressing", "analysis step completed")
    if facts.analysis in ("Failed", "Error"):
        why = f"Step-based analysis phase error/failed: {facts.analysis}"
        return CanaryDecision(index, new, full, weight, "Degraded", why, abort=why)
    if facts.analysis == "Inconclusive":
        reason = "InconclusiveAnalysisRun"
        return CanaryDecision(index, new, full, weight, "Paused", reason, pause=reason)
    return CanaryDecision(index, new, full, weight, "Progressing", "analysis step")
