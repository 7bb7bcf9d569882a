"""Both clusters for scenarios: the real control plane whose pods are scripted, and the laptop's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from laptop.conformance import control_plane
from laptop.conformance.engines import link_binaries
from laptop.conformance.scenarios import Observation, Scenario, ScenarioCluster, Summarise, Watched
from laptop.tests.cluster.running_cluster import RunningCluster

STAGES = Path(__file__).with_name("stages")
"""kwok's stages: what becomes of pods, by their label `fate`."""

AT_ONCE = 16
"""Scenarios that each cluster plays at once."""


@dataclass(frozen=True)
class Observed:
    """The observations of one scenario on the real engines and on the laptop."""

    real: Observation
    ours: Observation


@contextmanager
def both_clusters(folder: Path, engines: tuple[str, ...]) -> Iterator[tuple[ScenarioCluster, ScenarioCluster]]:
    """Start the real control plane and the laptop's cluster, and stop them.

    Args:
        folder: an empty folder.
        engines: engines of the control plane.
    """
    argo = "argo-rollouts" in engines
    binaries = link_binaries(folder / "bin", engines)
    with control_plane.running(folder / "real", binaries, argo=argo, pod_stages=STAGES) as plane:
        ours = RunningCluster(folder / "laptop", time_scale=1.0)
        try:
            yield (
                ScenarioCluster(plane.kubeconfig, lambda: plane.restart("rollouts-controller"), "real"),
                ScenarioCluster(ours.home / "kubeconfig", ours.restart_controllers, "ours"),
            )
        finally:
            ours.close()


def play_on_both(
    clusters: tuple[ScenarioCluster, ScenarioCluster],
    scenarios: Sequence[Scenario],
    watched: Watched,
    summarise: Summarise,
) -> dict[str, Observed]:
    """Play scenarios on both clusters at the same time. Return name → observations."""
    with ThreadPoolExecutor(len(clusters)) as pool:
        real, ours = pool.map(lambda one: one.play_all(scenarios, watched, summarise, at_once=AT_ONCE), clusters)
    return {name: Observed(real[name], ours[name]) for name in real}
