from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.cluster.canary_steps import CanaryFacts, decide, pods_for, weight_before

STEPS = [{"setWeight": 10}, {"pause": {"duration": "1m"}}, {"setWeight": 50}, {"pause": {}}]
BEGUN = CanaryFacts(STEPS, index=0, replicas=4, new_available=0, stable_available=4)


def test_traffic_waits_for_the_pods_that_will_take_it() -> None:
    waiting = decide(BEGUN)
    assert (waiting.new_replicas, waiting.weight, waiting.index) == (1, None, 0)
    there = decide(replace(BEGUN, new_available=1))
    assert (there.weight, there.index) == (10, 1)


def test_a_pause_lasts_its_declared_time_times_the_scale() -> None:
    at_pause = replace(BEGUN, index=1, new_available=1, time_scale=0.5)
    assert decide(at_pause).wait == 30.0
    halfway = decide(replace(at_pause, pausing=20.0))
    assert (halfway.phase, halfway.wait, halfway.index) == ("Paused", 10.0, 1)
    assert decide(replace(at_pause, pausing=30.0)).index == 2


def test_a_pause_without_a_duration_lasts_until_it_is_ended() -> None:
    paused = decide(replace(BEGUN, index=3, new_available=2, pausing=1e9))
    assert (paused.phase, paused.wait, paused.index, paused.weight) == ("Paused", None, 3, 50)


def test_a_manual_pause_holds_every_kind_of_step() -> None:
    for index, analysis in ((0, ""), (1, ""), (2, "")):
        held = decide(replace(BEGUN, index=index, new_available=4, paused=True, pausing=1e9, analysis=analysis))
        assert (held.phase, held.index, held.wait) == ("Paused", index, None)


def test_the_new_version_is_promoted_when_all_its_pods_are_available() -> None:
    done = replace(BEGUN, index=4, new_available=3)
    assert (decide(done).promote, decide(done).weight) == (False, 50)
    complete = decide(replace(done, new_available=4))
    assert (complete.promote, complete.weight) == (True, 100)


@pytest.mark.parametrize(
    ("analysis", "phase", "index", "aborts"),
    [
        ("", "Progressing", 0, False),
        ("Running", "Progressing", 0, False),
        ("Successful", "Progressing", 1, False),
        ("Failed", "Degraded", 0, True),
        ("Error", "Degraded", 0, True),
        ("Inconclusive", "Paused", 0, False),
    ],
)
def test_the_outcome_of_an_analysis_decides(analysis: str, phase: str, index: int, aborts: bool) -> None:
    facts = CanaryFacts([{"analysis": {}}], 0, replicas=1, new_available=0, stable_available=1, analysis=analysis)
    decision = decide(facts)
    assert (decision.phase, decision.index, bool(decision.abort)) == (phase, index, aborts)
    assert decision.analyse is (analysis == "")


steps = st.lists(
    st.builds(lambda weight: {"setWeight": weight}, st.integers(0, 100))
    | st.just({"pause": {}})
    | st.builds(lambda seconds: {"pause": {"duration": seconds}}, st.integers(0, 60))
    | st.just({"analysis": {}}),
    max_size=5,
)
facts = st.builds(
    CanaryFacts,
    steps=steps,
    index=st.integers(0, 6),
    replicas=st.integers(0, 5),
    new_available=st.integers(0, 5),
    stable_available=st.integers(0, 5),
    settled=st.booleans(),
    first=st.booleans(),
    aborted=st.booleans(),
    paused=st.booleans(),
    pausing=st.none() | st.floats(0, 100),
    analysis=st.sampled_from(["", "Running", "Successful", "Failed", "Error", "Inconclusive"]),
)


@given(facts)
@settings(max_examples=200, deadline=None)
def test_no_decision_sends_traffic_to_missing_pods(known: CanaryFacts) -> None:
    decision = decide(known)
    before = weight_before(known.steps, known.index)
    if decision.weight is not None and decision.weight > before:
        assert known.new_available >= pods_for(decision.weight, known.replicas)
    if decision.promote:
        assert known.new_available >= known.replicas
    if not known.settled:
        assert decision.stable_replicas == known.replicas


@given(facts)
@settings(max_examples=100, deadline=None)
def test_an_aborted_update_gets_no_traffic_and_does_not_continue(known: CanaryFacts) -> None:
    decision = decide(replace(known, aborted=True, settled=False, first=False))
    assert (decision.weight, decision.phase, decision.promote, decision.new_replicas) == (0, "Degraded", False, 0)
