"""kubectl, as released, works with the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from laptop.cluster.kinds import CONFIG_MAP, DEPLOYMENT, POD, ROLLOUT, SERVICE
from laptop.tests.cluster.running_cluster import RunningCluster, expose, job, phase, rollout, serving_container

pytestmark = pytest.mark.slow

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(cluster: RunningCluster, namespace: str, tmp_path: Path) -> Kubectl:
    """Run kubectl in the test's namespace and return what it prints; it fails unless another exit code is expected."""

    def run(
        *arguments: str, manifest: dict[str, Any] | None = None, code: int | None = 0, editor: Path | str = ""
    ) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / "kubectl", "--namespace", namespace, *arguments],
            input=None if manifest is None else yaml.safe_dump(manifest),
            env={
                "KUBECONFIG": str(cluster.home / "kubeconfig"),
                "HOME": str(tmp_path),
                "PATH": os.environ["PATH"],
                "EDITOR": str(editor),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def deployment(version: str) -> dict[str, Any]:
    labels = {"app": "d"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [serving_container(version)]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def test_it_shows_nodes_pods_rollouts_and_everything_in_a_namespace(
    cluster: RunningCluster, namespace: str, kubectl: Kubectl
) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    assert kubectl("get", "nodes").splitlines()[1].split()[:2] == ["laptop", "Ready"]
    (line,) = [line for line in kubectl("get", "pods", "-A").splitlines() if line.startswith(namespace)]
    assert line.split()[2:4] == ["1/1", "Running"]
    assert kubectl("get", "ro", "m").splitlines()[1].split()[:3] == ["m", "Healthy", "1"]
    for shown in ("service/m-stable", "pod/m-", "replicaset.apps/m-", "rollout.argoproj.io/m"):
        assert shown in kubectl("get", "all")
    assert "RolloutCompleted" in kubectl("get", "events")
    assert yaml.safe_load(kubectl("get", "service", "m-stable", "-o", "yaml"))["spec"]["ports"][0]["port"] == 80


@pytest.mark.parametrize("how", [(), ("--server-side",)])
def test_apply_creates_updates_and_waits_for_a_deployment(
    cluster: RunningCluster, namespace: str, kubectl: Kubectl, how: tuple[str, ...]
) -> None:
    assert kubectl("apply", *how, "-f", "-", manifest=deployment("v1")).startswith("deployment.apps/d ")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/d", "--timeout=30s")
    changed = deployment("v2")
    changed["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "MORE", "value": "1"})
    kubectl("apply", *how, "-f", "-", manifest=changed)
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/d", "--timeout=30s")
    container = cluster.get(DEPLOYMENT, namespace, "d")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][-1] == "v2"
    assert [variable["name"] for variable in container["env"]] == ["PORT", "HOST", "MORE"]
    assert (
        kubectl("apply", *how, "-f", "-", manifest=changed)
        .rstrip()
        .endswith("serverside-applied" if how else "unchanged")
    )


def test_apply_reports_an_unknown_field(kubectl: Kubectl) -> None:
    wrong = deployment("v1")
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Always"
    assert 'unknown field "spec.template.spec.containers[0].imagePulPolicy"' in kubectl(
        "apply", "-f", "-", manifest=wrong, code=1
    )


def test_a_job_is_waited_for_and_its_log_is_read(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", manifest={"apiVersion": "batch/v1", "kind": "Job", **job("hello", "print('hello')")})
    assert "condition met" in kubectl("wait", "--for=condition=complete", "job/hello", "--timeout=30s")
    assert kubectl("logs", "job/hello") == "hello\n"
    assert kubectl("get", "job", "hello").splitlines()[1].split()[:3] == ["hello", "Complete", "1/1"]


def test_a_deployment_is_described_scaled_restarted_and_deleted(
    cluster: RunningCluster, namespace: str, kubectl: Kubectl
) -> None:
    kubectl("apply", "-f", "-", manifest=deployment("v1"))
    assert "NewReplicaSet:   d-" in kubectl("describe", "deployment", "d")
    kubectl("scale", "deployment/d", "--replicas=2")
    assert cluster.get(DEPLOYMENT, namespace, "d")["spec"]["replicas"] == 2
    kubectl("rollout", "restart", "deployment/d")
    kubectl("rollout", "status", "deployment/d", "--timeout=30s")
    assert "Controlled By:  ReplicaSet/d-" in kubectl("describe", "pods")
    assert "deleted" in kubectl("delete", "deployment", "d", "--timeout=30s")
    kubectl("wait", "--for=delete", "pods", "--all", "--timeout=30s")
    assert cluster.find_all(POD, namespace) == []


def test_labels_patches_and_differences(cluster: RunningCluster, namespace: str, kubectl: Kubectl) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    kubectl("apply", "-f", "-", manifest=settings)
    kubectl("label", "cm", "c", "team=a")
    assert "c" in kubectl("get", "cm", "-l", "team=a", "-o", "name")
    kubectl("patch", "cm", "c", "-p", '{"data": {"b": "2"}}')
    difference = kubectl("diff", "-f", "-", manifest={**settings, "data": {"a": "3"}}, code=1)
    assert '-  a: "1"' in difference
    assert '+  a: "3"' in difference


def test_the_schemas_are_explained(kubectl: Kubectl) -> None:
    assert "restartPolicy" in kubectl("explain", "pod.spec")
    assert "maxSurge" in kubectl("explain", "deployment.spec.strategy", "--recursive")
    assert "progressDeadlineSeconds" in kubectl("explain", "rollout.spec")


def test_create_with_flags(cluster: RunningCluster, namespace: str, kubectl: Kubectl) -> None:
    kubectl("create", "service", "clusterip", "s", "--tcp=80:8080")
    assert cluster.get(SERVICE, namespace, "s")["spec"]["ports"][0]["targetPort"] == 8080
    kubectl("create", "deployment", "d", "--image=a:1", "--replicas=0", "--port=80", "--", "run")
    spec = cluster.get(DEPLOYMENT, namespace, "d")["spec"]
    assert spec["replicas"] == 0
    (container,) = spec["template"]["spec"]["containers"]
    assert (container["command"], container["ports"]) == (["run"], [{"containerPort": 80, "protocol": "TCP"}])


def test_server_side_apply_reports_conflicts_and_can_force(
    cluster: RunningCluster, namespace: str, kubectl: Kubectl
) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    kubectl("apply", "--server-side", "-f", "-", manifest=settings)
    changed = {**settings, "data": {"a": "2"}}
    apply = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    assert 'conflict with "kubectl" using v1: .data.a' in kubectl(*apply, manifest=changed, code=1)
    kubectl(*apply, "--force-conflicts", manifest=changed)
    assert cluster.get(CONFIG_MAP, namespace, "c")["data"] == {"a": "2"}
    assert kubectl("diff", "--server-side", "--field-manager=other", "-f", "-", manifest=changed) == ""


def test_what_was_applied_by_the_client_can_be_applied_by_the_server(
    cluster: RunningCluster, namespace: str, kubectl: Kubectl
) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "1"}}
    kubectl("apply", "-f", "-", manifest=settings)
    kubectl("apply", "--server-side", "-f", "-", manifest={**settings, "data": {"a": "2"}})
    assert cluster.get(CONFIG_MAP, namespace, "c")["data"] == {"a": "2"}


def test_auth_tells_who_one_is_and_what_one_may_do(namespace: str, kubectl: Kubectl) -> None:
    assert "system:masters" in kubectl("auth", "whoami")
    assert kubectl("auth", "can-i", "delete", "pods") == "yes\n"
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:default")
    as_account = ("--token", kubectl("create", "token", "default").strip())
    assert f"system:serviceaccount:{namespace}:default" in kubectl(*as_account, "auth", "whoami")
    assert kubectl(*as_account, "auth", "can-i", "list", "pods") == "yes\n"
    assert kubectl(*as_account, "auth", "can-i", "delete", "pods", code=1) == "no\n"
    assert "[get list]" in kubectl(*as_account, "auth", "can-i", "--list")
    assert "cannot list resource" in kubectl(*as_account, "get", "secrets", code=1)


def test_watches_and_logs_follow(cluster: RunningCluster, namespace: str, kubectl: Kubectl) -> None:
    lines = "import time\nfor i in range(3): print(i); time.sleep(0.2)"
    kubectl("apply", "-f", "-", manifest={"apiVersion": "batch/v1", "kind": "Job", **job("counter", lines)})
    seen = kubectl("get", "jobs", "--watch-only", "--request-timeout=8s", "-o", "name", code=None)
    assert "job.batch/counter" in seen
    assert kubectl("logs", "-f", "job/counter") == "0\n1\n2\n"
    assert "Completed" in kubectl("get", "events") or "CompletionsReached" in kubectl("events", "--for", "job/counter")


def test_edit_and_annotate(cluster: RunningCluster, namespace: str, kubectl: Kubectl, tmp_path: Path) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "first"}}
    kubectl("apply", "-f", "-", manifest=settings)
    kubectl("annotate", "cm", "c", "note=mine")
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/a: first/a: second/' \"$1\"\n")
    editor.chmod(0o700)
    kubectl("edit", "cm", "c", editor=editor)
    found = cluster.get(CONFIG_MAP, namespace, "c")
    assert (found["data"], found["metadata"]["annotations"]["note"]) == ({"a": "second"}, "mine")
