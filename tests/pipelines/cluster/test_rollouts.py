from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from pipelines.cluster.rollouts import (
    FailedRolloutError,
    InconclusiveCanaryError,
    OvertakenError,
    RolloutState,
    abort_rollout,
    bundle_of,
    check_canary_again,
    renamed_bundle,
    rollout_state,
    served_bundle,
    switch_bundle,
    wait_for_rollout,
)
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import ROLLOUT_FIELD_MANAGER
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
        (HEALTHY | {"stableRS": "old"}, RolloutState("Healthy", "", 0, False, False, False, on_trial=True)),
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


def follow(deadline: float = 30, bundle: str = LIVE, check: Callable[[], None] = lambda: None) -> list[RolloutState]:
    seen: list[RolloutState] = []
    wait_for_rollout("models", "m", bundle, on_change=seen.append, deadline_seconds=deadline, check=check)
    return seen


def test_a_rollout_is_followed_until_it_receives_all_traffic(api: Api) -> None:
    step: dict[str, Any] = {
        "observedGeneration": "3",
        "phase": "Paused",
        "canary": {"weights": {"canary": {"weight": 10}}},
    }
    old = HEALTHY | {"observedGeneration": "2"}
    api.on("GET", PATH, rollout(**old), rollout(**step), rollout(**step), rollout(**HEALTHY))
    assert [(state.phase, state.weight, state.settled) for state in follow()] == [
        ("Healthy", 0, False),
        ("Paused", 10, False),
        ("Healthy", 0, True),
    ]


def test_an_aborted_rollout_is_an_error_with_its_reason(api: Api) -> None:
    api.on("GET", PATH, rollout(observedGeneration="3", phase="Degraded", message="metric golden failed"))
    with pytest.raises(FailedRolloutError, match="the rollout of m in models failed: metric golden failed"):
        follow()


def test_an_inconclusive_canary_check_ends_the_wait_and_says_what_to_read(api: Api) -> None:
    paused = {"phase": "Paused", "message": "InconclusiveAnalysisRun"}
    reasons = [{"reason": "InconclusiveAnalysisRun", "startTime": "2026-01-05T12:00:00Z"}]
    before = rollout(observedGeneration="2", pauseConditions=reasons, **paused)
    api.on("GET", PATH, before, rollout(observedGeneration="3", pauseConditions=reasons, **paused))
    with pytest.raises(InconclusiveCanaryError, match="its canary check neither passed nor failed") as caught:
        follow()
    assert caught.value.fix.startswith("deploy again to check it for longer, or stop it")


def test_a_canary_without_a_verdict_is_checked_again_on_request(api: Api) -> None:
    reasons = [{"reason": "InconclusiveAnalysisRun", "startTime": "2026-01-05T12:00:00Z"}]
    paused = rollout(observedGeneration="3", phase="Paused", pauseConditions=reasons)
    api.on("GET", PATH, paused)
    api.on("PATCH", f"{PATH}/status", paused)
    assert check_canary_again("models", "m", LIVE)
    assert api.bodies("PATCH") == [{"metadata": {"resourceVersion": "10"}, "status": {"pauseConditions": None}}]


@pytest.mark.parametrize(
    ("reason", "generation", "bundle"),
    [("CanaryPauseStep", "3", LIVE), ("InconclusiveAnalysisRun", "2", LIVE), ("InconclusiveAnalysisRun", "3", WANTED)],
    ids=["another pause", "of an earlier specification", "another bundle"],
)
def test_nothing_else_is_resumed(api: Api, reason: str, generation: str, bundle: str) -> None:
    reasons = [{"reason": reason, "startTime": "2026-01-05T12:00:00Z"}]
    api.on("GET", PATH, rollout(observedGeneration=generation, phase="Paused", pauseConditions=reasons))
    assert not check_canary_again("models", "m", bundle)


def test_a_pause_between_steps_is_waited_for(api: Api) -> None:
    reasons = [{"reason": "CanaryPauseStep", "startTime": "2026-01-05T12:00:00Z"}]
    step = rollout(observedGeneration="3", phase="Paused", pauseConditions=reasons)
    api.on("GET", PATH, step, step, rollout(**HEALTHY))
    assert follow()[-1].settled


def test_an_earlier_aborted_release_does_not_fail_the_next_one(api: Api) -> None:
    api.on("GET", PATH, rollout(observedGeneration="2", phase="Degraded", message="aborted"), rollout(**HEALTHY))
    assert follow()[-1].settled


def test_a_rollout_that_misses_its_deadline_is_an_error_with_its_state(api: Api) -> None:
    api.on("GET", PATH, rollout(observedGeneration="3", phase="Progressing", message="waiting for pods"))
    with pytest.raises(MlopsError, match="was still Progressing after 0 s: waiting for pods") as caught:
        follow(0.02)
    assert caught.value.fix == "kubectl -n models describe rollout m"


