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
    """Fake cluster. Its endpoint answers with the old bundle, then not at all, then with the new bundle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, answers: int = 6) -> None:
        self.calls: list[Any] = []
        self.answers = answers
        monkeypatch.setattr(traffic, "POLL_SECONDS", 0.001)
        monkeypatch.setattr(traffic, "serve_bundle", lambda *what: self.calls.append(what))
        monkeypatch.setattr(traffic, "wait_for_rollout", lambda *what, **_: self.calls.append(("rollout", *what)))

    def __call__(self, *_: Any) -> tuple[int, bytes] | None:
        self.calls.append("endpoint")
        count = self.calls.count("endpoint")
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


def test_moving_traffic_waits_for_the_endpoint_and_the_rollout(
    cluster: tuple[Cluster, EnvironmentDescriptor],
) -> None:
    """Failed requests are retried while pods are being replaced."""
    made, descriptor = cluster
    assert move_traffic(descriptor, MODEL, NEW) > 0
    assert made.calls[0] == ("models", MODEL, NEW)
    assert made.calls[-1] == ("rollout", "models", MODEL)
    assert made.calls.count("endpoint") >= 6


def test_the_rollout_gets_the_remaining_time_and_at_least_a_second(
    cluster: tuple[Cluster, EnvironmentDescriptor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each look takes a second, of which the fifth finds the new bundle."""
    made, descriptor = cluster
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(traffic, "wait_for_rollout", lambda *_, **named: given.append(named))
    for deadline, left in ((100.0, 95.0), (5.5, 1.0)):
        made.calls.clear()
        ticks, slept = iter(range(10, 100)), list[float]()
        clock = SimpleNamespace(monotonic=lambda ticks=ticks: next(ticks) * 1.0, sleep=slept.append)
        monkeypatch.setattr(traffic, "time", clock)
        assert move_traffic(descriptor, MODEL, NEW, deadline_seconds=deadline) == 5.0
        assert given[-1]["deadline_seconds"] == left
        assert given[-1]["on_change"]("a new state") is None
        assert slept == [0.001] * 4


@pytest.mark.parametrize(("before", "found"), [(0, "it still serves another bundle"), (1, "answered 503: starting")])
def test_moving_traffic_may_take_two_minutes(
    cluster: tuple[Cluster, EnvironmentDescriptor], monkeypatch: pytest.MonkeyPatch, before: int, found: str
) -> None:
    made, descriptor = cluster
    made.answers = 10**9
    made.calls += ["endpoint"] * before
    ticks = iter([0.0, 120.0, 120.5])
    monkeypatch.setattr(traffic, "time", SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda _: None))
    with pytest.raises(MlopsError) as caught:
        move_traffic(descriptor, MODEL, NEW)
    what = caught.value.what
    assert what.startswith(f"the endpoint of {MODEL} in dev does not serve {NEW} after 120 s: ")
    assert what.endswith(found)
    assert next(ticks, None) is None


def test_a_missed_deadline_says_what_the_endpoint_serves(
    cluster: tuple[Cluster, EnvironmentDescriptor],
) -> None:
    made, descriptor = cluster
    made.answers = 10**9
    with pytest.raises(MlopsError, match=f"does not serve {NEW} after 0 s"):
        move_traffic(descriptor, MODEL, NEW, deadline_seconds=0.05)
    assert not any(what[0] == "rollout" for what in made.calls if isinstance(what, tuple))


def test_a_model_without_an_endpoint_is_an_error(cluster: tuple[Cluster, EnvironmentDescriptor]) -> None:
    with pytest.raises(MlopsError, match="has no endpoint"):
        move_traffic(cluster[1], "churn", NEW)
