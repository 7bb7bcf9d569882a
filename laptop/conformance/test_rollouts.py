"""Rollouts: on Argo's controller and on ours."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from laptop.conformance import rollout_view as view
from laptop.conformance.endpoint_manifests import EndpointManifests
from laptop.conformance.engines import CONTROL_PLANE
from laptop.conformance.rollout_scenarios import RolloutScenarios
from laptop.conformance.scenarios import Scenario, differences
from laptop.conformance.scripted_pods import Observed, both_clusters, play_on_both
from tests.infra.recording import record, release_everywhere
from tests.sample_project import copy_as_forked

pytestmark = [pytest.mark.needs(*CONTROL_PLANE), pytest.mark.timeout(600)]

_REPLAYS = 2
"""How often a scenario that differs is played again: Argo's order of writes differs from run to run."""


@cache
def scenarios() -> list[Scenario]:
    """Return every scenario, with the manifests of the Pulumi program."""
    with tempfile.TemporaryDirectory() as folder:
        graph = record(release_everywhere(copy_as_forked(Path(folder) / "project")), "dev", descriptors={})
    return RolloutScenarios(EndpointManifests(graph)).all()


@pytest.fixture(scope="module")
def observed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Observed]]:
    """Name → observations of every selected scenario; of the last play if it had to be played again."""
    selected = {item.name for item in request.session.items if item.path == request.path}
    played = [one for one in scenarios() if f"{test_a_rollout_fares_as_with_argo.__name__}[{one.name}]" in selected]
    with both_clusters(tmp_path_factory.mktemp("rollouts"), CONTROL_PLANE) as clusters:
        seen = play_on_both(clusters, played, view.WATCHED, view.summarise)
        for _ in range(_REPLAYS):
            differing = [one for one in played if differences(seen[one.name].real, seen[one.name].ours)]
            if not differing:
                break
            print("played again:", ", ".join(one.name for one in differing))
            seen |= play_on_both(clusters, differing, view.WATCHED, view.summarise)
        yield seen


@pytest.mark.parametrize("name", [scenario.name for scenario in scenarios()])
def test_a_rollout_fares_as_with_argo(observed: dict[str, Observed], name: str) -> None:
    found = differences(observed[name].real, observed[name].ours)
    assert not found, "\n".join(found)
