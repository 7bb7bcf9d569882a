"""Decisions of a canary rollout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.cluster.canary_steps import (
    CanaryFacts,
    PodCounts,
    has_pods,
    is_complete,
    pod_counts,
    pods_for,
    traffic,
    weights_of,
    why_promote,
)

STEPS = [{"setWeight": 10}, {"pause": {"duration": "1m"}}, {"setWeight": 50}, {"pause": {}}]
STATUS: dict[str, Any] = {"stableRS": "old", "currentPodHash": "new", "currentStepIndex": 0}
BEGUN = CanaryFacts({"steps": STEPS}, replicas=4, new=PodCounts("new"), stable=PodCounts("old", 4, 4, 4), status=STATUS)


def at(index: int, **status: Any) -> dict[str, Any]:
    return {**STATUS, "currentStepIndex": index, **status}


def pods(number: int, hash_: str = "new") -> PodCounts:
    return PodCounts(hash_, number, number, number)


@pytest.mark.parametrize(("weight", "replicas", "expected"), [(0, 3, 0), (1, 3, 1), (50, 3, 2), (100, 3, 3), (1, 0, 0)])
def test_a_weight_above_zero_has_at_least_one_pod(weight: int, replicas: int, expected: int) -> None:
    assert pods_for(weight, replicas) == expected


def test_traffic_moves_only_once_the_pods_of_the_step_are_there() -> None:
    assert pod_counts(BEGUN, None) == (1, 4)
    waiting = traffic(BEGUN)
    assert waiting is not None
    assert waiting.weight == 0
    there = traffic(replace(BEGUN, new=pods(1)))
    assert there is not None
    assert there.weight == 10
    assert is_complete(replace(BEGUN, new=pods(1)), (10, 90), None, "")


def test_a_pause_is_complete_when_its_time_is_over_and_only_then() -> None:
    paused = replace(BEGUN, status=at(1), new=pods(1))
    assert not is_complete(paused, (10, 90), None, "")
    assert not is_complete(paused, (10, 90), 0.5, "")
    assert is_complete(paused, (10, 90), 0.0, "")


@pytest.mark.parametrize(
    ("phase", "complete"), [("", False), ("Running", False), ("Failed", False), ("Successful", True)]
)
def test_an_analysis_completes_its_step_only_if_it_is_successful(phase: str, complete: bool) -> None:
    facts = replace(BEGUN, canary={"steps": [{"analysis": {}}]})
    assert is_complete(facts, None, None, phase) is complete


def test_the_new_version_is_promoted_when_all_its_pods_are_available() -> None:
    done = replace(BEGUN, status=at(4), new=pods(3))
    assert why_promote(done) == ""
    assert why_promote(replace(done, new=pods(4))) == "Completed all 4 canary steps"
    assert why_promote(replace(done, new=pods(4), aborted=True)) == ""
    assert why_promote(replace(BEGUN, stable=None)) == "Initial deploy"


@pytest.mark.parametrize(
    ("scale", "canary"), [({"replicas": 3}, 3), ({"weight": 50}, 2), ({"matchTrafficWeight": True}, 1)]
)
def test_the_canary_scale_replaces_the_weight_for_the_number_of_pods(scale: dict[str, Any], canary: int) -> None:
    facts = replace(BEGUN, canary={"steps": [{"setWeight": 10}, {"setCanaryScale": scale}]}, status=at(1))
    assert pod_counts(facts, None) == (canary, 4)


def test_stable_pods_that_follow_the_traffic_go_after_it() -> None:
    facts = replace(BEGUN, canary={"steps": STEPS, "dynamicStableScale": True}, status=at(2))
    assert pod_counts(facts, (10, 90)) == (2, 4)
    assert pod_counts(facts, (50, 50)) == (2, 2)


def test_an_abort_brings_traffic_back_as_stable_pods_become_available() -> None:
    canary = {"steps": STEPS, "dynamicStableScale": True}
    weights = {"canary": {"weight": 50}, "stable": {"weight": 50}}
    status = at(3, abort=True, canary={"weights": weights})
    facts = replace(BEGUN, canary=canary, status=status, new=pods(2), stable=pods(2, "old"), aborted=True)
    back = traffic(facts)
    assert back is not None
    assert back.weight == 50  # two stable pods cannot take more
    ready = traffic(replace(facts, stable=pods(4, "old"), new=pods(1)))
    assert ready is not None
    assert ready.weight == 0


WEIGHTS = st.integers(0, 100).map(lambda weight: {"canary": {"weight": weight}, "stable": {"weight": 100 - weight}})
PODS = st.builds(lambda wanted, missing: PodCounts("new", wanted, wanted, max(0, wanted - missing)), st.integers(0, 5),
                 st.integers(0, 2))  # fmt: skip
FACTS = st.builds(
    CanaryFacts,
    canary=st.builds(
        lambda steps, dynamic: {"steps": steps, "dynamicStableScale": dynamic},
        st.lists(
            st.builds(lambda weight: {"setWeight": weight}, st.integers(0, 100))
            | st.just({"pause": {}})
            | st.builds(lambda number: {"setCanaryScale": {"replicas": number}}, st.integers(0, 5))
            | st.just({"analysis": {}}),
            max_size=5,
        ),
        st.booleans(),
    ),
    replicas=st.integers(0, 5),
    new=PODS,
    stable=PODS.map(lambda found: replace(found, hash="old")),
    status=st.builds(
        lambda index, promoted, full, weights: {
            **at(index, promoteFull=full, canary={"weights": weights}),
            "currentPodHash": "old" if promoted else "new",
        },
        st.integers(0, 6),
        st.booleans(),
        st.booleans(),
        WEIGHTS,
    ),
)


@given(FACTS)
@settings(max_examples=300)
def test_no_traffic_goes_to_a_canary_without_pods_or_from_stable_pods_that_are_missing(known: CanaryFacts) -> None:
    wanted = traffic(known)
    if wanted is None:
        return
    assert known.stable is not None
    assert known.stable.available >= (100 - wanted.weight) * known.replicas // 100
    if not known.new.available and not known.is_promoted:
        assert wanted.weight == 0


@given(FACTS)
@settings(max_examples=200)
def test_stable_pods_are_never_fewer_than_their_traffic_needs(known: CanaryFacts) -> None:
    weights = weights_of(known.status)
    assert weights is not None
    _, stable = pod_counts(known, weights)
    assert stable >= pods_for(weights[1], known.replicas)


@given(FACTS)
@settings(max_examples=200)
def test_an_aborted_update_is_never_promoted(known: CanaryFacts) -> None:
    assert why_promote(replace(known, aborted=True)) == ""


@given(FACTS)
@settings(max_examples=200)
def test_a_weight_step_is_complete_only_with_its_pods(known: CanaryFacts) -> None:
    weights = weights_of(known.status)
    if known.step is not None and "setWeight" in known.step:
        assert is_complete(known, weights, None, "") is has_pods(known, weights)
