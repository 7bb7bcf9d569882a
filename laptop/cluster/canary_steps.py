"""Decisions of a canary rollout, as pure functions: numbers of pods, traffic weights, and when a step is complete.

They follow Argo Rollouts 1.9 with an AWS load balancer, and are checked against its controller by `make conformance`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FULL = 100
"""Weight of all the traffic, in percent."""

Step = Mapping[str, Any]


@dataclass(frozen=True)
class PodCounts:
    """Pods of one ReplicaSet.

    Attributes:
        hash: pod template hash.
        wanted: `spec.replicas`.
        created: number of pods.
        available: number of available pods.
    """

    hash: str
    wanted: int = 0
    created: int = 0
    available: int = 0


@dataclass(frozen=True)
class CanaryFacts:
    """Facts about a rollout from which its next actions are decided.

    Attributes:
        canary: `spec.strategy.canary`.
        replicas: number of pods wanted.
        new: pods of the newest template.
        stable: pods of the stable template; None before the first template is stable.
        status: `status` of the rollout.
        in_rollback_window: the newest template is an earlier one, within `spec.rollbackWindow` of the stable one.
        aborted: the update was aborted, or is being aborted now.
    """

    canary: Mapping[str, Any]
    replicas: int
    new: PodCounts
    stable: PodCounts | None
    status: Mapping[str, Any] = field(default_factory=dict)
    in_rollback_window: bool = False
    aborted: bool = False

    @property
    def steps(self) -> Sequence[Step]:
        """Steps of the canary."""
        return self.canary.get("steps") or ()

    @property
    def index(self) -> int:
        """Index of the current step; the number of steps if all are complete."""
        return int(self.status.get("currentStepIndex") or 0)

    @property
    def step(self) -> Step | None:
        """Current step, or None if all are complete."""
        return self.steps[self.index] if self.index < len(self.steps) else None

    @property
    def is_promoted(self) -> bool:
        """True if the newest observed template is the stable one."""
        return bool(self.status.get("stableRS", "") == self.status.get("currentPodHash", ""))

    @property
    def is_full(self) -> bool:
        """True if the newest template gets all pods, regardless of the steps."""
        return bool(self.status.get("promoteFull")) or not self.status.get("stableRS") or self.is_promoted

    @property
    def scales_stable(self) -> bool:
        """True if the stable pods scale with their traffic (`dynamicStableScale`)."""
        return bool(self.canary.get("dynamicStableScale"))

    @property
    def weights(self) -> tuple[int, int] | None:
        """Weights of the canary and of the stable template in the status, or None before they are set."""
        return weights_of(self.status)


def weights_of(status: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the canary's and the stable weight of a status, or None before they are set."""
    found = (status.get("canary") or {}).get("weights")
    return (int(found["canary"]["weight"]), int(found["stable"]["weight"])) if found else None


def pods_for(weight: int, replicas: int) -> int:
    """Return the number of pods for a weight in percent, rounded up: a weight above 0 has at least one."""
    return math.ceil(replicas * weight / FULL)


def step_weight(facts: CanaryFacts) -> int:
    """Return the weight of the newest `setWeight` up to the current step, in percent."""
    if facts.status.get("abort"):
        return 0
    if facts.step is None:
        return FULL
    return _last_weight(facts.steps[: facts.index + 1])


def _last_weight(steps: Sequence[Step]) -> int:
    return next((int(step["setWeight"]) for step in reversed(steps) if "setWeight" in step), 0)


def _canary_weight(facts: CanaryFacts) -> int:
    """Return the weight that the canary pods are scaled for, in percent."""
    if not (facts.status.get("abort") and facts.scales_stable and facts.stable is not None):
        return step_weight(facts)
    # Go back through the steps, as fast as stable pods become available.
    left = max(facts.replicas - facts.stable.available, facts.new.available)
    for step in reversed(facts.steps):
        if "setWeight" in step and pods_for(step["setWeight"], facts.replicas) < left:
            return int(step["setWeight"])
    return 0


def _set_scale(facts: CanaryFacts) -> Mapping[str, Any] | None:
    """Return the `setCanaryScale` in force, or None."""
    keeps_canary = facts.canary.get("abortScaleDownDelaySeconds") == 0
    if facts.step is None or (facts.status.get("abort") and not keeps_canary):
        return None
    for step in reversed(facts.steps[: facts.index + 1]):
        if "setCanaryScale" in step:
            scale: Mapping[str, Any] = step["setCanaryScale"]
            return None if scale.get("matchTrafficWeight") else scale
    return None


def pod_counts(facts: CanaryFacts, weights: tuple[int, int] | None) -> tuple[int, int]:
    """Return the numbers of canary and stable pods to run.

    Args:
        facts: the rollout.
        weights: canary and stable weight in force, in percent; stable pods are not removed before their traffic.
    """
    weight, replicas = _canary_weight(facts), None
    if facts.is_full:
        weight = FULL
    elif (scale := _set_scale(facts)) is not None:
        if scale.get("replicas") is not None:
            weight, replicas = 0, int(scale["replicas"])
        elif scale.get("weight") is not None:
            weight = int(scale["weight"])
    canary = _at_least(facts, pods_for(weight, facts.replicas)) if replicas is None else replicas
    if not facts.scales_stable:
        return canary, facts.replicas
    stable = pods_for(FULL - weight, facts.replicas)
    if weights is not None:
        stable = max(stable, pods_for(weights[1], facts.replicas))
        if facts.status.get("abort"):
            canary = max(canary, pods_for(weights[0], facts.replicas))
    return _at_least(facts, canary), _at_least(facts, stable)


