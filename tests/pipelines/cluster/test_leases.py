"""Leases while the API server answers late or not at all."""

from __future__ import annotations

from typing import Any

from pipelines.cluster.connection import connect
from pipelines.cluster.leases import LeaseState, write_lease
from tests.pipelines.cluster.conftest import Api

LEASES = "/apis/coordination.k8s.io/v1/namespaces/models/leases"


def lease(identity: str) -> dict[str, Any]:
    return {"metadata": {"name": "l", "resourceVersion": "7"}, "spec": {"holderIdentity": identity}}


def take(seen: LeaseState | None = None) -> bool:
    with connect("models") as client:
        return write_lease(client, "l", seen or LeaseState(), "ours", "record", 60)


def test_a_lease_is_taken_although_the_answer_was_lost(api: Api) -> None:
    api.on("POST", LEASES, 503, None, 409)
    api.on("GET", f"{LEASES}/l", lease("ours"))
    assert take()


def test_a_lease_that_another_command_took_during_an_outage_is_not_ours(api: Api) -> None:
    api.on("POST", LEASES, 503, 409)
    api.on("GET", f"{LEASES}/l", lease("theirs"))
    assert not take()


def test_a_lease_is_renewed_after_a_short_outage(api: Api) -> None:
    api.on("PUT", f"{LEASES}/l", 429, lambda body: body)
    assert take(LeaseState("6", "ours"))
