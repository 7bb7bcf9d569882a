from __future__ import annotations

import copy
from typing import Any

import pytest

from pipelines.cluster.rollouts import (
    RolloutState,
    bundle_of,
    renamed_bundle,
    rollout_state,
    serve_bundle,
    wait_for_rollout,
)
from pipelines.declarations.errors import MlopsError
from tests.pipelines.cluster.conftest import Api

LIVE, WANTED = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IMAGE = "registry/serving@sha256:" + "c" * 64
PATH = "/apis/argoproj.io/v1alpha1/namespaces/models/rollouts/m"


def rollout(bundle: str = LIVE, **status: Any) -> dict[str, Any]:
    short = bundle.removeprefix("sha256:")[:16]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {
            "name": "m",
            "generation": 3,
            "resourceVersion": "10",
            "annotations": {"mlops/bundle": bundle, "owner": "team"},
        },
        "spec": {
            "replicas": 2,
            "template": {
                "metadata": {"labels": {"mlops/bundle": short}, "annotations": {"mlops/bundle": bundle}},
                "spec": {
                    "containers": [
                        {
                            "name": "serve",
                            "image": IMAGE,
                            "command": ["python", "-m", "pipelines.serving", "--model", "m", "--bundle", bundle],
                            "env": [{"name": "IMAGE_DIGEST", "value": "sha256:" + "c" * 64}],
                        }
                    ]
                },
            },
        },
        "status": status,
    }


HEALTHY = {"observedGeneration": "3", "phase": "Healthy", "currentPodHash": "x", "stableRS": "x"}


# --- state of a rollout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, RolloutState("Progressing", "", 0, False, False, False)),
        (HEALTHY, RolloutState("Healthy", "", 0, True, False, True)),
        (HEALTHY | {"observedGeneration": 3}, RolloutState("Healthy", "", 0, True, False, True)),
        (HEALTHY | {"observedGeneration": "2"}, RolloutState("Healthy", "", 0, False, False, False)),
        (HEALTHY | {"stableRS": "old"}, RolloutState("Healthy", "", 0, False, False, False)),
        (HEALTHY | {"currentPodHash": "", "stableRS": ""}, RolloutState("Healthy", "", 0, False, False, False)),
        (HEALTHY | {"phase": "Paused"}, RolloutState("Paused", "", 0, False, False, False)),
        (
            HEALTHY | {"phase": "Progressing", "message": "more", "canary": {"weights": {"canary": {"weight": 10}}}},
            RolloutState("Progressing", "more", 10, False, False, False),
        ),
        (HEALTHY | {"phase": "Degraded"}, RolloutState("Degraded", "", 0, False, True, False)),
        (
            {"observedGeneration": "2", "phase": "Degraded", "message": "the one before was aborted"},
            RolloutState("Degraded", "the one before was aborted", 0, False, False, False),
        ),
        ({"canary": {}}, RolloutState("Progressing", "", 0, False, False, False)),
        ({"canary": {"weights": None}}, RolloutState("Progressing", "", 0, False, False, False)),
    ],
)
def test_the_state_of_a_rollout_follows_its_status(status: dict[str, Any], expected: RolloutState) -> None:
    assert rollout_state(rollout(**status)) == expected


def test_a_rollout_without_a_status_is_progressing() -> None:
    resource = rollout()
    del resource["status"]
    assert rollout_state(resource).phase == "Progressing"


# --- following a rollout ----------------------------------------------------------------------------------------------


def follow(deadline: float = 30) -> list[RolloutState]:
    seen: list[RolloutState] = []
    wait_for_rollout("models", "m", on_change=seen.append, deadline_seconds=deadline)
    return seen


def test_a_rollout_is_followed_until_it_receives_all_traffic(api: Api) -> None:
    step = {"observedGeneration": "3", "phase": "Paused", "canary": {"weights": {"canary": {"weight": 10}}}}
    old = HEALTHY | {"observedGeneration": "2"}
    api.on("GET", PATH, rollout(**old), rollout(**step), rollout(**step), rollout(**HEALTHY))
    assert [(state.phase, state.weight, state.settled) for state in follow()] == [
        ("Healthy", 0, False),
        ("Paused", 10, False),
        ("Healthy", 0, True),
    ]


def test_an_aborted_rollout_is_an_error_with_its_reason(api: Api) -> None:
    api.on("GET", PATH, rollout(observedGeneration="3", phase="Degraded", message="metric golden failed"))
    with pytest.raises(MlopsError, match="the rollout of m in models failed: metric golden failed"):
        follow()


