"""Workloads: Jobs, CronJobs, Deployments, garbage collection, admission on kube-controller-manager and on ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from laptop.conformance import workload_view as view
from laptop.conformance.scenarios import differences
from laptop.conformance.scripted_pods import Observed, both_clusters, play_on_both
from laptop.conformance.workload_scenarios import scenarios

ENGINES = ("etcd", "kube-apiserver", "kube-controller-manager", "kwok")

pytestmark = [pytest.mark.needs(*ENGINES), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Observed]]:
    """Name → observations of every scenario."""
    with both_clusters(tmp_path_factory.mktemp("workloads"), ENGINES) as clusters:
        yield play_on_both(clusters, scenarios(), view.WATCHED, view.summarise)


@pytest.mark.parametrize("name", [scenario.name for scenario in scenarios()])
def test_a_workload_fares_as_on_kubernetes(observed: dict[str, Observed], name: str) -> None:
    found = differences(observed[name].real, observed[name].ours)
    assert not found, "\n".join(found)
