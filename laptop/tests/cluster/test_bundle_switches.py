"""The product's changes of a Rollout, made on the laptop's cluster: one owner of its fields, and at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from laptop.cluster.kinds import ROLLOUT
from laptop.engine.provider import ResourceCall
from laptop.kubernetes.kubernetes_provider import PATCH_FIELD_MANAGER, KubernetesProvider
from laptop.tests.cluster.running_cluster import RunningCluster, expose, phase, rollout
from pipelines.cluster.rollouts import (
    OvertakenError,
    RolloutState,
    abort_rollout,
    served_bundle,
    switch_bundle,
    try_change,
    wait_for_rollout,
)
from pipelines.declarations.names import ROLLOUT_FIELD_MANAGER

pytestmark = pytest.mark.slow

TYPE = "kubernetes:argoproj.io/v1alpha1:Rollout"
B1, B2, B3, B4 = ("sha256:" + letter * 64 for letter in "abcd")
STEPS: list[dict[str, Any]] = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]


class Program:
    """Stand-in for the Pulumi program: applies the Rollout with the laptop's provider."""

    def __init__(self, cluster: RunningCluster, namespace: str) -> None:
        self.provider = KubernetesProvider(Path(cluster.home / "kubeconfig"))
        self.namespace = namespace
        self.inputs: dict[str, Any] = {}

    def apply(self, bundle: str, *, steps: list[dict[str, Any]] | None = None) -> None:
        manifest = rollout("x", STEPS if steps is None else steps)
        annotations = {"mlops/bundle": bundle, PATCH_FIELD_MANAGER: ROLLOUT_FIELD_MANAGER}
        manifest["metadata"] = {"name": "m", "namespace": self.namespace, "annotations": annotations}
        template = manifest["spec"]["template"]
        template["metadata"]["labels"]["mlops/bundle"] = bundle.removeprefix("sha256:")[:16]
        (container,) = template["spec"]["containers"]
        container["command"] += ["--bundle", bundle]
        checked = self.provider.check(TYPE, "m", manifest, self.inputs or None)
        call = ResourceCall(TYPE, checked, "urn", f"{self.namespace}/m", self.inputs)
        (self.provider.update if self.inputs else self.provider.create)(call)
        self.inputs = checked


@pytest.fixture
def program(cluster: RunningCluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setenv("KUBECONFIG", str(cluster.home / "kubeconfig"))
    expose(cluster, namespace)
    made = Program(cluster, namespace)
    made.apply(B1)
    follow(namespace, B1)
    return made


def follow(namespace: str, bundle: str) -> list[RolloutState]:
    seen: list[RolloutState] = []
    wait_for_rollout(namespace, "m", bundle, on_change=seen.append, deadline_seconds=30)
    return seen


def switch(namespace: str, bundle: str) -> list[RolloutState]:
    seen: list[RolloutState] = []
    switch_bundle(namespace, "m", bundle, on_change=seen.append, deadline_seconds=30)
    return seen


def test_the_program_deploys_any_bundle_after_a_switch(
    cluster: RunningCluster, namespace: str, program: Program
) -> None:
    program.apply(B2, steps=[])
    follow(namespace, B2)
    switch(namespace, B1)
    assert served_bundle(namespace, "m") == B1
    program.apply(B3, steps=[])
    follow(namespace, B3)
    found = cluster.get(ROLLOUT, namespace, "m")
    owners = {entry["manager"] for entry in found["metadata"]["managedFields"] if entry["operation"] == "Apply"}
    assert owners == {ROLLOUT_FIELD_MANAGER}


def test_a_switch_keeps_what_others_own(cluster: RunningCluster, namespace: str, program: Program) -> None:
    cluster.merge(ROLLOUT, namespace, "m", {"spec": {"replicas": 3}, "metadata": {"annotations": {"theirs": "1"}}})
    switch(namespace, B2)
    found = cluster.get(ROLLOUT, namespace, "m")
    assert (found["spec"]["replicas"], found["metadata"]["annotations"]["theirs"]) == (3, "1")
    assert found["metadata"]["annotations"]["mlops/bundle"] == B2


def test_a_switch_takes_no_steps_whatever_lies_between(
    cluster: RunningCluster, namespace: str, program: Program
) -> None:
    for bundle in (B2, B3):
        program.apply(bundle, steps=[])
        follow(namespace, bundle)
    program.apply(B4)
    phase(cluster, namespace, "Paused")
    switch(namespace, B1)
    status = phase(cluster, namespace, "Healthy")
    assert status["currentPodHash"] == status["stableRS"]
    assert served_bundle(namespace, "m") == B1


def test_an_aborted_trial_returns_traffic_before_its_bundle_leaves(
    cluster: RunningCluster, namespace: str, program: Program
) -> None:
    stable = phase(cluster, namespace, "Healthy")["stableRS"]
    program.apply(B2)
    phase(cluster, namespace, "Paused")
    assert not abort_rollout(namespace, "m", B3)
    assert abort_rollout(namespace, "m", B2)
    assert phase(cluster, namespace, "Degraded")["stableRS"] == stable
    assert abort_rollout(namespace, "m", B2), "idempotent"
    switch(namespace, B1)
    assert phase(cluster, namespace, "Healthy")["stableRS"] == stable
    assert not abort_rollout(namespace, "m", B1), "the stable bundle is not on trial"


def test_a_bundle_whose_trial_was_aborted_can_be_switched_to(
    cluster: RunningCluster, namespace: str, program: Program
) -> None:
    program.apply(B2)
    phase(cluster, namespace, "Paused")
    abort_rollout(namespace, "m", B2)
    phase(cluster, namespace, "Degraded")
    switch(namespace, B2)
    status = phase(cluster, namespace, "Healthy")
    assert status["currentPodHash"] == status["stableRS"]


def test_whoever_waits_for_a_bundle_learns_that_another_one_came(
    cluster: RunningCluster, namespace: str, program: Program
) -> None:
    program.apply(B2)
    phase(cluster, namespace, "Paused")
    switch(namespace, B1)
    with pytest.raises(OvertakenError, match=f"expected {B2}, found {B1}"):
        follow(namespace, B2)


def test_a_change_can_be_tried(cluster: RunningCluster, namespace: str, program: Program) -> None:
    try_change(namespace, "m", B2)
    assert served_bundle(namespace, "m") == B1


def test_a_rollout_of_another_manager_is_taken_over(cluster: RunningCluster, namespace: str, program: Program) -> None:
    """Rollouts that were applied before the program named its field manager."""
    found = cluster.get(ROLLOUT, namespace, "m")
    for entry in found["metadata"]["managedFields"]:
        if entry["manager"] == ROLLOUT_FIELD_MANAGER:
            entry["manager"] = "pulumi-kubernetes-1234"
    cluster.merge(ROLLOUT, namespace, "m", {"metadata": {"managedFields": found["metadata"]["managedFields"]}})
    switch(namespace, B2)
    program.apply(B3, steps=[])
    follow(namespace, B3)
