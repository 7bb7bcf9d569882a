"""Moving traffic to another bundle, with a fake cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from pipelines.cluster.rollouts import RolloutState
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion import traffic
from pipelines.promotion.traffic import move_traffic
from tests.http_responder import http_server
from tests.pipelines.promotion.direct_pods import open_direct_pods
from tests.pipelines.registry.chains import offline_environment

MODEL, OLD, NEW = "price", "sha256:" + "a" * 64, "sha256:" + "b" * 64
WAITING = RolloutState("Progressing", "", 0, False, False, False)
MOVED = RolloutState("Progressing", "", 100, False, False, True)
SETTLED = RolloutState("Healthy", "", 0, True, False, True)


class Cluster:
    """Fake cluster whose rollout goes through these states; its pods serve `served`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Any] = []
        self.states = [WAITING, MOVED, SETTLED]
        self.served = self.later = NEW
        clock = iter(range(1000))
        monkeypatch.setattr(
            traffic, "time", SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=lambda _: None)
        )
        monkeypatch.setattr(traffic, "open_pods", open_direct_pods)
        monkeypatch.setattr(traffic, "switch_bundle", self._switch)

    def _switch(
        self, *what: str, on_change: Callable[[RolloutState], None], deadline_seconds: float, check: Callable[[], None]
    ) -> None:
        check()
        self.calls.append((*what, deadline_seconds))
        for state in self.states:
            on_change(state)
        if not self.states[-1].settled:
            raise MlopsError("the rollout was still Progressing")

    def __call__(self, *_: Any) -> tuple[int, bytes]:
        served = self.later if "pod" in self.calls else self.served
        self.calls.append("pod")
        return 200, json.dumps({"versions": [served]}).encode()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, EnvironmentDescriptor]]:
    made = Cluster(monkeypatch)
    with http_server(made) as url:
        yield made, offline_environment().model_copy(update={"endpoints": {MODEL: url}})


def test_moving_traffic_changes_the_rollout_waits_for_it_and_asks_the_pods(
    cluster: tuple[Cluster, EnvironmentDescriptor],
) -> None:
    made, descriptor = cluster
    assert move_traffic(descriptor, MODEL, NEW, deadline_seconds=7.0) == 1.0
    assert made.calls == [("models", MODEL, NEW, 7.0), "pod", "pod"]


def test_a_rollout_that_settles_at_once_has_moved_the_traffic(cluster: tuple[Cluster, EnvironmentDescriptor]) -> None:
    made, descriptor = cluster
    made.states = [SETTLED]
    assert move_traffic(descriptor, MODEL, NEW) == 1.0
    assert made.calls[0][-1] == 900, "long enough for a new node"


def test_a_rollout_that_does_not_settle_is_an_error(cluster: tuple[Cluster, EnvironmentDescriptor]) -> None:
    made, descriptor = cluster
    made.states = [WAITING]
    with pytest.raises(MlopsError, match="still Progressing"):
        move_traffic(descriptor, MODEL, NEW)
    assert "pod" not in made.calls


def test_a_pod_that_serves_another_bundle_the_second_time_is_an_error(
    cluster: tuple[Cluster, EnvironmentDescriptor],
) -> None:
    made, descriptor = cluster
    made.later = OLD
    with pytest.raises(MlopsError, match=f"serves: expected {NEW}, found {OLD}"):
        move_traffic(descriptor, MODEL, NEW)


def test_pods_behind_the_service_may_change_after_the_promotion(
    cluster: tuple[Cluster, EnvironmentDescriptor],
) -> None:
    made, descriptor = cluster
    made.served = OLD
    made.later = NEW
    move_traffic(descriptor, MODEL, NEW)
    assert made.calls.count("pod") == 3


def test_a_lost_lease_ends_the_move(cluster: tuple[Cluster, EnvironmentDescriptor]) -> None:
    made, descriptor = cluster
    with pytest.raises(MlopsError, match="lost"):
        move_traffic(descriptor, MODEL, NEW, check=mock.Mock(side_effect=MlopsError("lost")))
    assert made.calls == []


def test_a_pod_that_serves_another_bundle_is_an_error(cluster: tuple[Cluster, EnvironmentDescriptor]) -> None:
    made, descriptor = cluster
    made.served = made.later = OLD
    with pytest.raises(MlopsError, match=f"serves: expected {NEW}, found {OLD}"):
        move_traffic(descriptor, MODEL, NEW)


def test_a_model_without_an_endpoint_is_an_error(cluster: tuple[Cluster, EnvironmentDescriptor]) -> None:
    made, descriptor = cluster
    with pytest.raises(MlopsError, match="has no endpoint"):
        move_traffic(descriptor, "churn", NEW)
    assert made.calls == []
