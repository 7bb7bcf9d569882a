"""A real Kubernetes control plane on 127.0.0.1: etcd, API server, controllers, stand-ins for what needs a cloud.

Nothing of it runs a pod. kwok marks pods as running, or the laptop's node runs them. The groups of the deploy and
preview roles have a token each, and the API server records every request of theirs.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from laptop.cluster.watchdog import Watchdog
from laptop.conformance.eks_command import GROUP_TOKENS
from laptop.conformance.run_record import ROOT
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.targets.cluster_roles import deploy_group, preview_group

KUBECONFIG = "CONFORMANCE_KUBECONFIG"
"""Environment variable: the kubeconfig of a cluster to use instead of a control plane that is started here."""

READY_WITHIN = 90.0  # seconds, on a machine that does other work as well
_STOPPED_WITHIN = 10.0  # seconds
_LOOK = 0.2  # seconds between looks at the cluster
NODE = "kwok-0"
_KWOK_NODE = "kwok.x-k8s.io/node"

AUDIT_LOG = "audit.log"
"""File in the home of a control plane that was started here: requests of these groups, one JSON object per line."""


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane.

    Attributes:
        url: the API server's address, with TLS.
        certificate: file with the authority's certificate, PEM.
        token: bearer token of a member of `system:masters`.
        kubeconfig: file with these three.
        home: directory of its data and of one log file per process.
        group_tokens: Kubernetes group → bearer token; empty for a cluster that ran already.
        processes: running processes by name, such as `rollouts-controller`.
    """

    url: str
    certificate: Path
    token: str = field(repr=False)
    kubeconfig: Path
    home: Path
    group_tokens: dict[str, str] = field(default_factory=dict, repr=False)
    processes: dict[str, _Process] = field(default_factory=dict, repr=False)

    def restart(self, name: str) -> None:
        """End a process, and start it again with the same command."""
        self.processes[name].restart()

    def client(self, group: str | None = None) -> httpx.Client:
        """Return a client for raw requests, as the administrator or as the member of a group. The caller closes it."""
        return _client(self.url, self.certificate, self.token if group is None else self.group_tokens[group])

    def write_kubeconfig(self, path: Path, token: str) -> None:
        """Write a kubeconfig of this cluster for the bearer of a token."""
        write_atomically(path, json.dumps(_kubeconfig(self.url, self.certificate, token)))


@contextlib.contextmanager
def running(
    home: Path,
    binaries: Path,
    *,
    argo: bool = True,
    kwok: bool = True,
    controllers: bool = True,
    pod_stages: Path | None = None,
    stand_ins: bool = True,
) -> Iterator[ControlPlane]:
    """Start a control plane, yield it when it answers, and stop it.

    Args:
        home: an empty directory for its data.
        binaries: directory with `etcd`, `kube-apiserver`, `kube-controller-manager`, and as asked
            `rollouts-controller` with `argo-crds/` and `kwok` with `kwok-stages/`.
        argo: also install the resource definitions of Argo Rollouts, and run its controller.
        kwok: also register a node, and run kwok, which marks its pods as running.
        stand_ins: bind pods to that node, and give Ingresses a host name.
        controllers: False for an API server alone, whose objects nothing else changes.
        pod_stages: directory with kwok's stages of pods; kwok's own if None.

    Raises:
        MlopsError: a process ended, or the API server did not become ready in time. The message ends with its log.
    """
    with contextlib.ExitStack() as stack:
        plane, flags = _identity(home)

        def start(name: str, *command: str | Path) -> None:
            plane.processes[name] = stack.enter_context(_process(name, home, [str(part) for part in command]))

        peer, client = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
        start(
            "etcd", binaries / "etcd", "--data-dir", home / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        )  # fmt: skip
        start("kube-apiserver", binaries / "kube-apiserver", "--etcd-servers", client, *flags)
        with plane.client() as api:
            _await_ready(api, list(plane.processes.values()))
            if not controllers:
                yield plane
                return
            start(
                "kube-controller-manager", binaries / "kube-controller-manager", "--kubeconfig", plane.kubeconfig,
                "--leader-elect=false", "--bind-address=127.0.0.1", f"--secure-port={_free_port()}",
                "--use-service-account-credentials=false", "--concurrent-gc-syncs=5",
                "--kube-api-qps=300", "--kube-api-burst=600",
                "--service-account-private-key-file", home / "service-accounts.key",
                "--root-ca-file", plane.certificate,
            )  # fmt: skip
            if argo:
                _install(api, sorted((binaries / "argo-crds").glob("*-crd.yaml")))
                start(
                    "rollouts-controller", binaries / "rollouts-controller", "--kubeconfig", plane.kubeconfig,
                    "--leader-elect=false", f"--metricsport={_free_port()}", f"--healthzPort={_free_port()}",
                    "--qps=300", "--burst=600",
                )  # fmt: skip
            if kwok:
                _register_node(api)
                files = sorted((binaries / "kwok-stages").rglob("*.yaml"))
                if pod_stages is not None:
                    files = [*(file for file in files if file.name.startswith("node-")), *pod_stages.glob("*.yaml")]
                stages = [f"--config={file}" for file in files]
                start("kwok", binaries / "kwok", "--kubeconfig", plane.kubeconfig, "--manage-all-nodes", *stages)
            if stand_ins:
                stack.enter_context(_stand_ins(plane))
            yield plane


