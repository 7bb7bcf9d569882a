"""Service link variables of pods."""

from __future__ import annotations

import http.client
import json
import socket

from laptop.cluster.kinds import JOB, ROLLOUT, SERVICE
from laptop.tests.cluster.running_cluster import RunningCluster, expose, job, phase, rollout, wait_for

ASK = """
import http.client, json, os, sys
line = http.client.HTTPConnection(os.environ["M_STABLE_SERVICE_HOST"], int(os.environ["M_STABLE_SERVICE_PORT"]))
line.request("POST", "/asked", b"{}")
print(line.getresponse().read().decode())
"""
VARIABLES = """
import json, os
names = [name for name in os.environ if "_SERVICE_" in name and not name.startswith("KUBERNETES_")]
print(json.dumps({name: os.environ[name] for name in names}))
"""


def printed(cluster: RunningCluster, namespace: str, name: str) -> str:
    (pod,) = cluster.pods_of(namespace, name)
    return cluster.log(namespace, pod["metadata"]["name"])


def variables(cluster: RunningCluster, namespace: str, name: str, **pod: object) -> dict[str, str]:
    cluster.create(JOB, namespace, job(name, VARIABLES, pod=pod))
    cluster.ended(namespace, name)
    found: dict[str, str] = json.loads(printed(cluster, namespace, name))
    return found


def test_a_pod_reaches_a_service_by_its_variables(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    cluster.create(JOB, namespace, job("ask", ASK))
    assert cluster.ended(namespace, "ask")["type"] == "Complete"
    answer = json.loads(printed(cluster, namespace, "ask"))
    assert (answer["version"], answer["path"], answer["body"]) == ("v1", "/asked", "{}")


def test_each_service_has_a_variable_for_its_host_and_for_each_named_port(
    cluster: RunningCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    seen = variables(cluster, namespace, "env")
    assert seen["M_STABLE_SERVICE_HOST"] == seen["M_CANARY_SERVICE_HOST"] == "127.0.0.1"
    assert seen["M_STABLE_SERVICE_PORT"] == seen["M_STABLE_SERVICE_PORT_HTTP"] != seen["M_CANARY_SERVICE_PORT"]


def test_headless_services_and_pods_without_service_links_get_no_variables(
    cluster: RunningCluster, namespace: str
) -> None:
    headless = {"clusterIP": "None", "selector": {"app": "m"}, "ports": [{"port": 80}]}
    cluster.create(SERVICE, namespace, {"metadata": {"name": "headless"}, "spec": headless})
    assert variables(cluster, namespace, "before") == {}
    expose(cluster, namespace)
    assert variables(cluster, namespace, "unlinked", enableServiceLinks=False) == {}


def test_a_service_of_another_namespace_has_no_variables(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(JOB, "default", job(f"env-{namespace}", VARIABLES))
    cluster.ended("default", f"env-{namespace}")
    assert json.loads(printed(cluster, "default", f"env-{namespace}")) == {}
    cluster.delete(JOB, "default", f"env-{namespace}")


def test_a_service_without_pods_answers_503_and_a_deleted_one_stops_listening(
    cluster: RunningCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    port = int(variables(cluster, namespace, "env")["M_STABLE_SERVICE_PORT"])
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    line.request("GET", "/")
    answer = line.getresponse()
    assert (answer.status, b"no pod is ready" in answer.read()) == (503, True)
    line.close()
    cluster.delete(SERVICE, namespace, "m-stable")

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_for(refused)
