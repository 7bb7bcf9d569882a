"""Kubernetes provider: Pulumi's own creates, updates, replaces and deletes every kind on the laptop's cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest
from pulumi import automation
from semver import VersionInfo

from laptop.cluster.kinds import CONFIG_MAP, ROLLOUT
from laptop.tests.cluster.running_cluster import IMAGE, RunningCluster, rollout

pytestmark = pytest.mark.needs("pulumi", "pulumi-kubernetes")

_BUILT = VersionInfo.parse("3.274.1")
"""Version of the CLI that is built from its module, which does not know it."""
_SPACE = "models"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    running = RunningCluster(tmp_path_factory.mktemp("laptop"), time_scale=0.1)
    yield running
    running.close()


@pytest.fixture(scope="module")
def update(
    cluster: RunningCluster, pulumi_with_kubernetes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], automation.Stack]]:
    """Return the stack with the program of a version."""
    folder = tmp_path_factory.mktemp("pulumi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(pulumi_with_kubernetes), prepend=":")
        patch.setenv("PULUMI_CONFIG_PASSPHRASE", "test")
        patch.setenv("PULUMI_HOME", str(folder / "home"))
        patch.setenv("PULUMI_BACKEND_URL", folder.as_uri())
        command = automation.PulumiCommand(skip_version_check=True)
        command.version = command.version or _BUILT
        options = automation.LocalWorkspaceOptions(pulumi_command=command)
        kubeconfig = (cluster.home / "kubeconfig").read_text()

        def stack(version: str) -> automation.Stack:
            return automation.create_or_select_stack(
                "dev", project_name="laptop", program=lambda: _program(kubeconfig, version), opts=options
            )

        yield stack


def _program(kubeconfig: str, version: str) -> None:
    provider = pulumi.ResourceOptions(provider=k8s.Provider("laptop", kubeconfig=kubeconfig))
    space = k8s.core.v1.Namespace("space", metadata={"name": _SPACE}, opts=provider)

    def options(*needs: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(provider, pulumi.ResourceOptions(depends_on=[space, *needs]))

    def named(name: str, **annotations: str) -> dict[str, Any]:
        return {"name": name, "namespace": _SPACE, "annotations": {"version": version, **annotations}}

    container = {"name": "main", "image": IMAGE, "command": ["python", "-c", "print(1)"]}
    job = {"template": {"spec": {"containers": [container], "restartPolicy": "Never", "serviceAccountName": "runner"}}}
    selector = {"matchLabels": {"app": "m"}}
    account = k8s.core.v1.ServiceAccount("account", metadata=named("runner"), opts=options())
    k8s.core.v1.ConfigMap("settings", metadata=named("settings"), data={"version": version}, opts=options())
    k8s.core.v1.ConfigMap("unnamed", metadata={"namespace": _SPACE}, data={"version": "1"}, opts=options())
    k8s.core.v1.Secret("secret", metadata=named("secret"), string_data={"version": version}, opts=options())
    schedule = {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": {"spec": job}}
    k8s.batch.v1.CronJob("nightly", metadata=named("nightly"), spec=schedule, opts=options(account))
    k8s.batch.v1.Job("once", metadata={"name": "once", "namespace": _SPACE}, spec=job, opts=options(account))
    specification = {**rollout(version, [])["spec"], "replicas": 1}
    model = k8s.apiextensions.CustomResource(
        "model",
        api_version=ROLLOUT.api_version,
        kind=ROLLOUT.name,
        metadata={"name": "m", "namespace": _SPACE},
        spec=specification,
        opts=options(),
    )
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    skip = {"pulumi.com/skipAwait": "true"}
    # Argo adds the hash of a template to the selectors, which it then owns.
    argo = pulumi.ResourceOptions.merge(options(), pulumi.ResourceOptions(ignore_changes=["spec.selector"]))
    services = [
        k8s.core.v1.Service(
            name, metadata=named(name, **skip), spec={"selector": {"app": "m"}, "ports": ports}, opts=argo
        )
        for name in ("m-stable", "m-canary")
    ]
    backend = {"service": {"name": "m-stable", "port": {"number": 80}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    k8s.networking.v1.Ingress("entry", metadata=named("m"), spec={"rules": rules}, opts=options(model, *services))
    policy = {"podSelector": {}, "policyTypes": ["Ingress"]}
    k8s.networking.v1.NetworkPolicy("policy", metadata=named("policy"), spec=policy, opts=options())
    budget = {"minAvailable": 1, "selector": selector}
    k8s.policy.v1.PodDisruptionBudget("budget", metadata=named("budget"), spec=budget, opts=options())
    target = {"type": "Utilization", "averageUtilization": 60}
    scaling = {
        "scaleTargetRef": {"apiVersion": ROLLOUT.api_version, "kind": ROLLOUT.name, "name": "m"},
        "maxReplicas": 2,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }
    k8s.autoscaling.v2.HorizontalPodAutoscaler("scaling", metadata=named("scaling"), spec=scaling, opts=options())
    reading = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    k8s.rbac.v1.Role("reader", metadata=named("reader"), rules=reading, opts=options())
    k8s.rbac.v1.RoleBinding(
        "reads",
        metadata=named("reads"),
        role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        subjects=[{"kind": "ServiceAccount", "name": "runner", "namespace": _SPACE}],
        opts=options(),
    )


def test_every_kind_is_created_updated_replaced_and_deleted(
    cluster: RunningCluster, update: Callable[[str], automation.Stack]
) -> None:
    stack = update("v1")
    planned = stack.preview().change_summary
    made = stack.up().summary.resource_changes
    assert made == {str(key): count for key, count in planned.items()}
    assert made is not None
    assert set(made) == {"create"}
    stack.preview(refresh=True, expect_no_changes=True)

    changed: dict[str, int] = {str(key): n for key, n in (update("v2").up().summary.resource_changes or {}).items()}
    assert changed["replace"] == 2  # data of a ConfigMap and of a Secret
    assert changed["update"] >= 10
    assert cluster.get(CONFIG_MAP, _SPACE, "settings")["data"] == {"version": "v2"}
    update("v2").preview(refresh=True, expect_no_changes=True)

    # Another field manager takes a field; Pulumi sees the drift and does not overwrite it silently.
    cluster.merge(CONFIG_MAP, _SPACE, "settings", {"metadata": {"annotations": {"version": "mine"}}})
    with pytest.raises(automation.CommandError, match=r"expected|conflict"):
        update("v2").preview(refresh=True, expect_no_changes=True)

    assert set(update("v2").destroy().summary.resource_changes or {}) == {"delete"}
    assert cluster.client.get(f"/api/v1/namespaces/{_SPACE}") is None
