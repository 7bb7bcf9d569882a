"""Services, reached by pods by their DNS names."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from laptop.cluster.kinds import ENDPOINTS, JOB, ROLLOUT, SERVICE
from laptop.tests.cluster.running_cluster import RunningCluster, expose, job, new_namespace, phase, rollout, wait_for

pytestmark = pytest.mark.slow

REQUEST = """
import sys, urllib.error, urllib.request
for _ in range({times}):
    try:
        print(urllib.request.urlopen({url!r}, data=b"{{}}", timeout=10).read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
"""


def request(cluster: RunningCluster, namespace: str, url: str, times: int = 1) -> list[str]:
    """Request a URL in a pod, and return the answers."""
    name = f"ask-{abs(hash((url, times)))}"
    cluster.create(JOB, namespace, job(name, REQUEST.format(url=url, times=times)))
    assert cluster.ended(namespace, name)["type"] == "Complete"
    (pod,) = cluster.pods_of(namespace, name)
    return cluster.log(namespace, pod["metadata"]["name"]).splitlines()


@pytest.mark.parametrize("suffix", [".svc", ".svc.cluster.local", ".svc:80", ""])
def test_a_pod_reaches_a_service_of_any_namespace_by_its_name(
    cluster: RunningCluster, namespace: str, suffix: str
) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    other = new_namespace(cluster, f"{namespace}-other{abs(hash(suffix))}")
    for space in (namespace, other):
        (answer,) = request(cluster, space, f"http://m-stable.{namespace}{suffix}/asked")
        facts = json.loads(answer)
        assert (facts["version"], facts["path"], facts["body"]) == ("v1", "/asked", "{}")


def test_the_canary_service_reaches_only_the_new_pods(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    steps: list[dict[str, Any]] = [{"setWeight": 1}, {"pause": {}}]
    cluster.create(ROLLOUT, namespace, rollout("v1", steps, replicas=1))
    phase(cluster, namespace, "Healthy")
    cluster.merge(ROLLOUT, namespace, "m", {"spec": rollout("v2", steps, replicas=1)["spec"]})
    phase(cluster, namespace, "Paused", 1)
    answers = request(cluster, namespace, f"http://m-canary.{namespace}.svc/", 5)
    assert [json.loads(answer)["version"] for answer in answers] == ["v2"] * 5


def test_a_service_without_pods_answers_503(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    (answer,) = request(cluster, namespace, f"http://m-stable.{namespace}.svc/")
    assert answer.startswith("503 ")
    assert "no pod is ready" in answer


@pytest.mark.parametrize("host", ["www.example.com", "m.n.svc.example.com", "localhost.localdomain.x"])
def test_every_other_host_is_refused_with_the_expected_form(cluster: RunningCluster, namespace: str, host: str) -> None:
    (answer,) = request(cluster, namespace, f"http://{host}/")
    assert answer.startswith("502 ")
    assert "expected http://<service>.<namespace>.svc[:port]" in answer


def test_endpoints_follow_the_pods_of_a_service(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    found = cluster.wait(ENDPOINTS, namespace, "m-stable", lambda obj: True)
    assert "subsets" not in found
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=2))
    phase(cluster, namespace, "Healthy")

    def addresses(obj: dict[str, Any]) -> list[tuple[str, int]]:
        subsets = [subset for subset in obj.get("subsets", ()) if "addresses" in subset]
        return [(subset["addresses"][0]["ip"], subset["ports"][0]["port"]) for subset in subsets]

    found = cluster.wait(ENDPOINTS, namespace, "m-stable", lambda obj: len(addresses(obj)) == 2)
    for host, port in addresses(found):
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as answer:
            assert json.load(answer)["version"] == "v1"
    cluster.delete(SERVICE, namespace, "m-stable")
    wait_for(lambda: cluster.client.get(ENDPOINTS.path(namespace, "m-stable")) is None)


TUNNEL = """
import http.client, os, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["http_proxy"])
line = http.client.HTTPConnection(proxy.hostname, proxy.port, timeout=10)
line.set_tunnel({host!r}, {port})
try:
    for path in ("/first", "/second"):
        line.request("POST", path, body=b"x" * {size})
        print(line.getresponse().read().decode()[:200])
except OSError as error:
    print(error)
"""


def tunnelled(cluster: RunningCluster, namespace: str, host: str, port: int = 80, size: int = 1) -> list[str]:
    """Send two requests in a pod through a tunnel, and return the answers."""
    name = f"dig-{abs(hash((host, port, size)))}"
    cluster.create(JOB, namespace, job(name, TUNNEL.format(host=host, port=port, size=size)))
    assert cluster.ended(namespace, name)["type"] == "Complete"
    (pod,) = cluster.pods_of(namespace, name)
    return cluster.log(namespace, pod["metadata"]["name"]).splitlines()


def test_a_pod_opens_a_tunnel_to_a_service_as_grpc_does(cluster: RunningCluster, namespace: str) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    first, second = (json.loads(answer) for answer in tunnelled(cluster, namespace, f"m-stable.{namespace}.svc"))
    assert (first["path"], second["path"], first["pid"]) == ("/first", "/second", second["pid"])
    assert "x-forwarded-for" not in first["headers"]
    large = tunnelled(cluster, namespace, f"m-stable.{namespace}.svc", size=400_000)
    assert [answer[:17] for answer in large] == ['{"version": "v1",'] * 2


@pytest.mark.parametrize(
    ("host", "told"), [("m-stable.nowhere.svc", "503"), ("www.example.com", "502"), ("127.0.0.1", "502")]
)
def test_a_tunnel_leads_to_services_only(cluster: RunningCluster, namespace: str, host: str, told: str) -> None:
    (answer,) = tunnelled(cluster, namespace, host)
    assert told in answer
