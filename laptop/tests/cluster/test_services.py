"""How pods find the Services of their namespace: by the variables of Kubernetes."""

from __future__ import annotations

import http.client
import json
import socket

from laptop.cluster.kinds import JOB, ROLLOUT, SERVICE
from laptop.tests.cluster.small_cluster import SmallCluster, expose, job, phase, rollout, wait_for

ASK = """
import http.client, json, os, sys
line = http.client.HTTPConnection(os.environ["M_STABLE_SERVICE_HOST"], int(os.environ["M_STABLE_SERVICE_PORT"]))
line.request("POST", "/asked", b"{}")
print(line.getresponse().read().decode())
"""
VARIABLES = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if '_SERVICE_' in k}))"


def printed(cluster: SmallCluster, namespace: str, name: str) -> str:
    (pod,) = cluster.pods_of(namespace, name)
    return cluster.log(namespace, pod["metadata"]["name"])


def variables(cluster: SmallCluster, namespace: str, name: str, **pod: object) -> dict[str, str]:
    cluster.create(JOB, namespace, job(name, VARIABLES, pod=pod))
    cluster.ended(namespace, name)
    found: dict[str, str] = json.loads(printed(cluster, namespace, name))
    return found


def test_a_pod_asks_a_service_of_its_namespace_by_its_variables(cluster: SmallCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    cluster.create(JOB, namespace, job("ask", ASK))
    assert cluster.ended(namespace, "ask")["type"] == "Complete"
    answer = json.loads(printed(cluster, namespace, "ask"))
    assert (answer["version"], answer["path"], answer["body"]) == ("v1", "/asked", "{}")


def test_the_canary_service_leads_to_the_new_pods_alone_whatever_the_weight(
    cluster: SmallCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    steps = [{"setWeight": 1}, {"pause": {}}]
    cluster.create(ROLLOUT, namespace, rollout("v1", steps, replicas=1))
    phase(cluster, namespace, "Healthy")
    cluster.merge(ROLLOUT, namespace, "m", {"spec": rollout("v2", steps, replicas=1)["spec"]})
    phase(cluster, namespace, "Paused", 1)
    canary = ASK.replace("M_STABLE", "M_CANARY")
    cluster.create(JOB, namespace, job("ask-canary", f"for _ in range(5):\n    exec({canary!r})"))
    cluster.ended(namespace, "ask-canary")
    answers = [json.loads(line) for line in printed(cluster, namespace, "ask-canary").split("\n") if line]
    assert [answer["version"] for answer in answers] == ["v2"] * 5


def test_each_service_has_an_address_by_its_name_and_by_the_name_of_its_port(
    cluster: SmallCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    seen = variables(cluster, namespace, "env")
    assert seen["M_STABLE_SERVICE_HOST"] == seen["M_CANARY_SERVICE_HOST"] == "127.0.0.1"
    assert seen["M_STABLE_SERVICE_PORT"] == seen["M_STABLE_SERVICE_PORT_HTTP"] != seen["M_CANARY_SERVICE_PORT"]


def test_a_service_without_an_address_or_a_pod_that_wants_none_gets_no_variables(
    cluster: SmallCluster, namespace: str
) -> None:
    headless = {"clusterIP": "None", "selector": {"app": "m"}, "ports": [{"port": 80}]}
    cluster.create(SERVICE, namespace, {"metadata": {"name": "headless"}, "spec": headless})
    assert variables(cluster, namespace, "before") == {}
    expose(cluster, namespace)
    assert variables(cluster, namespace, "unlinked", enableServiceLinks=False) == {}


def test_a_service_of_another_namespace_is_not_named(cluster: SmallCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(JOB, "default", job(f"env-{namespace}", VARIABLES))
    cluster.ended("default", f"env-{namespace}")
    assert json.loads(printed(cluster, "default", f"env-{namespace}")) == {}
    cluster.delete(JOB, "default", f"env-{namespace}")


def test_a_service_that_has_no_pods_says_so_and_one_that_is_gone_listens_no_more(
    cluster: SmallCluster, namespace: str
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
