"""Harness: a control plane that is started, and one that runs already."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from laptop.conformance.control_plane import NODE, ControlPlane, attached
from laptop.conformance.engines import link_binaries


def deployment(name: str) -> dict[str, object]:
    pod = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "nowhere/app:1"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": pod}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def ready_pods(plane: ControlPlane, name: str) -> int:
    with plane.client() as api:
        path = "/apis/apps/v1/namespaces/default/deployments"
        api.post(path, json=deployment(name)).raise_for_status()
        deadline = time.monotonic() + 60
        while not (ready := api.get(f"{path}/{name}").json()["status"].get("readyReplicas")):
            assert time.monotonic() < deadline, "kwok marks no pod as running"
            time.sleep(0.2)
        pods = api.get("/api/v1/namespaces/default/pods", params={"labelSelector": f"app={name}"}).json()["items"]
        assert {pod["spec"]["nodeName"] for pod in pods} == {NODE}
        return int(ready)


def test_pods_of_a_deployment_are_marked_as_running(control_plane: ControlPlane) -> None:
    assert ready_pods(control_plane, "started") > 0


@pytest.mark.needs("kwok")
def test_a_cluster_that_runs_already_gets_a_node_and_keeps_its_own_closed(
    api_server: ControlPlane, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """The API server of `api_server` stands for a cluster of kind; a node of its own would pull images."""
    with api_server.client() as api:
        api.post("/api/v1/nodes", json={"metadata": {"name": "own"}}).raise_for_status()
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        with control_plane.client() as other:
            rollouts = other.get(f"{crds}/rollouts.argoproj.io").json()
        kept = {key: rollouts[key] for key in ("apiVersion", "kind", "spec")}
        api.post(crds, json={**kept, "metadata": {"name": "rollouts.argoproj.io"}}).raise_for_status()
        binaries = link_binaries(tmp_path / "bin", ("kwok",))
        with attached(tmp_path / "home", api_server.kubeconfig, binaries) as plane:
            assert ready_pods(plane, "attached") > 0
            assert api.get("/api/v1/nodes/own").json()["spec"]["unschedulable"] is True