@contextlib.contextmanager
def attached(home: Path, kubeconfig: Path, binaries: Path) -> Iterator[ControlPlane]:
    """Yield a cluster that runs already, such as kind's, with a node of kwok and the stand-ins.

    Its own nodes are closed to new pods: they cannot pull images from an emulated account.

    Args:
        home: an empty directory for log files.
        kubeconfig: an administrator's.
        binaries: directory with `kwok` and `kwok-stages/`.

    Raises:
        MlopsError: the cluster does not answer, or has no Argo Rollouts.
    """
    home.mkdir(parents=True, exist_ok=True)
    kubectl = ["kubectl", "--kubeconfig", str(kubeconfig)]
    account = ["-n", "kube-system", "serviceaccount", "conformance"]
    _output([*kubectl, "create", *account])
    role = ["--clusterrole=cluster-admin", "--serviceaccount=kube-system:conformance"]
    _output([*kubectl, "create", "clusterrolebinding", "conformance", *role])
    token = _output([*kubectl, "create", "token", "-n", "kube-system", "conformance", "--duration=6h"]).strip()
    view = json.loads(_output([*kubectl, "config", "view", "--raw", "--minify", "--flatten", "--output=json"]))
    cluster = view["clusters"][0]["cluster"]
    certificate = home / "ca.crt"
    certificate.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    own = home / "kubeconfig"
    _write_secret(own, json.dumps(_kubeconfig(cluster["server"], certificate, token)))
    plane = ControlPlane(cluster["server"], certificate, token, own, home)
    with plane.client() as api, contextlib.ExitStack() as stack:
        _await_established(api, "rollouts.argoproj.io", "Argo Rollouts")
        for node in api.get("/api/v1/nodes").raise_for_status().json()["items"]:
            _output([*kubectl, "cordon", node["metadata"]["name"]])
        _register_node(api)
        stages = [f"--config={file}" for file in sorted((binaries / "kwok-stages").rglob("*.yaml"))]
        selector = f"--manage-nodes-with-annotation-selector={_KWOK_NODE}=fake"
        command = [str(binaries / "kwok"), "--kubeconfig", str(own), "--manage-all-nodes=false", selector, *stages]
        stack.enter_context(_process("kwok", home, command))
        stack.enter_context(_stand_ins(plane))
        yield plane


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MlopsError(f"`{' '.join(command)}` failed: {done.stderr.strip()}", fix="check that the cluster runs.")
    return done.stdout


def _identity(home: Path) -> tuple[ControlPlane, list[str]]:
    """Write keys, certificates and the kubeconfig. Return the plane, and the API server's flags."""
    home.mkdir(parents=True, exist_ok=True)
    authority, port, token = trustme.CA(), _free_port(), secrets.token_urlsafe(24)
    server = authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default.svc")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    accounts = home / "service-accounts.key"
    _write_secret(accounts, pem.decode())
    groups = {group: secrets.token_urlsafe(24) for group in role_groups(Project(ROOT))}
    lines = [
        f'{token},admin,admin,"system:masters"',
        *(f'{own},{group},{group},"{group}"' for group, own in groups.items()),
    ]
    _write_secret(home / "tokens.csv", "\n".join(lines) + "\n")
    _write_secret(home / GROUP_TOKENS, json.dumps(groups))
    (home / "audit-policy.json").write_text(json.dumps(_audit_policy(groups)))
    _write_secret(home / "server.key", server.private_key_pem.bytes().decode())
    (home / "server.crt").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    certificate = home / "ca.crt"
    certificate.write_bytes(authority.cert_pem.bytes())
    url = f"https://127.0.0.1:{port}"
    kubeconfig = home / "kubeconfig"
    _write_secret(kubeconfig, json.dumps(_kubeconfig(url, certificate, token)))
    flags = [
        f"--secure-port={port}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
        f"--tls-cert-file={home / 'server.crt'}", f"--tls-private-key-file={home / 'server.key'}",
        f"--cert-dir={home / 'certificates'}",
        f"--token-auth-file={home / 'tokens.csv'}", "--authorization-mode=RBAC",
        f"--audit-policy-file={home / 'audit-policy.json'}", f"--audit-log-path={home / AUDIT_LOG}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={accounts}", f"--service-account-key-file={accounts}",
        "--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
    ]  # fmt: skip
    return ControlPlane(url, certificate, token, kubeconfig, home, groups), flags


def role_groups(project: Project) -> list[str]:
    """Return the Kubernetes groups of a project's deploy roles and its preview role."""
    return [*(deploy_group(project.name, one) for one in project.environments), preview_group(project.name)]