def _at_least(facts: CanaryFacts, pods: int) -> int:
    return max(pods, int(facts.canary.get("minPodsPerReplicaSet") or 0)) if pods else 0


def has_pods(facts: CanaryFacts, weights: tuple[int, int] | None) -> bool:
    """Return whether the pods are there that the current step asks for."""
    canary, stable = pod_counts(facts, weights)
    if not facts.new.wanted == facts.new.available == canary:
        return False
    return facts.scales_stable or (facts.stable is not None and facts.stable.wanted == facts.stable.created == stable)


@dataclass(frozen=True)
class Traffic:
    """Traffic of a rollout.

    Attributes:
        weight: percent of the traffic for the canary Service.
        hash: template hash that the canary Service stands for.
    """

    weight: int
    hash: str


def traffic(facts: CanaryFacts) -> Traffic | None:
    """Return the traffic to set now, or None to leave it because the stable pods cannot take their share yet."""
    hash_ = facts.new.hash
    if (previous := returning_from(facts)) is not None:
        weight, hash_ = _weight_on_return(facts), previous
    elif facts.is_promoted:
        weight = 0
    elif facts.aborted:
        weight = _weight_on_return(facts)
    elif facts.new.available == 0:
        weight = 0
    elif facts.status.get("promoteFull"):
        # All the traffic moves when the newest template becomes the stable one.
        weight = (facts.weights or (0, FULL))[0]
        if facts.scales_stable and facts.replicas:
            weight = FULL * facts.new.available // facts.replicas
    elif facts.steps:
        weight = _weight_of_step(facts)
    else:
        weight = 0
    share = (FULL - weight) * facts.replicas // FULL
    return Traffic(weight, hash_) if facts.stable is not None and facts.stable.available >= share else None


def _weight_of_step(facts: CanaryFacts) -> int:
    if not has_pods(facts, None):
        return _last_weight(facts.steps[: facts.index])
    return step_weight(facts)


def returning_from(facts: CanaryFacts) -> str | None:
    """Return the hash of the canary that an interrupted update goes back from, or None.

    With `dynamicStableScale` the stable template, which is wanted again, may have too few pods for all the traffic.
    """
    found = (facts.status.get("canary") or {}).get("weights")
    if not (facts.is_promoted and facts.scales_stable and found):
        return None
    previous = str(found["canary"].get("podTemplateHash", ""))
    return previous if previous != facts.new.hash and facts.new.available < facts.replicas else None


def _weight_on_return(facts: CanaryFacts) -> int:
    """Return the canary's weight while traffic goes back to the stable template, in percent."""
    if not facts.scales_stable or facts.stable is None or not facts.replicas:
        return 0
    wanted, ready = _canary_weight(facts), FULL * facts.stable.available // facts.replicas
    if facts.weights is None:
        return max(FULL - ready, wanted, 0)
    if wanted <= 0:
        return min(max(0, FULL - ready), facts.weights[0])
    return facts.weights[0] if ready < FULL - wanted else min(wanted, facts.weights[0])


def is_complete(facts: CanaryFacts, weights: tuple[int, int] | None, pause_left: float | None, analysis: str) -> bool:
    """Return whether the current step is complete.

    Args:
        facts: the rollout; not paused by `spec.paused`.
        weights: canary and stable weight in force, in percent.
        pause_left: seconds left of the current pause; None if it has no end or has not begun, 0 or less if it is over.
        analysis: phase of the current analysis, or "".
    """
    step = facts.step
    if step is None:
        return False
    if "pause" in step:
        return pause_left is not None and pause_left <= 0
    if "setWeight" in step or "setCanaryScale" in step:
        return has_pods(facts, weights)
    return "analysis" in step and analysis == "Successful"


def why_promote(facts: CanaryFacts) -> str:
    """Return why the newest template becomes the stable one now, in Argo's words; "" if it does not."""
    if facts.stable is None:
        return "Initial deploy"
    if facts.aborted or facts.new.available < facts.replicas:
        return ""
    if facts.status.get("promoteFull"):
        return "Full promotion requested"
    if facts.in_rollback_window:
        return "Rollback within window"
    if facts.step is None:
        return f"Completed all {len(facts.steps)} canary steps"
    return ""


def name_of_step(step: Step) -> str:
    """Return a step in Argo's words, for events."""
    if "setWeight" in step:
        return f"setWeight: {step['setWeight']}"
    if "pause" in step:
        duration = (step["pause"] or {}).get("duration")
        return "pause" if duration is None else f"pause: {duration}"
    if "setCanaryScale" in step:
        key, value = next(iter(step["setCanaryScale"].items()))
        return f"setCanaryScale{{{key}: {str(value).lower()}}}"
    return "analysis"
