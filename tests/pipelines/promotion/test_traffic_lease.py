"""The lease of a model's traffic: who may take it from whom."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cluster.leases import LeaseState
from pipelines.cluster.rollouts import OvertakenError
from pipelines.promotion import traffic_lease
from pipelines.promotion.traffic_lease import LeaseDecision, TrafficHeldError, TrafficHold, Verb, decide, hold_traffic
from pipelines.targets.stack_lock import Liveness

NOW = datetime(2026, 3, 2, 10, tzinfo=UTC)


def held(*, seconds_left: int = 60) -> LeaseState:
    return LeaseState("1", "someone", "", NOW + timedelta(seconds=seconds_left))


@pytest.mark.parametrize(
    ("state", "liveness", "theirs", "ours", "expected"),
    [
        (LeaseState(), Liveness.UNKNOWN, "", "deploy", LeaseDecision.TAKE),
        (LeaseState("1", "", "", NOW), Liveness.LIVING, "rollback", "rollback", LeaseDecision.TAKE),
        (held(seconds_left=0), Liveness.LIVING, "rollback", "deploy", LeaseDecision.TAKE),
        (held(), Liveness.ENDED, "rollback", "rollback", LeaseDecision.TAKE),
        (held(), Liveness.LIVING, "deploy", "rollback", LeaseDecision.TAKE),
        (held(), Liveness.LIVING, "deploy", "stop", LeaseDecision.TAKE),
        (held(), Liveness.UNKNOWN, "deploy", "rollback", LeaseDecision.TAKE),
        (held(), Liveness.LIVING, "rollback", "stop", LeaseDecision.REFUSE),
        (held(), Liveness.UNKNOWN, "stop", "rollback", LeaseDecision.REFUSE),
        (held(), Liveness.UNKNOWN, "", "rollback", LeaseDecision.REFUSE),
        (held(), Liveness.LIVING, "rollback", "deploy", LeaseDecision.WAIT),
        (held(), Liveness.UNKNOWN, "deploy", "deploy", LeaseDecision.WAIT),
    ],
)
def test_a_rollback_takes_over_from_a_deployment_only(
    state: LeaseState, liveness: Liveness, theirs: str, ours: Verb, expected: LeaseDecision
) -> None:
    assert decide(state, liveness, theirs, ours, NOW) is expected


def test_a_lease_that_cannot_be_written_is_not_asked_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(traffic_lease, "connect", lambda _: nullcontext())
    monkeypatch.setattr(traffic_lease, "read_lease", lambda *_: LeaseState())
    monkeypatch.setattr(traffic_lease, "write_lease", lambda *_: False)  # 409, whatever was read
    clock = SimpleNamespace(sleep=pauses.append, monotonic=lambda: float(len(pauses)))
    monkeypatch.setattr(traffic_lease, "time", clock)
    dev: Any = SimpleNamespace(name="dev", namespace="models")
    hold = hold_traffic(dev, "m", "deploy", tmp_path, lambda _: None, patience_seconds=3.0)
    with pytest.raises(TrafficHeldError, match="of m in dev is held"), hold:
        pass
    assert pauses == [traffic_lease.POLL_SECONDS] * 4


def test_a_hold_knows_that_another_command_took_it() -> None:
    hold = TrafficHold("models", "traffic-m", "us")
    hold.note(LeaseState("2", "us", "", NOW))
    hold.check()
    hold.note(LeaseState("3", "them", "", NOW))
    with pytest.raises(OvertakenError, match="another command took over the traffic"):
        hold.check()
