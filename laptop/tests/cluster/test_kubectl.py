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

from laptop.cluster.kinds import DEPLOYMENT, POD, ROLLOUT, SERVICE
from laptop.tests.cluster.running_cluster import RunningCluster, expose, job, phase, rollout, serving_container

pytestmark = pytest.mark.slow

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(cluster: RunningCluster, namespace: str, tmp_path: Path) -> Kubectl:
    """Run kubectl in the test's namespace and return what it prints; it fails unless another exit code is expected."""

    def run(*arguments: str, manifest: dict[str, Any] | None = None, code: int = 0) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / "kubectl", "--namespace", namespace, *arguments],
            input=None if manifest is None else yaml.safe_dump(manifest),
            env={"KUBECONFIG": str(cluster.home / "kubeconfig"), "HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
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
    assert "progressDeadlineSeconds" in kubectl("explain", "rollout.spec")


def test_create_with_flags_is_refused_with_a_fix(cluster: RunningCluster, namespace: str, kubectl: Kubectl) -> None:
    create = ("create", "service", "clusterip", "s", "--tcp=80:8080")
    assert "pipe it to `kubectl apply -f -`" in kubectl(*create, code=1)
    kubectl("apply", "-f", "-", manifest=yaml.safe_load(kubectl(*create, "--dry-run=client", "-o", "yaml")))
    assert cluster.get(SERVICE, namespace, "s")["spec"]["ports"][0]["targetPort"] == 8080
