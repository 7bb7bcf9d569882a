from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from laptop.cluster.kinds import CONFIG_MAP, INGRESS, JOB, NAMESPACE, POD, ROLLOUT, SERVICE
from laptop.engine.provider import Created, Provider
from laptop.engine.refreshing import reconcile
from laptop.engine.resources import ResourceState
from laptop.engine.values import UNKNOWN, Properties
from laptop.kubernetes.provider import KubernetesProvider
from laptop.tests.cluster.small_cluster import SmallCluster, expose, job, new_namespace, phase, rollout
from pipelines.declarations.errors import MlopsError

CONFIG_MAP_TYPE = "kubernetes:core/v1:ConfigMap"
JOB_TYPE = "kubernetes:batch/v1:Job"
SERVICE_TYPE = "kubernetes:core/v1:Service"
INGRESS_TYPE = "kubernetes:networking.k8s.io/v1:Ingress"
NAMESPACE_TYPE = "kubernetes:core/v1:Namespace"
ROLLOUT_TYPE = "kubernetes:argoproj.io/v1alpha1:Rollout"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCluster]:
    running = SmallCluster(tmp_path_factory.mktemp("cluster"), time_scale=0.1)
    yield running
    running.close()


@pytest.fixture
def namespace(cluster: SmallCluster) -> Iterator[str]:
    name = new_namespace(cluster, f"test-{uuid.uuid4().hex[:8]}")
    yield name
    cluster.delete(NAMESPACE, "", name)


@pytest.fixture
def provider(cluster: SmallCluster) -> KubernetesProvider:
    return KubernetesProvider(cluster.home / "kubeconfig", ready_within=5, gone_within=10)


def config_map(namespace: str, name: str | None = "a", **data: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"namespace": namespace}
    return {"metadata": metadata | ({"name": name} if name else {}), "data": data}


def apply(provider: Provider, type_: str, inputs: dict[str, Any], name: str = "res") -> tuple[dict[str, Any], Created]:
    checked = provider.check(type_, name, inputs, None)
    return checked, provider.create(f"urn:pulumi:dev::p::{type_}::{name}", type_, checked)


def test_it_is_a_provider(provider: KubernetesProvider) -> None:
    assert isinstance(provider, Provider)


def test_a_resource_is_created_read_updated_and_deleted(
    provider: KubernetesProvider, cluster: SmallCluster, namespace: str
) -> None:
    old, made = apply(provider, CONFIG_MAP_TYPE, config_map(namespace, x="1", y="1"))
    assert made.id == f"{namespace}/a"
    assert made.outputs["metadata"]["uid"]
    new = provider.check(CONFIG_MAP_TYPE, "res", config_map(namespace, x="2"), old)
    assert provider.diff(CONFIG_MAP_TYPE, old, new, made.outputs).changed == ("data.x", "data.y")
    changed = provider.update("urn", CONFIG_MAP_TYPE, made.id, old, new, made.outputs)
    assert changed.outputs["data"] == {"x": "2"}
    assert provider.read(CONFIG_MAP_TYPE, made.id, {}, {}) == changed.outputs
    provider.delete("urn", CONFIG_MAP_TYPE, made.id, {}, {})
    assert provider.read(CONFIG_MAP_TYPE, made.id, {}, {}) is None
    provider.delete("urn", CONFIG_MAP_TYPE, made.id, {}, {})  # once more is no error


def test_a_name_is_made_up_once_and_kept(provider: KubernetesProvider, namespace: str) -> None:
    first = provider.check(CONFIG_MAP_TYPE, "My-Map", config_map(namespace, None), None)
    again = provider.check(CONFIG_MAP_TYPE, "My-Map", config_map(namespace, None), first)
    other = provider.check(CONFIG_MAP_TYPE, "My-Map", config_map(namespace, None), None)
    assert first["metadata"]["name"].startswith("my-map-")
    assert again == first
    assert other["metadata"]["name"] != first["metadata"]["name"]
    assert provider.diff(CONFIG_MAP_TYPE, first, again, {}).changed == ()


def test_a_resource_without_a_namespace_goes_to_the_default_one(provider: KubernetesProvider) -> None:
    checked = provider.check(CONFIG_MAP_TYPE, "x", {"metadata": {"name": "a"}, "data": None}, None)
    assert checked["metadata"]["namespace"] == "default"
    assert "data" not in checked


def test_a_namespace_is_gone_only_when_all_in_it_is(provider: KubernetesProvider, cluster: SmallCluster) -> None:
    _, made = apply(provider, NAMESPACE_TYPE, {"metadata": {"name": "going"}})
    cluster.create(JOB, "going", job("a", "import time; time.sleep(60)"))
    provider.delete("urn", NAMESPACE_TYPE, made.id, {}, {})
    assert cluster.find_all(POD, "going") == []
    assert provider.read(NAMESPACE_TYPE, made.id, {}, {}) is None


