"""`mlops doctor`: what is there on a real API server is found, and what is missing is said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from laptop.conformance.control_plane import ControlPlane
from pipelines.declarations.project import Project
from pipelines.targets.cluster_prerequisites import LOAD_BALANCER_LABELS, ROLLOUTS_LABELS, check_cluster
from pipelines.targets.target import Finding
from tests.sample_project import copy_as_forked

_NAMESPACE = "doctor"
_WITHIN = 60.0  # seconds until the controllers have made a deployment available


def deployment(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return a Deployment of one pod."""
    container = {"name": name, "image": f"example/{name}"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
def findings(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs the checks and returns finding by name."""
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    project = Project(copy_as_forked(tmp_path / "project"))

    def run() -> dict[str, Finding]:
        return {finding.name: finding for finding in check_cluster(project, ("dev",))}

    return run


@pytest.fixture
def api(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    with control_plane.client() as client:
        created(client.post("/api/v1/namespaces", json={"metadata": {"name": _NAMESPACE}}))
        yield client
        client.delete("/apis/networking.k8s.io/v1/ingressclasses/alb")
        client.delete(f"/api/v1/namespaces/{_NAMESPACE}")


def created(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 201), answer.text


def test_controllers_are_found_once_they_run(findings: Any, api: httpx.Client) -> None:
    before = findings()
    assert before["Kubernetes cluster"].ok
    assert before["Argo Rollouts: kinds"].ok
    assert before["access for dev"].ok
    assert before["Argo Rollouts: running"].found == "no such controller"
    assert before["metrics API"].found == "v1beta1.metrics.k8s.io is not registered"
    assert before["ingress class of dev"].found == "alb does not exist"
    for name, labels in (("rollouts", ROLLOUTS_LABELS), ("load-balancer", LOAD_BALANCER_LABELS)):
        created(api.post(f"/apis/apps/v1/namespaces/{_NAMESPACE}/deployments", json=deployment(name, labels)))
    alb = {"metadata": {"name": "alb"}, "spec": {"controller": "ingress.k8s.aws/alb"}}
    created(api.post("/apis/networking.k8s.io/v1/ingressclasses", json=alb))
    deadline = time.monotonic() + _WITHIN
    after = findings()
    while not (after["Argo Rollouts: running"].ok and after["ingress class of dev"].ok):
        assert time.monotonic() < deadline, after
        time.sleep(0.5)
        after = findings()
    assert after["Argo Rollouts: running"].found == f"{_NAMESPACE}/rollouts: 1 available"
    assert after["ingress class of dev"].found == f"alb: {_NAMESPACE}/load-balancer: 1 available"
