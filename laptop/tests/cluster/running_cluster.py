"""Cluster in a thread of the test process, and functions that create and read its objects."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from laptop.cluster import AUTHORITY
from laptop.cluster.cluster import Cluster
from laptop.cluster.image_source import MissingImageError
from laptop.cluster.kinds import INGRESS, JOB, NAMESPACE, POD, ROLLOUT, SERVICE, Kind
from laptop.tests.cluster.raw_api import ApiError, Client

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/serving@sha256:" + "a" * 64

# Server that answers its version; `/slow` answers after a delay, `/die` ends it without an answer.
APP = """
import asyncio, json, os, signal, sys

VERSION = sys.argv[1]


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            path, length, headers = line.split()[1].decode(), 0, {}
            while (header := await reader.readline()) not in (b"\\r\\n", b""):
                name, _, value = header.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if path == "/slow":
                print("slow", flush=True)
                await asyncio.sleep(0.3)
            if path == "/die":
                os._exit(3)
            facts = {"version": VERSION, "pid": os.getpid(), "path": path, "headers": headers, "body": body.decode()}
            answer = json.dumps(facts).encode()
            body = b"" if line.startswith(b"HEAD") else answer
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(answer) + body)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, os.environ["HOST"], int(os.environ["PORT"]))
    await server.serve_forever()


asyncio.run(main())
"""


class KnownImages:
    """Image source with images that a test names, all with the same files."""

    def __init__(self, files: Path) -> None:
        self.known = {IMAGE}
        self.files = files

    async def pull(self, image: str) -> Path:
        if image not in self.known:
            raise MissingImageError(f"{image}: not found")
        return self.files


class RunningCluster:
    """Running cluster, reached by its API."""

    def __init__(self, folder: Path, *, time_scale: float, fork_server: bool = False, **more: Any) -> None:
        self.home = folder / "home"
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        (self.root / "app.py").write_text(APP)
        self.images = KnownImages(self.root)
        self._cluster = Cluster(self.home, time_scale=time_scale, images=self.images, fork_server=fork_server, **more)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._cluster.start(), self._loop).result(20)
        self.client = Client(self.home / "kubeconfig")
        self.endpoint, self.token = self._cluster.endpoint, self._cluster.token
        self.authority = self.home / "cluster" / AUTHORITY

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cluster.stop(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def restart_controllers(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cluster.restart_controllers(), self._loop).result(20)

    def is_listening(self) -> bool:
        """Return whether the API takes a new connection."""
        address = urllib.parse.urlsplit(self.endpoint)
        try:
            socket.create_connection((address.hostname, address.port), timeout=5).close()
        except OSError:
            return False
        return True

    def create(self, kind: Kind, namespace: str, manifest: dict[str, Any]) -> dict[str, Any]:
        return self.client.send("POST", kind.path(namespace), manifest)

    def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        found = self.client.get(kind.path(namespace, name))
        assert found is not None, f"{kind.name} {namespace}/{name} does not exist"
        return found

    def find_all(self, kind: Kind, namespace: str, query: str = "") -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.send("GET", kind.path(namespace) + query)["items"]
        return items

    def merge(self, kind: Kind, namespace: str, name: str, patch: dict[str, Any], sub: str = "") -> dict[str, Any]:
        path = kind.path(namespace, name) + (f"/{sub}" if sub else "")
        return self.client.send("PATCH", path, patch, type_="application/merge-patch+json")

    def delete(self, kind: Kind, namespace: str, name: str, **options: Any) -> None:
        self.client.send("DELETE", kind.path(namespace, name), options or None)

    def wait(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        until: Callable[[dict[str, Any]], Any],
        seconds: float = 15.0,
    ) -> dict[str, Any]:
        """Return the object once `until` holds for it."""
        found: dict[str, Any] = wait_for(
            lambda: (obj := self.get(kind, namespace, name)) and until(obj) and obj, seconds
        )
        return found

    def ended(self, namespace: str, name: str) -> dict[str, Any]:
        """Return the condition by which a Job ended."""
        job = self.wait(JOB, namespace, name, lambda found: ending(found))
        return ending(job) or {}

    def pods_of(self, namespace: str, job: str) -> list[dict[str, Any]]:
        return self.find_all(POD, namespace, f"?labelSelector=job-name%3D{job}")

    def log(self, namespace: str, pod: str, query: str = "") -> str:
        with self.open(f"{POD.path(namespace, pod)}/log{query}") as answer:
            return str(answer.read().decode())

    def open(self, path: str, *, token: str | None = None, **headers: str) -> http.client.HTTPResponse:
        """Send a GET request to the API, with the operator's token unless another is given."""
        request = urllib.request.Request(f"{self.endpoint}{path}", headers=headers)
        request.add_header("Authorization", f"Bearer {self.token if token is None else token}")
        context = ssl.create_default_context(cafile=str(self.authority))
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=15, context=context)
        return answer

    def address(self, namespace: str, ingress: str) -> str:
        """Return the base URL of an Ingress."""
        found = self.wait(INGRESS, namespace, ingress, lambda obj: (obj.get("status") or {}).get("loadBalancer"))
        balancer = found["status"]["loadBalancer"]["ingress"][0]
        return f"http://{balancer['ip']}:{balancer['ports'][0]['port']}"


