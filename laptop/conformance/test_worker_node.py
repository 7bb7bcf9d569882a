"""Worker node: the laptop's node on a real API server."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from laptop.cluster.kinds import DEPLOYMENT, EVENT, INGRESS, JOB, NAMESPACE, POD, SERVICE, Kind
from laptop.conformance.control_plane import ControlPlane, running
from laptop.conformance.engines import link_binaries
from laptop.conformance.worker_node import running_node
from laptop.tests.cluster.running_cluster import APP, KnownImages, ending, job, serving_container, wait_for

ENGINES = ("etcd", "kube-apiserver", "kube-controller-manager")
pytestmark = pytest.mark.needs(*ENGINES)

Object = dict[str, Any]
SPACE = "node"


class RealCluster:
    """Client of the cluster, for objects of one namespace."""

    def __init__(self, plane: ControlPlane, api: httpx.Client) -> None:
        self.plane = plane
        self.api = api

    def create(self, kind: Kind, manifest: Object, namespace: str = SPACE) -> Object:
        body = {"apiVersion": kind.api_version, "kind": kind.name, **manifest}
        answer = self.api.post(kind.path(namespace), json=body)
        assert answer.status_code == httpx.codes.CREATED, answer.text
        made: Object = answer.json()
        return made

    def get(self, kind: Kind, name: str) -> Object:
        answer = self.api.get(kind.path(SPACE, name))
        assert answer.status_code == httpx.codes.OK, answer.text
        found: Object = answer.json()
        return found

    def find_all(self, kind: Kind, **query: str) -> list[Object]:
        items: list[Object] = self.api.get(kind.path(SPACE), params=query).json()["items"]
        return items

    def wait(self, kind: Kind, name: str, until: Callable[[Object], Any], seconds: float = 60) -> Object:
        deadline = time.monotonic() + seconds
        while not until(found := self.get(kind, name)):
            assert time.monotonic() < deadline, f"not in time: {json.dumps(found.get('status'))}"
            time.sleep(0.1)
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A control plane whose only node is the laptop's."""
    binaries = link_binaries(tmp_path_factory.mktemp("bin"), ENGINES)
    home = tmp_path_factory.mktemp("plane")
    files = tmp_path_factory.mktemp("image")
    (files / "app.py").write_text(APP)
    with (
        running(home, binaries, argo=False, kwok=False, stand_ins=False) as plane,
        running_node(plane, tmp_path_factory.mktemp("laptop"), KnownImages(files), time_scale=0.1),
        plane.client() as api,
    ):
        cluster = RealCluster(plane, api)
        cluster.create(NAMESPACE, {"metadata": {"name": SPACE}}, "")
        deadline = time.monotonic() + 30
        while api.get(f"/api/v1/namespaces/{SPACE}/serviceaccounts/default").status_code != httpx.codes.OK:
            assert time.monotonic() < deadline, "the controllers made no service account"
            time.sleep(0.1)
        yield cluster


def bare(manifest: Object) -> Object:
    """Return a workload whose pods get no token of the API."""
    manifest["spec"]["template"]["spec"]["automountServiceAccountToken"] = False
    return manifest


def test_a_job_runs_its_command_and_the_api_serves_its_log(cluster: RealCluster) -> None:
    cluster.create(JOB, bare(job("hello", "import os; print('hello from', os.environ['HOSTNAME'])")))
    done = cluster.wait(JOB, "hello", ending)
    assert ending(done)["type"] == "Complete"  # type: ignore[index]
    (pod,) = cluster.find_all(POD, labelSelector="job-name=hello")
    assert pod["spec"]["nodeName"] == "laptop"
    assert pod["status"]["phase"] == "Succeeded"
    log = cluster.api.get(f"{POD.path(SPACE, pod['metadata']['name'])}/log")
    assert log.text == f"hello from {pod['metadata']['name']}\n"


def test_the_log_of_a_running_pod_is_followed_to_its_end(cluster: RealCluster) -> None:
    code = "import time\nfor n in range(3):\n print(n, flush=True)\n time.sleep(0.3)"
    cluster.create(JOB, bare(job("count", code)))
    pods: list[Object] = []
    deadline = time.monotonic() + 30
    while not (pods and pods[0]["status"]["phase"] in ("Running", "Succeeded")):
        assert time.monotonic() < deadline
        pods = cluster.find_all(POD, labelSelector="job-name=count")
    url = f"{POD.path(SPACE, pods[0]['metadata']['name'])}/log?follow=true"
    with cluster.api.stream("GET", url) as answer:
        assert list(answer.iter_lines()) == ["0", "1", "2"]