def test_an_earlier_aborted_release_does_not_fail_the_next_one(api: Api) -> None:
    api.on("GET", PATH, rollout(observedGeneration="2", phase="Degraded", message="aborted"), rollout(**HEALTHY))
    assert follow()[-1].settled


def test_a_rollout_that_misses_its_deadline_is_an_error_with_its_state(api: Api) -> None:
    api.on("GET", PATH, rollout(observedGeneration="3", phase="Progressing", message="waiting for pods"))
    with pytest.raises(MlopsError, match="was still Progressing after 0 s: waiting for pods") as caught:
        follow(0.02)
    assert caught.value.fix == "kubectl -n models describe rollout m"


def test_a_short_outage_of_the_cluster_does_not_fail_a_rollout(api: Api) -> None:
    api.on("GET", PATH, 503, None, rollout(), 500, rollout(**HEALTHY))
    assert follow()[-1].settled


def test_a_missing_rollout_is_an_error(api: Api) -> None:
    with pytest.raises(MlopsError, match="no Rollout 'm' in namespace 'models'"):
        follow()
    with pytest.raises(MlopsError, match="no Rollout 'm' in namespace 'models'"):
        serve_bundle("models", "m", WANTED)


def test_a_rejected_request_is_a_readable_error(api: Api) -> None:
    api.on("GET", PATH, 403)
    for call in (follow, lambda: serve_bundle("models", "m", WANTED)):
        with pytest.raises(MlopsError, match="the cluster rejected a request: it is 403"):
            call()


# --- serving another bundle -------------------------------------------------------------------------------------------


def test_serving_another_bundle_writes_what_the_program_would_write(api: Api) -> None:
    api.on("GET", PATH, rollout(**HEALTHY))
    api.on("PUT", PATH, lambda body: body)
    serve_bundle("models", "m", WANTED)
    (sent,) = api.bodies("PUT")
    wanted = rollout(WANTED, **HEALTHY)
    assert (sent["spec"], sent["metadata"]) == (wanted["spec"], wanted["metadata"])
    assert sent["metadata"]["resourceVersion"] == "10", "a concurrent change makes the write fail"


def test_serving_the_same_bundle_again_changes_nothing(api: Api) -> None:
    api.on("GET", PATH, rollout(WANTED, **HEALTHY))
    serve_bundle("models", "m", WANTED)
    assert api.bodies("PUT") == []


def test_an_unrecorded_bundle_is_replaced_too(api: Api) -> None:
    """A release that was never verified is not in the ledger, but must be replaced."""
    unproven = "sha256:" + "d" * 64
    assert renamed_bundle(rollout(unproven), WANTED)["spec"] == rollout(WANTED)["spec"]


def test_a_conflict_with_the_controller_is_retried(api: Api) -> None:
    newer = rollout(**HEALTHY)
    newer["metadata"]["resourceVersion"] = "11"
    api.on("GET", PATH, rollout(**HEALTHY), newer)
    api.on("PUT", PATH, 409, lambda body: body)
    serve_bundle("models", "m", WANTED)
    assert [body["metadata"]["resourceVersion"] for body in api.bodies("PUT")] == ["10", "11"]


def test_repeated_conflicts_with_the_controller_are_an_error(api: Api) -> None:
    api.on("GET", PATH, rollout(**HEALTHY))
    api.on("PUT", PATH, 409)
    with pytest.raises(MlopsError, match="is busy: 50 changes conflicted"):
        serve_bundle("models", "m", WANTED)


def test_a_rejected_change_is_an_error(api: Api) -> None:
    api.on("GET", PATH, rollout(**HEALTHY))
    api.on("PUT", PATH, 422)
    with pytest.raises(MlopsError, match="the cluster rejected a request: it is 422"):
        serve_bundle("models", "m", WANTED)


def test_the_bundle_of_a_rollout_is_the_option_in_its_command() -> None:
    assert bundle_of(rollout()) == LIVE
    moved = copy.deepcopy(rollout())
    (container,) = moved["spec"]["template"]["spec"]["containers"]
    container["args"] = container.pop("command")[3:]
    assert bundle_of(moved) == LIVE


@pytest.mark.parametrize("command", [None, [], ["python"], ["python", "--bundle"]])
def test_a_rollout_that_serves_no_bundle_is_an_error(command: list[str] | None) -> None:
    resource = rollout()
    resource["spec"]["template"]["spec"]["containers"][0]["command"] = command
    with pytest.raises(MlopsError, match="the Rollout 'm' serves no bundle"):
        bundle_of(resource)
    with pytest.raises(MlopsError, match="serves no bundle"):
        bundle_of({"metadata": {"name": "m"}, "spec": {}})