def test_a_short_outage_of_the_cluster_does_not_fail_a_rollout(api: Api) -> None:
    api.on("GET", PATH, 503, None, rollout(), 429, 500, rollout(**HEALTHY))
    assert follow()[-1].settled


def test_a_rollout_that_names_another_bundle_was_overtaken(api: Api) -> None:
    api.on("GET", PATH, rollout(), rollout(WANTED, **HEALTHY))
    with pytest.raises(OvertakenError, match=f"expected {LIVE}, found {WANTED}; another command changed it"):
        follow()


def test_a_lost_lease_ends_the_wait(api: Api) -> None:
    api.on("GET", PATH, rollout())
    with pytest.raises(OvertakenError, match="taken"):
        follow(check=mock.Mock(side_effect=[None, OvertakenError("taken")]))


def test_a_missing_rollout_is_an_error(api: Api) -> None:
    for call in (follow, lambda: switch(WANTED), lambda: abort_rollout("models", "m", LIVE)):
        with pytest.raises(MlopsError, match="no Rollout 'm' in namespace 'models'"):
            call()
    assert served_bundle("models", "m") is None


def test_a_rejected_request_is_a_readable_error(api: Api) -> None:
    api.on("GET", PATH, 403)
    for call in (follow, lambda: switch(WANTED), lambda: abort_rollout("models", "m", LIVE)):
        with pytest.raises(MlopsError, match="the cluster rejected a request: it is 403"):
            call()


# --- switching bundles ------------------------------------------------------------------------------------------------


def switch(bundle: str, deadline: float = 30) -> list[RolloutState]:
    seen: list[RolloutState] = []
    switch_bundle("models", "m", bundle, on_change=seen.append, deadline_seconds=deadline)
    return seen


def applied(resource: dict[str, Any], manager: str = ROLLOUT_FIELD_MANAGER) -> dict[str, Any]:
    """Return a Rollout whose bundle a manager applied; others own the number of replicas and an annotation."""
    container: dict[str, Any] = {
        ".": {},
        "f:name": {},
        "f:image": {},
        "f:command": {},
        "f:env": {'k:{"name":"IMAGE_DIGEST"}': {".": {}, "f:name": {}, "f:value": {}}},
    }
    template = {
        "f:metadata": {"f:labels": {"f:mlops/bundle": {}}, "f:annotations": {"f:mlops/bundle": {}}},
        "f:spec": {"f:containers": {'k:{"name":"serve"}': container}},
    }
    fields = {
        "f:metadata": {"f:annotations": {"f:mlops/bundle": {}}},
        "f:spec": {"f:template": template},
    }
    entry = {"manager": manager, "operation": "Apply", "apiVersion": "argoproj.io/v1alpha1", "fieldsV1": fields}
    resource["metadata"]["managedFields"] = [entry]
    resource["metadata"]["namespace"] = "models"
    return resource


def test_a_switch_applies_what_the_program_would_apply_and_nothing_else(api: Api) -> None:
    before = applied(rollout(**HEALTHY))
    api.on("GET", PATH, before, before, rollout(WANTED, **HEALTHY))
    api.on("PATCH", PATH, lambda body: body)
    assert switch(WANTED)[-1].settled
    (sent,) = api.bodies("PATCH")
    wanted = rollout(WANTED)
    del wanted["spec"]["replicas"]
    assert sent["spec"] == wanted["spec"]
    assert sent["metadata"] == {
        "name": "m",
        "namespace": "models",
        "resourceVersion": "10",
        "annotations": {"mlops/bundle": WANTED},
    }, "a concurrent change makes the write fail"


def test_a_switch_asks_for_a_full_promotion_of_its_bundle_once(api: Api) -> None:
    trial = HEALTHY | {"phase": "Progressing", "stableRS": "old"}
    api.on(
        "GET", PATH, rollout(WANTED, **trial), rollout(WANTED, **trial, promoteFull=True), rollout(WANTED, **HEALTHY)
    )
    api.on("PATCH", f"{PATH}/status", lambda body: body)
    switch(WANTED)
    assert api.bodies("PATCH") == [{"metadata": {"resourceVersion": "10"}, "status": {"promoteFull": True}}]


def test_a_switch_to_a_bundle_whose_trial_was_aborted_promotes_it(api: Api) -> None:
    aborted = HEALTHY | {"phase": "Degraded", "stableRS": "old", "abort": True}
    api.on(
        "GET",
        PATH,
        rollout(WANTED, **aborted),
        rollout(WANTED, **aborted, promoteFull=True),
        rollout(WANTED, **HEALTHY),
    )
    api.on("PATCH", f"{PATH}/status", lambda body: body)
    assert switch(WANTED)[-1].settled


