"""A Kubernetes API server with a few objects, which can answer any request wrongly."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.http_responder import served_by

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
METRICS = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
INGRESS_CLASS = "/apis/networking.k8s.io/v1/ingressclasses/alb"
DEPLOYMENTS = "/apis/apps/v1/deployments"
DAEMON_SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets/"
AUTO_MODE = f"{CRDS}nodeclasses.eks.amazonaws.com"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def failure(code: int, reason: str) -> dict[str, Any]:
    """Return a Status object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": reason,
    }


def pods(*arguments: str) -> dict[str, Any]:
    """Return a pod template whose container has arguments."""
    return {"spec": {"containers": [{"name": "one", "args": list(arguments)}]}}


def daemon_set(name: str, ready: int, *arguments: str) -> dict[str, Any]:
    """Return a DaemonSet for three nodes."""
    numbers = {"currentNumberScheduled": 3, "numberMisscheduled": 0, "desiredNumberScheduled": 3, "numberReady": ready}
    spec = {"selector": {}, "template": pods(*arguments)}
    return {"metadata": {"name": name, "namespace": "kube-system"}, "spec": spec, "status": numbers}


def deployment(name: str, available: int, **labels: str) -> dict[str, Any]:
    """Return a Deployment with available replicas."""
    return {
        "metadata": {"name": name, "namespace": name, "labels": labels},
        "spec": {"selector": {}, "template": pods("--aws-verify-target-group")},
        "status": {"availableReplicas": available} if available else {},
    }


def controllers(rollouts: int = 1, load_balancer: int = 2) -> list[dict[str, Any]]:
    """Return the Deployments of both controllers, with available replicas."""
    component = {"app.kubernetes.io/name": "argo-rollouts", "app.kubernetes.io/component": "rollouts-controller"}
    return [
        deployment("argo-rollouts", rollouts, **component),
        deployment("kube-system", load_balancer, **{"app.kubernetes.io/name": "aws-load-balancer-controller"}),
    ]


def wrong_answers() -> dict[str, Callable[[BaseHTTPRequestHandler], None]]:
    """Return name → a way to answer a request wrongly."""

    def status(code: int, body: bytes, kind: str = "application/json") -> Callable[[BaseHTTPRequestHandler], None]:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(code)
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        return answer

    reasons = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 500: "InternalError"}
    answers = {f"{code} {reason}": status(code, json.dumps(failure(code, reason)).encode())
               for code, reason in reasons.items()}  # fmt: skip
    return {
        **answers,
        "503 of a proxy": status(503, b"<html>unavailable</html>", "text/html"),
        "no JSON": status(200, b"<html>sign in</html>", "text/html"),
        "another object": status(200, b"[]"),
        "nothing": status(200, b""),
        "hang up": lambda handler: handler.close_connection and None,
    }


@dataclass
class FakeCluster:
    """What the API server answers.

    Attributes:
        objects: path → object; a list for `DEPLOYMENTS`.
        denied: (verb, resource) that this identity may not do.
        wrong: path → a wrong answer.
        asked: paths of the requests, in order.
    """

    objects: dict[str, Any] = field(default_factory=dict)
    denied: set[tuple[str, str]] = field(default_factory=set)
    wrong: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, query: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body of the answer to a request."""
        if path == REVIEWS:
            asked = body["spec"]["resourceAttributes"]
            allowed = (asked["verb"], asked["resource"]) not in self.denied
            return 201, {**body, "status": {"allowed": allowed}}
        if path == DEPLOYMENTS:
            wanted = dict(re.findall(r"app\.kubernetes\.io(?:%2F|/)(\w+)(?:%3D|=)([\w-]+)", query))
            items = [
                one for one in self.objects[DEPLOYMENTS]
                if all(one["metadata"]["labels"].get(f"app.kubernetes.io/{k}") == v for k, v in wanted.items())
            ]  # fmt: skip
            return 200, {"kind": "DeploymentList", "metadata": {}, "items": items}
        if path in self.objects:
            return 200, self.objects[path]
        return 404, failure(404, "NotFound")


def complete() -> FakeCluster:
    """Return a cluster that has everything that the program relies on."""
    spec = {"group": "argoproj.io", "names": {"kind": "K", "plural": "ks"}, "scope": "Namespaced", "versions": []}
    kinds = {
        f"{CRDS}{plural}.argoproj.io": {"metadata": {}, "spec": spec} for plural in ("rollouts", "analysistemplates")
    }
    metrics = {"groupPriorityMinimum": 1, "versionPriority": 1}
    return FakeCluster(
        {
            **kinds,
            METRICS: {
                "metadata": {},
                "spec": metrics,
                "status": {"conditions": [{"type": "Available", "status": "True"}]},
            },
            INGRESS_CLASS: {"metadata": {"name": "alb"}, "spec": {"controller": "ingress.k8s.aws/alb"}},
            DEPLOYMENTS: controllers(),
            f"{DAEMON_SETS}eks-pod-identity-agent": daemon_set("eks-pod-identity-agent", 3),
            f"{DAEMON_SETS}aws-node": daemon_set("aws-node", 3, "--enable-network-policy=true"),
        }
    )


@contextmanager
def serving(cluster: FakeCluster) -> Iterator[str]:
    """Serve a cluster on 127.0.0.1, and yield its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            cluster.asked.append(path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if path in cluster.wrong:
                cluster.wrong[path](self)
                return
            code, answer = cluster.answer(path, query, json.loads(body) if body else {})
            text = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET  # noqa: N815  http.server's name

    with served_by(Handler) as url:
        yield url


def write_kubeconfig(file: Path, url: str, name: str = "arn:aws:eks:eu-west-1:111122223333:cluster/mlops-dev") -> Path:
    """Write a kubeconfig for a cluster, and return the file."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": name, "user": "me"}}],
        "clusters": [{"name": name, "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    file.write_text(json.dumps(config))
    return file