def test_a_second_create_is_refused_and_a_resumed_one_adopts_what_is_there(
    provider: KubernetesProvider, namespace: str
) -> None:
    checked, made = apply(provider, CONFIG_MAP_TYPE, config_map(namespace, x="1"))
    with pytest.raises(MlopsError, match="already exists"):
        provider.create("urn", CONFIG_MAP_TYPE, checked)
    resumed = provider.create("urn", CONFIG_MAP_TYPE, checked, resuming=True)
    assert resumed.outputs["metadata"]["uid"] == made.outputs["metadata"]["uid"]


@pytest.mark.parametrize(
    ("type_", "inputs", "said"),
    [
        (CONFIG_MAP_TYPE, {"metadata": {"name": "a"}, "dta": {}}, 'unknown field "dta"'),
        (CONFIG_MAP_TYPE, {"metadata": {"name": "A B"}}, "not a lower-case DNS name"),
        (JOB_TYPE, job("x", "", parallelism=2), "only 1 is supported"),
        (ROLLOUT_TYPE, {"metadata": {"name": "a"}, "spec": {"strategy": {"canary": {}}}}, "'template' is a required"),
        ("kubernetes:apps/v1:StatefulSet", {}, "nothing that the small cluster keeps"),
    ],
)
def test_what_the_cluster_would_refuse_is_refused_before_anything_is_done(
    tmp_path: Path, type_: str, inputs: dict[str, Any], said: str
) -> None:
    nowhere = KubernetesProvider(tmp_path / "no-kubeconfig")  # a check never asks the cluster
    with pytest.raises(MlopsError, match=said):
        nowhere.check(type_, "res", inputs, None)


def test_a_workload_in_a_restricted_namespace_is_checked_against_that_standard(tmp_path: Path) -> None:
    nowhere = KubernetesProvider(tmp_path / "no-kubeconfig")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    nowhere.check(NAMESPACE_TYPE, "n", {"metadata": {"name": "held", "labels": labels}}, None)
    manifest = job("x", "print(1)")
    manifest["metadata"]["namespace"] = "held"
    with pytest.raises(MlopsError, match="runAsNonRoot must be true"):
        nowhere.check(JOB_TYPE, "x", manifest, None)


def test_values_that_a_preview_does_not_know_are_not_judged(tmp_path: Path) -> None:
    nowhere = KubernetesProvider(tmp_path / "no-kubeconfig")
    manifest = rollout("v1", [])
    manifest["metadata"] = {"name": "m", "namespace": UNKNOWN}
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["image"] = UNKNOWN
    container["env"][0] = {"name": "MLOPS_ENVIRONMENT", "value": UNKNOWN}
    checked = nowhere.check(ROLLOUT_TYPE, "m", manifest, None)
    assert checked["metadata"]["namespace"] is UNKNOWN
    assert (
        "metadata.namespace" in nowhere.diff(ROLLOUT_TYPE, {**checked, "metadata": {"name": "m"}}, checked, {}).changed
    )
    container["imag"] = UNKNOWN
    with pytest.raises(MlopsError, match='unknown field "imag"'):
        nowhere.check(ROLLOUT_TYPE, "m", manifest, None)


@pytest.mark.parametrize(
    ("type_", "path", "value", "replaces"),
    [
        (JOB_TYPE, ("spec", "template", "spec", "restartPolicy"), "OnFailure", True),
        (JOB_TYPE, ("spec", "suspend"), True, False),
        (SERVICE_TYPE, ("spec", "clusterIP"), "None", True),
        (CONFIG_MAP_TYPE, ("metadata", "name"), "other", True),
        (CONFIG_MAP_TYPE, ("metadata", "labels", "x"), "y", False),
        ("kubernetes:apps/v1:Deployment", ("spec", "selector", "matchLabels", "app"), "n", True),
        (ROLLOUT_TYPE, ("spec", "template", "metadata", "labels", "x"), "y", False),
    ],
)
def test_a_change_of_what_cannot_change_forces_a_replacement(
    provider: KubernetesProvider, type_: str, path: tuple[str, ...], value: Any, replaces: bool
) -> None:
    old: dict[str, Any] = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.1"}}
    new: dict[str, Any] = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.1"}}
    inner = new
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    found = provider.diff(type_, old, new, {})
    assert found.changed
    assert bool(found.replace) is replaces
    assert found.delete_before_replace is (replaces and path[-1] != "name")


