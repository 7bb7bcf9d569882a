"""The product's leases, on the laptop's Kubernetes API."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Semaphore

import pytest

from laptop.tests.cluster.running_cluster import RunningCluster
from pipelines.cluster.access import Permission, find_denied
from pipelines.cluster.connection import connect
from pipelines.cluster.leases import read_lease, write_lease
from pipelines.cluster.rollouts import OvertakenError
from pipelines.promotion.rollback_rights import IN_CLUSTER
from pipelines.promotion.traffic_lease import TrafficHeldError, hold_traffic
from tests.pipelines.registry.chains import offline_environment

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _reached(cluster: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.home / "kubeconfig"))


def test_one_command_at_a_time_moves_traffic(namespace: str, tmp_path: Path) -> None:
    descriptor = offline_environment().model_copy(update={"namespace": namespace})
    said: list[str] = []
    with hold_traffic(descriptor, "m", "deploy", tmp_path, said.append) as deployment:
        deployment.confirm()
        with hold_traffic(descriptor, "m", "rollback", tmp_path, said.append) as rollback:
            rollback.confirm()
            with pytest.raises(OvertakenError, match=r"`rollback` in process \d+ of .* took over the traffic"):
                deployment.confirm()
            with (
                pytest.raises(TrafficHeldError, match=r"the traffic of m in .* is held: `rollback` in process"),
                hold_traffic(descriptor, "m", "stop", tmp_path, said.append),
            ):
                pytest.fail("two rollbacks at once")
            with (
                pytest.raises(TrafficHeldError, match="`rollback` in process"),
                hold_traffic(descriptor, "m", "deploy", tmp_path, said.append, patience_seconds=0),
            ):
                pytest.fail("a deployment during a rollback")
            with hold_traffic(descriptor, "other", "deploy", tmp_path, said.append):
                pass
        with hold_traffic(descriptor, "m", "stop", tmp_path, said.append):
            pass
    (line,) = said
    assert line.startswith(f"took the traffic of m in {descriptor.name} over from `deploy` in process")


def test_of_people_who_roll_back_at_the_same_moment_one_goes_on_and_is_named_to_the_others(
    namespace: str, tmp_path: Path
) -> None:
    descriptor = offline_environment().model_copy(update={"namespace": namespace})
    people = 4
    together, refused = Barrier(people), Semaphore(0)

    def roll_back(_: int) -> str:
        together.wait()
        try:
            with hold_traffic(descriptor, "m", "rollback", tmp_path, print) as hold:
                for _ in range(people - 1):
                    assert refused.acquire(timeout=60)
                hold.confirm()
                return "went on"
        except TrafficHeldError as error:
            refused.release()
            return error.what

    with ThreadPoolExecutor(people) as pool:
        went_on, *others = sorted(pool.map(roll_back, range(people)), key=lambda said: said != "went on")
    assert went_on == "went on"
    assert len(others) == people - 1
    for said in others:
        assert re.match(r"the traffic of m in .* is held: `rollback` in process \d+", said), said


def test_a_lease_is_written_only_as_it_was_read(namespace: str) -> None:
    with connect(namespace) as client:
        nothing = read_lease(client, "l")
        assert (nothing.version, nothing.identity) == (None, "")
        assert write_lease(client, "l", nothing, "one", "who", 60)
        assert not write_lease(client, "l", nothing, "two", "who", 60), "it exists already"
        first = read_lease(client, "l")
        assert (first.identity, first.record) == ("one", "who") and first.expires is not None
        assert write_lease(client, "l", first, "two", "who", 60)
        assert not write_lease(client, "l", first, "three", "who", 60), "it has changed since"
        assert read_lease(client, "l").identity == "two"


def test_the_api_says_what_the_caller_may_do(namespace: str) -> None:
    with connect(namespace) as client:
        assert find_denied(client, (*IN_CLUSTER, Permission("get", "pods"))) == []