class SetClock:
    """Clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


def wait_for(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Return the result of `condition` once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)
    return value


def ending(job: dict[str, Any]) -> dict[str, Any] | None:
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["status"] == "True" and condition["type"] in ("Complete", "Failed"):
            return dict(condition)
    return None


def refusal(action: Callable[[], Any]) -> ApiError:
    """Return the error with which the API refuses an action."""
    try:
        action()
    except ApiError as error:
        return error
    raise AssertionError("the API did not refuse it")


def job(name: str, code: str, *, pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """Return a Job that runs Python code."""
    container: dict[str, Any] = {"name": "main", "image": IMAGE, "command": ["python", "-c", code]}
    container |= (pod or {}).pop("container", {})
    template = {"spec": {"restartPolicy": "Never", "containers": [container], **(pod or {})}}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template, **spec}}


def serving_container(version: str) -> dict[str, Any]:
    return {
        "name": "serve",
        "image": IMAGE,
        "command": ["python", "-S", "app.py", version],
        "env": [
            {"name": "PORT", "value": "8080"},
            {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "ports": [{"name": "http", "containerPort": 8080}],
        "startupProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
    }


def rollout(version: str, steps: Sequence[Mapping[str, Any]], *, replicas: int = 2, **more: Any) -> dict[str, Any]:
    canary = {
        "stableService": "m-stable",
        "canaryService": "m-canary",
        "trafficRouting": {"alb": {"ingress": "m", "servicePort": 80}},
        "scaleDownDelaySeconds": 1,
        "abortScaleDownDelaySeconds": 1,
        "steps": [*steps],
    }
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "m"}},
        "template": {
            "metadata": {"labels": {"app": "m"}},
            "spec": {"containers": [serving_container(version)], "terminationGracePeriodSeconds": 5},
        },
        "strategy": {"canary": canary},
        **more,
    }
    return {"metadata": {"name": "m"}, "spec": spec}


def expose(cluster: RunningCluster, namespace: str) -> str:
    """Create the Services and the Ingress of a rollout, and return the base URL of the Ingress."""
    for name in ("m-stable", "m-canary"):
        ports = [{"name": "http", "port": 80, "targetPort": "http"}]
        cluster.create(
            SERVICE, namespace, {"metadata": {"name": name}, "spec": {"selector": {"app": "m"}, "ports": ports}}
        )
    backend = {"service": {"name": "m-stable", "port": {"name": "use-annotation"}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    cluster.create(INGRESS, namespace, {"metadata": {"name": "m"}, "spec": {"rules": rules}})
    return cluster.address(namespace, "m")


def phase(cluster: RunningCluster, namespace: str, wanted: str, step: int | None = None) -> dict[str, Any]:
    """Return the rollout's status once it is in a phase, at a step, with its newest specification observed."""

    def there(found: dict[str, Any]) -> bool:
        status = found.get("status") or {}
        seen = status.get("observedGeneration") == str(found["metadata"]["generation"])
        return seen and status.get("phase") == wanted and step in (None, status.get("currentStepIndex"))

    status: dict[str, Any] = cluster.wait(ROLLOUT, namespace, "m", there)["status"]
    return status


def new_namespace(cluster: RunningCluster, name: str, labels: dict[str, str] | None = None) -> str:
    cluster.create(NAMESPACE, "", {"metadata": {"name": name, "labels": labels or {}}})
    return name