def test_pods_that_fail_after_the_promotion_are_an_error(api: Api) -> None:
    trial = HEALTHY | {"phase": "Progressing", "stableRS": "old"}
    failed = trial | {"phase": "Degraded", "message": "timed out", "promoteFull": True}
    api.on("GET", PATH, rollout(WANTED, **trial), rollout(WANTED, **trial, promoteFull=True), rollout(WANTED, **failed))
    api.on("PATCH", f"{PATH}/status", lambda body: body)
    with pytest.raises(MlopsError, match=f"the pods of {WANTED} in models did not start: timed out"):
        switch(WANTED)


def test_a_switch_to_the_bundle_that_is_served_changes_nothing(api: Api) -> None:
    api.on("GET", PATH, rollout(WANTED, **HEALTHY))
    switch(WANTED)
    assert api.bodies("PATCH") == []


def test_a_switch_is_made_again_if_another_process_undoes_it(api: Api) -> None:
    before = applied(rollout(**HEALTHY))
    api.on("GET", PATH, before, before, before, before, rollout(WANTED, **HEALTHY))
    api.on("PATCH", PATH, lambda body: body)
    switch(WANTED)
    assert len(api.bodies("PATCH")) == 2


def test_a_switch_that_is_always_undone_is_an_error(api: Api) -> None:
    api.on("GET", PATH, applied(rollout(**HEALTHY)))
    api.on("PATCH", PATH, lambda body: body)
    with pytest.raises(OvertakenError, match="another command changed it"):
        switch(WANTED)


def test_a_conflict_with_the_controller_is_retried(api: Api) -> None:
    newer = applied(rollout(**HEALTHY))
    newer["metadata"]["resourceVersion"] = "11"
    api.on("GET", PATH, applied(rollout()), applied(rollout()), newer, rollout(WANTED, **HEALTHY))
    api.on("PATCH", PATH, 409, lambda body: body)
    switch(WANTED)
    assert [body["metadata"]["resourceVersion"] for body in api.bodies("PATCH")] == ["10", "11"]


def test_repeated_conflicts_with_the_controller_are_an_error(api: Api) -> None:
    api.on("GET", PATH, applied(rollout(**HEALTHY)))
    api.on("PATCH", PATH, 409)
    with pytest.raises(MlopsError, match="is busy: 50 changes conflicted"):
        switch(WANTED)


def test_a_short_outage_of_the_cluster_does_not_fail_a_change(api: Api) -> None:
    newer = applied(rollout())
    newer["metadata"]["resourceVersion"] = "11"
    api.on("GET", PATH, applied(rollout()), applied(rollout()), newer, rollout(WANTED, **HEALTHY))
    # The third answer is lost, so the fourth attempt finds that the object has changed.
    api.on("PATCH", PATH, 429, 503, None, 409, lambda body: body)
    switch(WANTED)
    assert len(api.bodies("PATCH")) == 5


def test_a_short_outage_of_the_cluster_does_not_fail_an_abort(api: Api) -> None:
    api.on("GET", PATH, rollout(**HEALTHY | {"phase": "Paused", "stableRS": "old"}))
    api.on("PATCH", f"{PATH}/status", 503, None, lambda body: body)
    assert abort_rollout("models", "m", LIVE)
    assert len(api.bodies("PATCH")) == 3


def test_a_rejected_change_is_an_error(api: Api) -> None:
    api.on("GET", PATH, applied(rollout(**HEALTHY)))
    api.on("PATCH", PATH, 422)
    with pytest.raises(MlopsError, match="the cluster rejected a request: it is 422"):
        switch(WANTED)


def test_a_rollout_that_nobody_applied_is_not_changed(api: Api) -> None:
    api.on("GET", PATH, rollout(**HEALTHY))
    with pytest.raises(MlopsError, match="field manager of the Rollout 'm' in namespace 'models': expected 'mlops'"):
        switch(WANTED)


def test_only_the_trial_of_the_named_bundle_is_aborted(api: Api) -> None:
    trial = HEALTHY | {"phase": "Paused", "stableRS": "old"}
    api.on("GET", PATH, rollout(**trial), rollout(**trial), rollout(**HEALTHY), rollout(**trial, abort=True))
    api.on("PATCH", f"{PATH}/status", lambda body: body)
    assert not abort_rollout("models", "m", WANTED)
    assert abort_rollout("models", "m", LIVE)
    assert not abort_rollout("models", "m", LIVE), "it is the stable one"
    assert abort_rollout("models", "m", LIVE), "it is aborted already"
    assert api.bodies("PATCH") == [{"metadata": {"resourceVersion": "10"}, "status": {"abort": True}}]


def test_an_unrecorded_bundle_is_replaced_too(api: Api) -> None:
    """A release that was never verified is not in the ledger, but must be replaced."""
    unproven = "sha256:" + "d" * 64
    assert renamed_bundle(rollout(unproven), WANTED)["spec"] == rollout(WANTED)["spec"]


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
