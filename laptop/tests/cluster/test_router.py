from __future__ import annotations

import asyncio
import http.client
import json
import socket
import urllib.request
from collections import Counter
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from laptop.cluster.certificates import CertificateAuthority
from laptop.cluster.kinds import JOB, NAMESPACE, POD, ROLLOUT, SERVICE
from laptop.cluster.objects import ObjectStore
from laptop.cluster.ports import PORTS_ANNOTATION
from laptop.cluster.router import Router
from laptop.cluster.routes import ACTIONS, WeightedService, forward_action, targets_of
from laptop.tests.cluster.running_cluster import RunningCluster, expose, job, phase, rollout

pytestmark = pytest.mark.slow


def connection(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)


def send(line: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> Any:
    line.request(method, path, body=body, headers=headers, encode_chunked=not isinstance(body, bytes | None))
    answer = line.getresponse()
    return json.loads(answer.read())


@pytest.fixture
def url(cluster: RunningCluster, namespace: str) -> str:
    address = expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=2))
    phase(cluster, namespace, "Healthy")
    return address


def test_a_request_reaches_the_pod_as_it_was_sent(url: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen = send(connection(url), "POST", "/v2/a%20b?c=d%2Fe", b"{}", Traceparent=trace, Accept="x/y")
    assert (seen["path"], seen["body"]) == ("/v2/a%20b?c=d%2Fe", "{}")
    assert (seen["headers"]["traceparent"], seen["headers"]["accept"]) == (trace, "x/y")
    assert seen["headers"]["host"] == url.removeprefix("http://")
    assert seen["headers"]["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:{port}", "127.0.0.1.rebound.example"])
def test_a_page_whose_name_leads_to_this_machine_reaches_no_ingress(url: str, host: str) -> None:
    line = connection(url)
    line.request("GET", "/", headers={"Host": host.format(port=url.rpartition(":")[2])})
    answer = line.getresponse()
    assert (answer.status, b"expected 127.0.0.1" in answer.read()) == (421, True)
    assert send(connection(url), "GET", "/", Host="localhost")["path"] == "/"


def test_a_connection_is_kept_for_the_next_request_and_pods_take_turns(url: str) -> None:
    line = connection(url)
    pids = Counter(send(line, "GET", "/")["pid"] for _ in range(10))
    assert sorted(pids.values()) == [5, 5]


def test_a_large_body_is_forwarded_completely(url: str) -> None:
    body = b"0123456789" * 60_000
    assert send(connection(url), "POST", "/", body)["body"] == body.decode()


def test_hop_by_hop_headers_are_not_forwarded(url: str) -> None:
    seen = send(connection(url), "GET", "/", Connection="X-Private", **{"X-Private": "1", "X-Public": "2"})
    assert "x-private" not in seen["headers"]
    assert seen["headers"]["x-public"] == "2"


@pytest.mark.parametrize("size", [1, 600_000])
def test_an_unreachable_pod_fails_no_request(size: int) -> None:
    """A failed connection has sent nothing, so the next pod gets the whole request."""

    async def lengths() -> list[int]:
        async def answer(request: web.BaseRequest) -> web.Response:
            return web.Response(text=str(len(await request.read())))

        pod = web.ServerRunner(web.Server(answer, client_max_size=2**20))
        await pod.setup()
        await web.TCPSite(pod, "127.0.0.1", 0).start()
        with socket.socket() as nobody:  # bound and not listening: a connection is refused
            nobody.bind(("127.0.0.1", 0))
            store = ObjectStore()
            router = Router(store, CertificateAuthority())
            await router.start()
            store.create(NAMESPACE, "", {"metadata": {"name": "n"}})
            _pod(store, "dead", nobody.getsockname()[1])
            _pod(store, "alive", pod.addresses[0][1])
            ports = [{"port": 80, "targetPort": "http"}]
            spec = {"selector": {"app": "m"}, "ports": ports}
            store.create(SERVICE, "n", {"metadata": {"name": "s"}, "spec": spec})
            found = []
            async with aiohttp.ClientSession(trust_env=False) as session:
                for _ in range(6):
                    url = "http://s.n.svc/x"
                    async with session.post(url, data=b"x" * size, proxy=router.proxy) as response:
                        found.append(int(await response.text()))
            await router.close()
        await pod.cleanup()
        return found

    assert asyncio.run(asyncio.wait_for(lengths(), 10)) == [size] * 6


