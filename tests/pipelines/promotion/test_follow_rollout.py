"""What a deployment says when the rollout that it follows ends otherwise than hoped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from pipelines.cluster.rollouts import FailedRolloutError, InconclusiveCanaryError
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.promotion.deploy import follow_rollout
from tests.sample_project import PROJECT

MODEL, BUNDLE = "diabetes-progression", "sha256:" + "a" * 64


def follow(error: MlopsError, why: str, pods: str = "") -> MlopsError:
    """Follow a rollout that ends in an error, and whose checks say why; return what a person reads."""
    target: Any = SimpleNamespace(project=Project(PROJECT))
    module = "pipelines.promotion.deploy"
    with (
        mock.patch(f"{module}.check_canary_again", return_value=False),
        mock.patch(f"{module}.wait_for_rollout", mock.Mock(side_effect=error)),
        mock.patch(f"{module}.reason_of_check", return_value=why),
        mock.patch(f"{module}.why_not_ready", return_value=pods),
        pytest.raises(type(error)) as caught,
    ):
        follow_rollout(target, "dev", MODEL, BUNDLE, print, lambda: None)
    found: MlopsError = caught.value
    return found


def test_a_canary_that_failed_is_said_in_the_words_of_its_check() -> None:
    found = follow(FailedRolloutError("the rollout of m in n failed: aborted"), "worse than the live pods")
    assert found.what == "the rollout of m in n failed: aborted; the canary check says: worse than the live pods"
    assert found.fix.startswith("release another bundle, or propose what is live (docs/on-call.md#")


def test_pods_that_never_became_ready_are_to_be_looked_at() -> None:
    found = follow(FailedRolloutError("the rollout of m in n failed: aborted"), "", "the pod p is not ready: Unhealthy")
    assert found.what == "the rollout of m in n failed: aborted; the pod p is not ready: Unhealthy"
    assert f"describe pods -l app.kubernetes.io/name=serve-{MODEL}. Then deploy again" in found.fix


def test_a_canary_without_a_verdict_says_what_is_missing() -> None:
    found = follow(InconclusiveCanaryError("it is paused", fix="deploy again"), "no verdict yet")
    assert (found.what, found.fix) == ("it is paused: no verdict yet", "deploy again")
