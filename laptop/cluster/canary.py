"""The decisions of a canary rollout, apart from their effects: facts in, the next step out.

They follow Argo Rollouts 1.8 (argoproj.github.io/rollouts: canary, rollback, analysis) for the part of its
specification that the small cluster runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laptop.cluster.durations import seconds_of

Step = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """What is known of a rollout when its next step is decided.

    Attributes:
        steps: `spec.strategy.canary.steps`.
        index: the step being worked at; `len(steps)` when all are done.
        replicas: pods wanted.
        new_available: available pods of the newest template.
        stable_available: available pods of the template that the traffic trusts.
        first: nothing has ever been stable.
        settled: the newest template is the stable one.
        aborted: the update was given up.
        paused: `spec.paused`.
        pausing: seconds that the present pause has lasted, or None when it has not begun.
        time_scale: a pause lasts this share of what it declares.
        analysis: the phase of the present analysis step's run, or "" when there is none yet.
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
class Decision:
    """What to do next.

    Attributes:
        index: the step that is worked at from now on.
        new_replicas: pods of the newest template.
        stable_replicas: pods of the stable template.
        weight: percent of the traffic for the newest template; None leaves it as it is.
        phase: Healthy, Progressing, Paused or Degraded.
        message: why, in Argo's words.
        pause: a pause is to begin, or goes on; its reason in Argo's words.
        wait: seconds until the pause ends; None for a pause without end.
        analyse: the present analysis step needs a run.
        abort: the update is to be given up; why.
        promote: the newest template becomes the stable one.
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
    """The weight that the steps before `index` have set."""
    set_before = [step["setWeight"] for step in steps[:index] if "setWeight" in step]
    return int(set_before[-1]) if set_before else 0


def pods_for(weight: int, replicas: int) -> int:
    """How many new pods a weight in percent needs, rounded up so that a weight above 0 has one."""
    return math.ceil(replicas * weight / 100)


def decide(facts: Facts) -> Decision:
    """The next step of a rollout."""
    full = facts.replicas
    if facts.settled or facts.first:
        return _settled(facts)
    if facts.aborted:
        return Decision(0, 0, full, 0, "Degraded", "RolloutAborted")
    if facts.index >= len(facts.steps):
        return _complete(facts)
    step = facts.steps[facts.index]
    before = weight_before(facts.steps, facts.index)
    if "setWeight" in step:
        weight = int(step["setWeight"])
        new = pods_for(weight, full)
        if facts.new_available < new:
            # Fewer pods only once their traffic is gone, more before it comes.
            now = max(new, pods_for(before, full))
            return _progressing(facts, now, None, "more replicas need to be updated")
        if facts.paused:
            return Decision(facts.index, new, full, None, "Paused", "manually paused")
        return Decision(facts.index + 1, new, full, weight, "Progressing", "updating traffic")
    new = pods_for(before, full)
    if facts.new_available < new:
        return _progressing(facts, new, before, "more replicas need to be updated")
    if "pause" in step:
        return _pause(facts, step["pause"] or {}, new, before)
    return _analyse(facts, new, before)


def _settled(facts: Facts) -> Decision:
    done = len(facts.steps)
    if facts.new_available < facts.replicas:
        message = "waiting for all pods to be available"
        return Decision(done, facts.replicas, facts.replicas, 0, "Progressing", message)
    return Decision(done, facts.replicas, facts.replicas, 0, "Healthy", promote=facts.first)


def _complete(facts: Facts) -> Decision:
    done, full = len(facts.steps), facts.replicas
    if facts.new_available < full:
        weight = weight_before(facts.steps, done)
        return Decision(done, full, full, weight, "Progressing", "more replicas need to be updated")
    return Decision(done, full, full, 100, "Progressing", "updating traffic", promote=True)


def _progressing(facts: Facts, new: int, weight: int | None, message: str) -> Decision:
    return Decision(facts.index, new, facts.replicas, weight, "Progressing", message)


def _pause(facts: Facts, pause: Mapping[str, Any], new: int, weight: int) -> Decision:
    reason = "CanaryPauseStep"
    wait = None
    if "duration" in pause and not facts.paused:
        wait = seconds_of(pause["duration"]) * facts.time_scale - (facts.pausing or 0.0)
        if facts.pausing is not None and wait <= 0:
            return Decision(facts.index + 1, new, facts.replicas, weight, "Progressing", "pause is over")
    return Decision(facts.index, new, facts.replicas, weight, "Paused", reason, pause=reason, wait=wait)


def _analyse(facts: Facts, new: int, weight: int) -> Decision:
    full, index = facts.replicas, facts.index
    if facts.paused:
        return Decision(index, new, full, weight, "Paused", "manually paused")
    if facts.analysis == "":
        return Decision(index, new, full, weight, "Progressing", "analysis step", analyse=True)
    if facts.analysis == "Successful":
        return Decision(index + 1, new, full, weight, "Progressing", "analysis step completed")
    if facts.analysis in ("Failed", "Error"):
        why = f"Step-based analysis phase error/failed: {facts.analysis}"
        return Decision(index, new, full, weight, "Degraded", why, abort=why)
    if facts.analysis == "Inconclusive":
        reason = "InconclusiveAnalysisRun"
        return Decision(index, new, full, weight, "Paused", reason, pause=reason)
    return Decision(index, new, full, weight, "Progressing", "analysis step")