def test_a_job_that_fails_is_failed_by_the_real_controller(cluster: RealCluster) -> None:
    cluster.create(JOB, bare(job("broken", "raise SystemExit(3)")))
    failed = ending(cluster.wait(JOB, "broken", ending))
    assert failed is not None
    assert (failed["type"], failed["reason"]) == ("Failed", "BackoffLimitExceeded")
    (pod,) = cluster.find_all(POD, labelSelector="job-name=broken")
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_an_image_that_is_missing_is_reported_in_status_and_events(cluster: RealCluster) -> None:
    cluster.create(JOB, bare(job("lost", "pass", pod={"container": {"image": "nowhere/app:1"}})))

    def waits(_: Object) -> bool:
        pods = cluster.find_all(POD, labelSelector="job-name=lost")
        states = [s.get("state", {}) for p in pods for s in p["status"].get("containerStatuses", ())]
        return any("ImagePull" in str(state.get("waiting")) for state in states)

    cluster.wait(JOB, "lost", waits)
    (pod,) = cluster.find_all(POD, labelSelector="job-name=lost")
    events = cluster.find_all(EVENT, fieldSelector=f"involvedObject.name={pod['metadata']['name']}")
    assert "Failed" in {event["reason"] for event in events}


@pytest.fixture(scope="module")
def served(cluster: RealCluster) -> str:
    """A Deployment with a Service and an Ingress; the Ingress's base URL."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    cluster.create(SERVICE, {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}})
    backend = {"service": {"name": "web", "port": {"name": "http"}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    cluster.create(INGRESS, {"metadata": {"name": "web"}, "spec": {"rules": rules}})
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [serving_container("one")]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    cluster.create(DEPLOYMENT, bare({"metadata": {"name": "web"}, "spec": spec}))
    cluster.wait(DEPLOYMENT, "web", lambda found: found.get("status", {}).get("readyReplicas") == 2)
    found = cluster.wait(INGRESS, "web", lambda found: found["status"]["loadBalancer"].get("ingress"))
    balancer = found["status"]["loadBalancer"]["ingress"][0]
    return f"http://{balancer['ip']}:{balancer['ports'][0]['port']}"


def ask(url: str) -> Object:
    with urllib.request.urlopen(f"{url}/x", timeout=10) as answer:
        found: Object = json.load(answer)
        return found


def test_a_deployment_is_probed_and_answers_behind_its_ingress(served: str) -> None:
    assert {ask(served)["version"] for _ in range(6)} == {"one"}
    assert len({ask(served)["pid"] for _ in range(6)}) == 2, "both pods are asked"


def test_the_controllers_make_endpoints_of_the_pods(cluster: RealCluster, served: str) -> None:
    def ready() -> list[Object]:
        slices = cluster.api.get(f"/apis/discovery.k8s.io/v1/namespaces/{SPACE}/endpointslices").json()["items"]
        return [e for s in slices for e in s["endpoints"] or () if e["conditions"]["ready"]]

    wait_for(lambda: len(ready()) == 2, seconds=60)


def test_kubectl_forwards_a_port_of_a_pod(cluster: RealCluster, served: str) -> None:
    command = [
        "kubectl",
        "--kubeconfig",
        str(cluster.plane.kubeconfig),
        "-n",
        SPACE,
        "port-forward",
        "deploy/web",
        ":8080",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()  # Forwarding from 127.0.0.1:41234 -> 8080
            port = int(line.split("127.0.0.1:")[1].split()[0])
            assert ask(f"http://127.0.0.1:{port}")["version"] == "one"
        finally:
            forward.terminate()


def test_a_new_version_replaces_the_pods_and_nothing_is_left(cluster: RealCluster, served: str) -> None:
    template = {"spec": {"containers": [serving_container("two")], "terminationGracePeriodSeconds": 5}}
    patch = {"spec": {"template": template}}
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    cluster.api.patch(DEPLOYMENT.path(SPACE, "web"), json=patch, headers=headers).raise_for_status()

    def is_done(found: Object) -> bool:
        status = found["status"]
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return bool(seen and status.get("updatedReplicas") == status.get("readyReplicas") == status["replicas"] == 2)

    cluster.wait(DEPLOYMENT, "web", is_done)
    deadline = time.monotonic() + 30
    while len(cluster.find_all(POD, labelSelector="app=web")) != 2:
        assert time.monotonic() < deadline, "an old pod is not removed"
        time.sleep(0.1)
    assert {ask(served)["version"] for _ in range(4)} == {"two"}


def test_deleting_the_namespace_ends_its_processes(cluster: RealCluster, served: str, tmp_path: Path) -> None:
    pid = ask(served)["pid"]
    cluster.api.delete(NAMESPACE.path(name=SPACE)).raise_for_status()
    deadline = time.monotonic() + 60
    while cluster.api.get(NAMESPACE.path(name=SPACE)).status_code == httpx.codes.OK:
        assert time.monotonic() < deadline, "the namespace stays"
        time.sleep(0.2)
    assert not Path(f"/proc/{pid}/cmdline").exists()
