"""Comparison of scenarios, and the scenarios themselves."""

from __future__ import annotations

from collections import Counter

import yaml

from laptop.conformance.endpoint_manifests import EndpointManifests, command_of
from laptop.conformance.rollout_scenarios import RolloutScenarios
from laptop.conformance.scenarios import Observation, differences
from laptop.conformance.scripted_pods import STAGES
from laptop.conformance.workload_scenarios import scenarios
from tests.infra.recording import Recording

REAL = Observation([("Healthy", 1), ("Paused", 2)], {"phase": "Paused", "pods": {"v1": 2}}, "", 1.0)


def test_the_same_observation_has_no_differences() -> None:
    assert differences(REAL, Observation(list(REAL.history), dict(REAL.end), "", 9.0)) == []


def test_a_difference_names_its_path_and_both_values() -> None:
    other = Observation(REAL.history, {"phase": "Paused", "pods": {"v1": 1}, "weight": 5}, "", 1.0)
    assert differences(REAL, other) == ["pods.v1: real 2, ours 1", "weight: real None, ours 5"]


def test_another_order_of_states_is_a_difference() -> None:
    other = Observation(REAL.history[::-1], REAL.end, "", 1.0)
    assert "  + Paused 2" in differences(REAL, other)


def test_a_scenario_that_did_not_finish_is_a_difference_even_if_neither_did() -> None:
    stuck = Observation(REAL.history, REAL.end, "until phase=Healthy: not after 90 s", 90.0)
    assert differences(stuck, stuck) == [
        "real did not finish: until phase=Healthy: not after 90 s",
        "ours did not finish: until phase=Healthy: not after 90 s",
    ]


def test_every_scenario_has_a_name_of_its_own(graphs: dict[str, Recording]) -> None:
    rollouts = RolloutScenarios(EndpointManifests(graphs["dev"])).all()
    names = Counter(scenario.name for scenario in [*rollouts, *scenarios()])
    assert [name for name, number in names.items() if number > 1] == []
    assert (len(rollouts) >= 25, len(scenarios()) >= 30) == (True, True)


def test_pods_end_on_both_clusters_as_their_fate_says() -> None:
    stages = list(yaml.safe_load_all((STAGES / "pods.yaml").read_text()))
    (ends,) = [stage for stage in stages if stage["metadata"]["name"] == "job-pod-ends"]
    unending = next(rule["values"] for rule in ends["spec"]["selector"]["matchExpressions"] if "fate" in rule["key"])
    assert unending == ["run", "unready"]
    assert command_of("run")[0] == "sleep"
    assert command_of("exit-3") == ["sh", "-c", "exit 3"]
