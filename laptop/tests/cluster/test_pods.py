"""Init containers, ports, volumes, and access to the API from pods."""

from __future__ import annotations

import json
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from laptop.cluster.kinds import CONFIG_MAP, INGRESS, JOB, POD, ROLE, ROLE_BINDING, SECRET, SERVICE, SERVICE_ACCOUNT
from laptop.cluster.ports import replace_port, replace_port_in_word
from laptop.cluster.volumes import replace_paths
from laptop.tests.cluster.running_cluster import IMAGE, RunningCluster, job, serving_container, wait_for

pytestmark = pytest.mark.slow

# A server on every port that it is given.
SERVER = """
import http.server, os, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode() + b" on " + self.server.name.encode())
servers = []
for name, port in (("http", int(os.environ["PORT"])), ("metrics", int(sys.argv[1].partition("=")[2]))):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer)
    server.name = name
    servers.append(threading.Thread(target=server.serve_forever))
    servers[-1].start()
"""


def container(name: str, code: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": ["python", "-c", code], **more}


def pod(name: str, spec: dict[str, Any], **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"restartPolicy": "Never", **spec}}


def ended(cluster: RunningCluster, namespace: str, name: str) -> dict[str, Any]:
    found = cluster.wait(POD, namespace, name, lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"))
    status: dict[str, Any] = found["status"]
    return status


def test_init_containers_run_one_after_another_before_the_main_one(cluster: RunningCluster, namespace: str) -> None:
    append = "import os; open(os.environ['HOME'] + '/seen', 'a').write('{} ')"
    initial = [container("first", append.format("first")), container("second", append.format("second"))]
    main = container("main", "import os; print(open(os.environ['HOME'] + '/seen').read())")
    cluster.create(POD, namespace, pod("p", {"initContainers": initial, "containers": [main]}))
    status = ended(cluster, namespace, "p")
    assert status["phase"] == "Succeeded"
    assert cluster.log(namespace, "p").split() == ["first", "second"]
    assert [item["state"]["terminated"]["reason"] for item in status["initContainerStatuses"]] == ["Completed"] * 2
    assert {item["type"]: item["status"] for item in status["conditions"]}["Initialized"] == "True"


def test_an_init_container_that_fails_fails_the_pod_and_the_main_one_never_starts(
    cluster: RunningCluster, namespace: str
) -> None:
    spec = {"initContainers": [container("setup", "print('broken'); exit(4)")], "containers": [container("main", "")]}
    cluster.create(POD, namespace, pod("p", spec))
    status = ended(cluster, namespace, "p")
    assert status["phase"] == "Failed"
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert cluster.log(namespace, "p", "?container=setup") == "broken\n"
    assert "waiting" in status["containerStatuses"][0]["state"]


def test_an_init_container_is_restarted_under_the_policy_on_failure(cluster: RunningCluster, namespace: str) -> None:
    code = "import os, sys; f = os.environ['HOME'] + '/tried'; t = os.path.exists(f); open(f, 'w'); sys.exit(not t)"
    spec = {"restartPolicy": "OnFailure", "initContainers": [container("setup", code)]}
    cluster.create(POD, namespace, pod("p", {**spec, "containers": [container("main", "print('ran')")]}))
    status = ended(cluster, namespace, "p")
    assert (status["phase"], status["initContainerStatuses"][0]["restartCount"]) == ("Succeeded", 1)


def test_a_service_reaches_each_port_of_a_pod_by_name_and_by_number(cluster: RunningCluster, namespace: str) -> None:
    server = container(
        "serve",
        SERVER,
        args=["--metrics=9090"],
        env=[{"name": "PORT", "value": "8080"}],
        ports=[{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
        readinessProbe={"httpGet": {"path": "/ready", "port": "metrics"}, "periodSeconds": 1},
        livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    )
    cluster.create(POD, namespace, pod("p", {"containers": [server]}, app="p"))
    ports = [
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "metrics", "port": 9000, "targetPort": 9090},
    ]
    cluster.create(SERVICE, namespace, {"metadata": {"name": "s"}, "spec": {"selector": {"app": "p"}, "ports": ports}})
    cluster.wait(POD, namespace, "p", lambda found: found["status"]["containerStatuses"][0].get("ready"))
    code = "\n".join(
        (
            "import urllib.request as u",
            f"print(u.urlopen('http://s.{namespace}.svc/a').read().decode())",
            f"print(u.urlopen('http://s.{namespace}.svc.cluster.local:9000/b').read().decode())",
        )
    )
    cluster.create(JOB, namespace, job("ask", code))
    assert cluster.ended(namespace, "ask")["type"] == "Complete"
    (asker,) = cluster.pods_of(namespace, "ask")
    assert cluster.log(namespace, asker["metadata"]["name"]).splitlines() == ["/a on http", "/b on metrics"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8080", "20001"), ("--port=8080", "--port=20001"), ("0.0.0.0:8080", "0.0.0.0:20001")]
    + [(same, same) for same in ("80801", "x8080", "http://s:8080/x", "8081", "")],
)
def test_a_word_is_a_port_only_as_a_whole_or_at_its_end(text: str, expected: str) -> None:
    assert replace_port_in_word(text, {8080: 20001}) == expected
    assert replace_port(text, {8080: 20001}) == ("20001" if text == "8080" else text)


def test_config_maps_and_secrets_are_files_at_the_paths_of_the_arguments(
    cluster: RunningCluster, namespace: str
) -> None:
    code = "import os, sys; print(open(sys.argv[1]).read(), open(os.environ['KEY']).read(), os.listdir(sys.argv[2]))"
    main = container(
        "main",
        code,
        args=["/etc/model/settings.json", "/etc/model"],
        env=[{"name": "KEY", "value": "/run/key/pass"}],
        volumeMounts=[{"name": "settings", "mountPath": "/etc/model"}, {"name": "key", "mountPath": "/run/key"}],
    )
    volumes = [
        {"name": "settings", "configMap": {"name": "c", "items": [{"key": "s", "path": "settings.json"}]}},
        {"name": "key", "secret": {"secretName": "k"}},
    ]
    cluster.create(POD, namespace, pod("p", {"containers": [main], "volumes": volumes}))
    cluster.create(SECRET, namespace, {"metadata": {"name": "k"}, "stringData": {"pass": "s3cret"}})

    def reason(found: dict[str, Any]) -> str:
        state = found["status"]["containerStatuses"][0]["state"]
        return str((state.get("waiting") or {}).get("message"))

    cluster.wait(POD, namespace, "p", lambda found: reason(found) == 'configmap "c" not found')
    cluster.create(CONFIG_MAP, namespace, {"metadata": {"name": "c"}, "data": {"s": "{}", "unused": ""}})
    assert ended(cluster, namespace, "p")["phase"] == "Succeeded"
    assert cluster.log(namespace, "p") == "{} s3cret ['settings.json']\n"


def test_paths_in_json_documents_are_those_of_other_containers() -> None:
    mounts = {"/tmp": Path("/home/pods/p/tmp")}
    assert replace_paths("--folder=/tmp/x", mounts) == "--folder=/home/pods/p/tmp/x"
    template = '{"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}'
    assert replace_paths(template, mounts) == template


def test_an_ingress_with_tls_answers_https_with_a_certificate_of_the_laptop(
    cluster: RunningCluster, namespace: str
) -> None:
    cluster.create(POD, namespace, pod("p", {"containers": [serving_container("v1")]}, app="p"))
    ports = [{"port": 80, "targetPort": "http"}]
    cluster.create(SERVICE, namespace, {"metadata": {"name": "s"}, "spec": {"selector": {"app": "p"}, "ports": ports}})
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rules = [{"host": "m.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    spec = {"rules": rules, "tls": [{"hosts": ["m.example.com"]}]}
    cluster.create(INGRESS, namespace, {"metadata": {"name": "i"}, "spec": spec})
    found = cluster.wait(INGRESS, namespace, "i", lambda obj: (obj.get("status") or {}).get("loadBalancer"))
    plain, secure = (port["port"] for port in found["status"]["loadBalancer"]["ingress"][0]["ports"])
    cluster.wait(POD, namespace, "p", lambda found: found["status"]["containerStatuses"][0].get("ready"))
    trusted = ssl.create_default_context(cafile=str(cluster.authority))
    with urllib.request.urlopen(f"https://127.0.0.1:{secure}/x", timeout=5, context=trusted) as answer:
        assert json.load(answer)["headers"]["x-forwarded-proto"] == "https"
    with urllib.request.urlopen(f"http://127.0.0.1:{plain}/x", timeout=5) as answer:
        assert json.load(answer)["headers"]["x-forwarded-proto"] == "http"
    raw = socket.create_connection(("127.0.0.1", secure))
    with trusted.wrap_socket(raw, server_hostname="m.example.com") as connection:
        assert connection.version() == "TLSv1.3"


LIST_PODS = """
import lightkube, lightkube.resources.core_v1 as v1
client = lightkube.Client()
print(client.namespace)
try:
    print(len(list(client.list(v1.Pod))), "pods")
    print(len(list(client.list(v1.ConfigMap))), "config maps")
except lightkube.ApiError as error:
    print(error.status.code, error.status.message)
"""


def test_a_pod_reaches_the_api_within_its_roles(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(SERVICE_ACCOUNT, namespace, {"metadata": {"name": "reader"}})
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    cluster.create(ROLE, namespace, {"metadata": {"name": "pods"}, "rules": rules})
    binding = {
        "metadata": {"name": "pods"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    }
    cluster.create(ROLE_BINDING, namespace, binding)
    spec = {"containers": [container("main", LIST_PODS)]}
    cluster.create(POD, namespace, pod("reader", {**spec, "serviceAccountName": "reader"}))
    cluster.create(POD, namespace, pod("anybody", spec))
    assert ended(cluster, namespace, "reader")["phase"] == ended(cluster, namespace, "anybody")["phase"] == "Succeeded"
    space, pods, refused = cluster.log(namespace, "reader").splitlines()
    assert (space, pods) == (namespace, "2 pods")
    user = f"system:serviceaccount:{namespace}:reader"
    assert refused.startswith("403 ")
    resource = 'resource "configmaps" in API group ""'
    assert f'User "{user}" cannot list {resource} in the namespace "{namespace}"' in refused
    assert 'cannot list resource "pods"' in cluster.log(namespace, "anybody")


def test_a_token_is_refused_once_its_pod_is_gone(cluster: RunningCluster, namespace: str) -> None:
    code = "import os; print(open(os.path.dirname(os.environ['KUBECONFIG']) + '/serviceaccount/token').read())"
    cluster.create(POD, namespace, pod("p", {"containers": [container("main", code)]}))
    ended(cluster, namespace, "p")
    token = cluster.log(namespace, "p").strip()
    with cluster.open("/api", token=token) as answer:
        assert answer.status == 200
    cluster.delete(POD, namespace, "p")
    wait_for(lambda: cluster.client.get(POD.path(namespace, "p")) is None)
    with pytest.raises(urllib.error.HTTPError) as refused:
        cluster.open("/api", token=token)
    assert refused.value.code == 401
