"""The product's connections to pods, through the laptop's Kubernetes API."""

from __future__ import annotations

import json

import pytest

from laptop.cluster.kinds import POD
from laptop.tests.cluster.running_cluster import RunningCluster, serving_container
from pipelines.cluster.connection import connect
from pipelines.cluster.pod_connections import pod_connections
from pipelines.serving.probe import EndpointClient, UnavailableError


def test_every_pod_answers_through_the_api(
    cluster: RunningCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        manifest = {
            "metadata": {"name": name, "labels": {"app": "m"}},
            "spec": {"containers": [serving_container(name)]},
        }
        cluster.create(POD, namespace, manifest)
    for name in ("one", "two"):
        cluster.wait(POD, namespace, name, lambda found: '"Ready", "status": "True"' in json.dumps(found.get("status")))
    monkeypatch.setenv("KUBECONFIG", str(cluster.home / "kubeconfig"))
    with connect(namespace) as client, pod_connections(client) as connections:
        for pod in ("one", "two"):
            opened = EndpointClient(
                f"pod://{pod}", "m", connection=connections.connection(namespace, pod, 8080, timeout=10)
            )
            answers = [opened.infer({"x": "y" * size}) for size in (1, 100_000)]
            assert {answer["version"] for answer in answers} == {pod}
            assert [len(json.loads(answer["body"])["x"]) for answer in answers] == [1, 100_000]
            opened.close()
        gone = connections.connection(namespace, "three", 8080, timeout=10)
        with pytest.raises(UnavailableError, match=r"status 404|does not forward a port of three"):
            EndpointClient("pod://three", "m", connection=gone).served()