def _pod(store: ObjectStore, name: str, port: int) -> None:
    container = {"name": "serve", "ports": [{"name": "http", "containerPort": 8080}]}
    pod = {
        "metadata": {"name": name, "labels": {"app": "m"}, "annotations": {PORTS_ANNOTATION: json.dumps({8080: port})}},
        "spec": {"containers": [container]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    store.create(POD, "n", pod)


def test_pods_reach_services_by_their_cluster_names(cluster: RunningCluster, namespace: str, url: str) -> None:
    code = (
        "import json, urllib.request as u; "
        f"print(json.load(u.urlopen('http://m-stable.{namespace}.svc.cluster.local/x'))['version'], "
        f"json.load(u.urlopen('http://m-stable.{namespace}.svc:80/x'))['path'])"
    )
    cluster.create(JOB, namespace, job("asks", code))
    assert cluster.ended(namespace, "asks")["type"] == "Complete"
    (pod,) = cluster.pods_of(namespace, "asks")
    assert cluster.log(namespace, pod["metadata"]["name"]) == "v1 /x\n"


def test_the_proxy_refuses_hosts_outside_the_cluster(cluster: RunningCluster, namespace: str) -> None:
    code = "import urllib.request as u; u.urlopen('http://www.example.com/')"
    cluster.create(JOB, namespace, job("out", code))
    assert cluster.ended(namespace, "out")["type"] == "Failed"
    (pod,) = cluster.pods_of(namespace, "out")
    assert "502" in cluster.log(namespace, pod["metadata"]["name"])


def test_a_head_request_has_the_length_and_no_body(url: str) -> None:
    request = urllib.request.Request(url, method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 0


@given(st.lists(st.integers(0, 100), min_size=1, max_size=4).filter(any))
@settings(max_examples=50)
def test_each_service_gets_exactly_its_weight_of_the_requests(weights: list[int]) -> None:
    router = Router(ObjectStore(), CertificateAuthority())
    targets = [WeightedService(f"s{index}", 80, weight) for index, weight in enumerate(weights)]
    chosen = Counter(router._choose("uid", targets).service for _ in range(sum(weights)))
    assert chosen == Counter({target.service: target.weight for target in targets if target.weight})


def ingress(*paths: tuple[str, str, str], host: str | None = None, **annotations: str) -> dict[str, Any]:
    entries = [
        {"path": path, "pathType": type_, "backend": {"service": {"name": name, "port": {"number": 80}}}}
        for path, type_, name in paths
    ]
    rule: dict[str, Any] = {"http": {"paths": entries}}
    if host:
        rule["host"] = host
    return {"metadata": {"annotations": annotations}, "spec": {"rules": [rule]}}


@pytest.mark.parametrize(
    ("path", "service"),
    [("/", "root"), ("/a", "a"), ("/a/b", "a"), ("/ab", "root"), ("/exact", "exact"), ("/exact/x", "root")],
)
def test_the_longest_path_that_matches_wins(path: str, service: str) -> None:
    rules = ingress(("/", "Prefix", "root"), ("/a", "Prefix", "a"), ("/exact", "Exact", "exact"))
    assert targets_of(rules, "127.0.0.1", path) == [WeightedService(service, 80, 100)]


def test_the_weights_are_read_from_the_load_balancers_annotation() -> None:
    rules = ingress(("/*", "ImplementationSpecific", "root"))
    backend = rules["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    backend["port"] = {"name": "use-annotation"}
    assert targets_of(rules, "", "/x") == []
    rules["metadata"]["annotations"][f"{ACTIONS}root"] = forward_action(80, {"canary": 10, "stable": 90})
    assert targets_of(rules, "", "/x") == [WeightedService("canary", 80, 10), WeightedService("stable", 80, 90)]
    rules["metadata"]["annotations"][f"{ACTIONS}root"] = "not json"
    assert targets_of(rules, "", "/x") == []
