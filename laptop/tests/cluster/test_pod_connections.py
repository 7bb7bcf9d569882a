"""The product's connections to pods, through the laptop's Kubernetes API."""

from __future__ import annotations

import json

import pytest

from laptop.cluster.kinds import POD, SERVICE
from laptop.tests.cluster.running_cluster import RunningCluster, serving_container
from pipelines.cluster.connection import connect
from pipelines.cluster.pod_connections import pod_connections
from pipelines.cluster.service_pods import PodPort, ready_pods
from pipelines.serving.probe import EndpointClient, UnavailableError


def test_every_ready_pod_behind_a_service_answers_through_the_api(
    cluster: RunningCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        manifest = {
            "metadata": {"name": name, "labels": {"app": "m"}},
            "spec": {"containers": [serving_container(name)]},
        }
        cluster.create(POD, namespace, manifest)
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    cluster.create(SERVICE, namespace, {"metadata": {"name": "m"}, "spec": {"selector": {"app": "m"}, "ports": ports}})
    for name in ("one", "two"):
        cluster.wait(POD, namespace, name, lambda found: '"Ready", "status": "True"' in json.dumps(found.get("status")))
    monkeypatch.setenv("KUBECONFIG", str(cluster.home / "kubeconfig"))
    with connect(namespace) as client, pod_connections(client) as connections:
        found = ready_pods(client, "m")
        assert found == [PodPort("one", 8080), PodPort("two", 8080)]
        for pod in found:
            opened = EndpointClient(
                f"pod://{pod.pod}", "m", connection=connections.connection(namespace, pod.pod, pod.port, timeout=10)
            )
            answers = [opened.infer({"x": "y" * size}) for size in (1, 100_000)]
            assert {answer["version"] for answer in answers} == {pod.pod}
            assert [len(json.loads(answer["body"])["x"]) for answer in answers] == [1, 100_000]
            opened.close()
        gone = connections.connection(namespace, "three", 8080, timeout=10)
        with pytest.raises(UnavailableError, match=r"status 404|does not forward a port of three"):
            EndpointClient("pod://three", "m", connection=gone).served()