def test_an_update_leaves_alone_what_the_rollout_controller_has_set(
    provider: KubernetesProvider, cluster: SmallCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    service = cluster.get(SERVICE, namespace, "m-stable")
    old = {"metadata": {"name": "m-stable", "namespace": namespace}, "spec": {"selector": {"app": "m"}}}
    new = {**old, "metadata": {**old["metadata"], "labels": {"owner": "us"}}}
    made = provider.update("urn", SERVICE_TYPE, f"{namespace}/m-stable", old, new, {})
    assert made.outputs["spec"]["selector"] == service["spec"]["selector"]
    assert "rollouts-pod-template-hash" in made.outputs["spec"]["selector"]


def test_a_job_is_waited_for_and_its_failure_is_the_updates(
    provider: KubernetesProvider, cluster: SmallCluster, namespace: str
) -> None:
    good, bad = job("good", "print(1)"), job("bad", "raise SystemExit(7)")
    for manifest in (good, bad):
        manifest["metadata"]["namespace"] = namespace
    _, made = apply(provider, JOB_TYPE, good)
    assert made.outputs["status"]["succeeded"] == 1
    with pytest.raises(MlopsError, match="exit code 7"):
        apply(provider, JOB_TYPE, bad)


def test_an_ingress_has_its_address_when_it_is_created(provider: KubernetesProvider, namespace: str) -> None:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    inputs = {"metadata": {"name": "i", "namespace": namespace}, "spec": {"rules": rules}}
    _, made = apply(provider, INGRESS_TYPE, inputs)
    (address,) = made.outputs["status"]["loadBalancer"]["ingress"]
    assert address["ip"] == "127.0.0.1"
    assert address["ports"][0]["port"] > 1024


def test_a_service_is_waited_for_as_pulumi_does_unless_it_asks_not_to_be(cluster: SmallCluster, namespace: str) -> None:
    hasty = KubernetesProvider(cluster.home / "kubeconfig", ready_within=0.2)
    inputs = {
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"selector": {"app": "m"}, "ports": [{"port": 80}]},
    }
    with pytest.raises(MlopsError, match="a ready pod that its selector matches"):
        apply(hasty, SERVICE_TYPE, inputs)
    inputs["metadata"] |= {"name": "t", "annotations": {"pulumi.com/skipAwait": "true"}}
    _, made = apply(hasty, SERVICE_TYPE, inputs)
    assert made.id == f"{namespace}/t"


def test_a_rollout_is_not_waited_for_because_pulumi_does_not_know_it(
    provider: KubernetesProvider, cluster: SmallCluster, namespace: str
) -> None:
    manifest = rollout("v1", [])
    manifest["metadata"]["namespace"] = namespace
    _, made = apply(provider, ROLLOUT_TYPE, manifest)
    assert made.outputs["spec"]["replicas"] == 2
    provider.delete("urn", ROLLOUT_TYPE, made.id, {}, {})
    assert cluster.find_all(POD, namespace) == []


def test_what_controllers_set_beside_a_program_is_no_drift_and_what_somebody_changes_is(
    provider: KubernetesProvider, cluster: SmallCluster, namespace: str
) -> None:
    """An Ingress whose weights Argo writes, while the router reports its address."""
    rule = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "m-stable"}}}]}}
    rule["http"]["paths"][0]["backend"]["service"]["port"] = {"number": 80}  # type: ignore[index]
    asked = {"metadata": {"name": "m", "namespace": namespace, "annotations": {"a": "1"}}, "spec": {"rules": [rule]}}
    checked, made = apply(provider, INGRESS_TYPE, asked)
    known = ResourceState(
        f"urn:pulumi:dev::p::{INGRESS_TYPE}::m",
        id=made.id,
        inputs=Properties(checked),
        outputs=Properties(made.outputs),
    )

    def refreshed() -> ResourceState:
        live = provider.read(INGRESS_TYPE, made.id, known.inputs.values, known.outputs.values)
        assert live is not None
        return reconcile(known, live)

    weights = {"metadata": {"annotations": {"alb.ingress.kubernetes.io/actions.m-stable": "{}"}}}
    cluster.merge(INGRESS, namespace, "m", weights)
    assert refreshed().inputs == known.inputs
    cluster.merge(INGRESS, namespace, "m", {"metadata": {"annotations": {"a": "2"}}, "spec": {"rules": []}})
    found = refreshed().inputs.values
    assert provider.diff(INGRESS_TYPE, found, checked, {}).changed == ("metadata.annotations.a", "spec.rules")


def test_a_refusal_names_the_object_and_what_to_do(provider: KubernetesProvider, namespace: str) -> None:
    old = config_map(namespace, "gone")
    with pytest.raises(MlopsError, match=rf"refused to update ConfigMap {namespace}/gone: .*not found") as error:
        provider.update("urn", CONFIG_MAP_TYPE, f"{namespace}/gone", old, {**old, "data": {"x": "1"}}, {})
    assert "refresh" in error.value.fix


def test_no_cluster_is_an_error_for_people(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="no cluster can be found") as error:
        KubernetesProvider(tmp_path / "kubeconfig").read(CONFIG_MAP_TYPE, "n/a", {}, {})
    assert "mlops laptop start" in error.value.fix


def test_several_threads_use_one_provider(provider: KubernetesProvider, cluster: SmallCluster, namespace: str) -> None:
    barrier = threading.Barrier(8)

    def one(number: int) -> str:
        barrier.wait(5)
        return apply(provider, CONFIG_MAP_TYPE, config_map(namespace, f"m{number}"))[1].id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 8
    assert len(cluster.find_all(CONFIG_MAP, namespace)) == 8
    assert cluster.find_all(INGRESS, namespace) == []