def _audit_policy(groups: Iterable[str]) -> dict[str, Any]:
    """Return a policy that records the requests of groups, without their bodies."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "userGroups": sorted(groups)}, {"level": "None"}],
    }


def _kubeconfig(url: str, certificate: Path, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "real", "cluster": {"server": url, "certificate-authority": str(certificate)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "real", "context": {"cluster": "real", "user": "admin"}}],
        "current-context": "real",
    }


def _await_ready(api: httpx.Client, processes: Sequence[_Process]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        for process in processes:
            process.check()
        with contextlib.suppress(httpx.TransportError):
            if api.get("/readyz").status_code == httpx.codes.OK:
                return
        time.sleep(_LOOK)
    raise MlopsError(
        f"the API server is not ready after {READY_WITHIN:.0f} s\n{processes[-1].tail()}",
        fix="try again with less other work on the machine.",
    )


def _install(api: httpx.Client, manifests: Sequence[Path]) -> None:
    for manifest in manifests:
        name = manifest.name
        api.patch(
            f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{_crd_name(manifest)}",
            params={"fieldManager": "conformance", "force": "true"},
            content=manifest.read_bytes(),
            headers={"Content-Type": "application/apply-patch+yaml"},
        ).raise_for_status()
        _await_established(api, _crd_name(manifest), name)


def _crd_name(manifest: Path) -> str:
    for line in manifest.read_text().splitlines():
        if line.startswith("  name: "):
            return line.removeprefix("  name: ").strip()
    raise MlopsError(f"{manifest}: expected metadata.name, found none", fix="build the engines again.")


def _await_established(api: httpx.Client, name: str, source: str) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        found = api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}").json()
        conditions = {item["type"]: item["status"] for item in (found.get("status") or {}).get("conditions") or ()}
        if conditions.get("Established") == "True":
            return
        time.sleep(_LOOK)
    raise MlopsError(f"{source}: the API server did not accept it in {READY_WITHIN:.0f} s", fix="read its log.")


def _register_node(api: httpx.Client) -> None:
    room = {"cpu": "32", "memory": "256Gi", "pods": "500"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": NODE,
            "annotations": {_KWOK_NODE: "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {"type": "kwok", "kubernetes.io/hostname": NODE},
        },
        "status": {"allocatable": room, "capacity": room},
    }
    api.post("/api/v1/nodes", json=node).raise_for_status()


@contextlib.contextmanager
def _stand_ins(plane: ControlPlane) -> Iterator[None]:
    """Bind pods to the node, and give Ingresses a host name, as a scheduler and a load balancer controller do."""
    ending = threading.Event()
    thread = threading.Thread(target=_serve_stand_ins, args=(plane, ending), name="stand-ins", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(_STOPPED_WITHIN)


def _serve_stand_ins(plane: ControlPlane, ending: threading.Event) -> None:
    with plane.client() as api:
        while not ending.wait(_LOOK):
            with contextlib.suppress(httpx.TransportError, KeyError, ValueError):
                _bind_pods(api)
                _name_load_balancers(api)


def _bind_pods(api: httpx.Client) -> None:
    for pod in api.get("/api/v1/pods", params={"fieldSelector": "spec.nodeName="}).json()["items"]:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": NODE},
        }
        api.post(f"/api/v1/namespaces/{namespace}/pods/{name}/binding", json=binding)


def _name_load_balancers(api: httpx.Client) -> None:
    for ingress in api.get("/apis/networking.k8s.io/v1/ingresses").json()["items"]:
        if ingress.get("status", {}).get("loadBalancer", {}).get("ingress"):
            continue
        namespace, name = ingress["metadata"]["namespace"], ingress["metadata"]["name"]
        host = f"internal-{name}.eu-west-1.elb.amazonaws.com"
        api.patch(
            f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}/status",
            json={"status": {"loadBalancer": {"ingress": [{"hostname": host}]}}},
            headers={"Content-Type": "application/merge-patch+json"},
        )


@dataclass
class _Process:
    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raise MlopsError if the process ended."""
        code = self.process.poll()
        if code is not None:
            raise MlopsError(
                f"{self.name} ended with exit status {code}\n{self.tail()}", fix="read the log; is its port free?"
            )

    def tail(self) -> str:
        """Return the last lines of its log."""
        return f"{self.log}:\n" + "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def restart(self) -> None:
        """End the process, and start its command again. Threads may call it at the same time."""
        with self.lock:
            self.stop()
            self.process = _started(self.command, self.log)

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(_STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _watchdog().release(self.process.pid)


def _started(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=log.parent,
            start_new_session=True,
        )  # fmt: skip
    _watchdog().guard(process.pid)
    return process


@cache
def _watchdog() -> Watchdog:
    """The watchdog of this process: it ends what a killed test run leaves."""
    return Watchdog()


@contextlib.contextmanager
def _process(name: str, home: Path, command: Sequence[str]) -> Iterator[_Process]:
    log = home / f"{name}.log"
    process = _Process(name, command, log, _started(command, log))
    try:
        yield process
    finally:
        process.stop()


def _client(url: str, certificate: Path, token: str) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(certificate))
    return httpx.Client(
        base_url=url, verify=context, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False
    )


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
