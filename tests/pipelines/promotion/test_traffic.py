from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.promotion import traffic
from pipelines.promotion.traffic import move_traffic
from tests.http_responder import http_server
from tests.pipelines.registry.chains import offline_environment

MODEL, OLD, NEW = "price", "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Cluster:
    """An endpoint that serves the old bundle, then nothing, then the new one, once it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, answers: int = 6) -> None:
        self.told: list[Any] = []
        self.answers = answers
        monkeypatch.setattr(traffic, "POLL_SECONDS", 0.001)
        monkeypatch.setattr(traffic, "serve_bundle", lambda *what: self.told.append(what))
        monkeypatch.setattr(traffic, "wait_for_rollout", lambda *what, **_: self.told.append(("waited for", *what)))

    def __call__(self, *_: Any) -> tuple[int, bytes] | None:
        self.told.append("asked")
        count = self.told.count("asked")
        if count >= self.answers:
            return 200, json.dumps({"versions": [NEW]}).encode()
        return (
            (200, json.dumps({"versions": [OLD]}).encode()) if count < 3 else (503, b"starting") if count < 5 else None
        )


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, EnvironmentDescriptor]]:
    made = Cluster(monkeypatch)
    with http_server(made) as url:
        yield made, offline_environment().model_copy(update={"endpoints": {MODEL: url}})


def test_traffic_is_moved_until_the_endpoint_says_so_and_all_of_it_goes_there(
    cluster: tuple[Cluster, EnvironmentDescriptor],
) -> None:
    """Pods that come and go, and answers that fail meanwhile, are no reason to give up."""
    made, descriptor = cluster
    assert move_traffic(descriptor, MODEL, NEW) > 0
    assert made.told[0] == ("models", MODEL, NEW)
    assert made.told[-1] == ("waited for", "models", MODEL)
    assert made.told.count("asked") >= 6


def test_what_is_left_of_the_time_is_for_the_rest_of_the_rollout_and_a_second_at_least(
    cluster: tuple[Cluster, EnvironmentDescriptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each look takes a second, of which the fifth finds the new bundle."""
    made, descriptor = cluster
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(traffic, "wait_for_rollout", lambda *_, **named: given.append(named))
    for deadline, left in ((100.0, 95.0), (5.5, 1.0)):
        made.told.clear()
        ticks, slept = iter(range(10, 100)), list[float]()
        clock = SimpleNamespace(monotonic=lambda ticks=ticks: next(ticks) * 1.0, sleep=slept.append)
        monkeypatch.setattr(traffic, "time", clock)
        assert move_traffic(descriptor, MODEL, NEW, deadline_seconds=deadline) == 5.0
        assert given[-1]["deadline_seconds"] == left
        assert given[-1]["on_change"]("a new state") is None
        assert slept == [0.001] * 4


@pytest.mark.parametrize(("before", "found"), [(0, "it still serves another"), (1, "answered 503: starting")])
def test_traffic_may_take_two_minutes_and_not_a_moment_more(
    cluster: tuple[Cluster, EnvironmentDescriptor], monkeypatch: pytest.MonkeyPatch, before: int, found: str
) -> None:
    made, descriptor = cluster
    made.answers = 10**9
    made.told += ["asked"] * before
    ticks = iter([0.0, 120.0, 120.5])
    monkeypatch.setattr(traffic, "time", SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda _: None))
    with pytest.raises(MlopsError) as caught:
        move_traffic(descriptor, MODEL, NEW)
    what = caught.value.what
    assert what.startswith(f"the endpoint of {MODEL} in dev did not go to {NEW} within 120 s: ")
    assert what.endswith(found)
    assert next(ticks, None) is None


def test_traffic_that_does_not_move_in_time_is_an_error_that_says_what_is_served(
    cluster: tuple[Cluster, EnvironmentDescriptor],
) -> None:
    made, descriptor = cluster
    made.answers = 10**9
    with pytest.raises(MlopsError, match=f"did not go to {NEW} within 0 s"):
        move_traffic(descriptor, MODEL, NEW, deadline_seconds=0.05)
    assert not any(what[0] == "waited for" for what in made.told if isinstance(what, tuple))


def test_a_model_without_an_endpoint_is_an_error(cluster: tuple[Cluster, EnvironmentDescriptor]) -> None:
    with pytest.raises(MlopsError, match="has no endpoint"):
        move_traffic(cluster[1], "churn", NEW)
