from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from infra.policies.resource_graph import UNKNOWN
from laptop.cluster.kinds import CONFIG_MAP, INGRESS, JOB, POD, ROLLOUT, SERVICE
from laptop.engine.provider import Created, IncompleteError, Provider, ResourceCall
from laptop.engine.refreshing import reconcile
from laptop.engine.resources import ResourceState
from laptop.engine.values import Properties
from laptop.faults import Faults
from laptop.kubernetes.kubernetes_provider import KubernetesProvider
from laptop.tests.cluster.running_cluster import RunningCluster, expose, job, phase, rollout, wait_for
from pipelines.declarations.errors import MlopsError

CONFIG_MAP_TYPE = "kubernetes:core/v1:ConfigMap"
JOB_TYPE = "kubernetes:batch/v1:Job"
SERVICE_TYPE = "kubernetes:core/v1:Service"
INGRESS_TYPE = "kubernetes:networking.k8s.io/v1:Ingress"
NAMESPACE_TYPE = "kubernetes:core/v1:Namespace"
ROLLOUT_TYPE = "kubernetes:argoproj.io/v1alpha1:Rollout"


@pytest.fixture
def provider(cluster: RunningCluster) -> KubernetesProvider:
    return KubernetesProvider(cluster.home / "kubeconfig", ready_within=5, gone_within=10)


def config_map(namespace: str, name: str | None = "a", **data: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"namespace": namespace}
    return {"metadata": metadata | ({"name": name} if name else {}), "data": data}


def apply(provider: Provider, type_: str, inputs: dict[str, Any], name: str = "res") -> tuple[dict[str, Any], Created]:
    checked = provider.check(type_, name, inputs, None)
    return checked, provider.create(ResourceCall(type_, checked, f"urn:pulumi:dev::p::{type_}::{name}"))


def test_the_provider_implements_the_protocol(provider: KubernetesProvider) -> None:
    assert isinstance(provider, Provider)


def test_a_resource_is_created_read_updated_and_deleted(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str
) -> None:
    old, made = apply(provider, CONFIG_MAP_TYPE, config_map(namespace, x="1", y="1"))
    assert made.id == f"{namespace}/a"
    assert made.outputs["metadata"]["uid"]
    new = provider.check(CONFIG_MAP_TYPE, "res", config_map(namespace, x="2"), old)
    assert provider.diff(ResourceCall(CONFIG_MAP_TYPE, new, old_inputs=old, outputs=made.outputs)).changed == (
        "data.x",
        "data.y",
    )
    changed = provider.update(ResourceCall(CONFIG_MAP_TYPE, new, "urn", made.id, old, made.outputs))
    assert changed.outputs["data"] == {"x": "2"}
    assert provider.read(ResourceCall(CONFIG_MAP_TYPE, {}, id=made.id)) == changed.outputs
    provider.delete(ResourceCall(CONFIG_MAP_TYPE, {}, "urn", made.id))
    assert provider.read(ResourceCall(CONFIG_MAP_TYPE, {}, id=made.id)) is None
    provider.delete(ResourceCall(CONFIG_MAP_TYPE, {}, "urn", made.id))  # deleting it again is not an error


def test_a_generated_name_is_kept(provider: KubernetesProvider, namespace: str) -> None:
    first = provider.check(CONFIG_MAP_TYPE, "My-Map", config_map(namespace, None), None)
    again = provider.check(CONFIG_MAP_TYPE, "My-Map", config_map(namespace, None), first)
    other = provider.check(CONFIG_MAP_TYPE, "My-Map", config_map(namespace, None), None)
    assert first["metadata"]["name"].startswith("my-map-")
    assert again == first
    assert other["metadata"]["name"] != first["metadata"]["name"]
    assert provider.diff(ResourceCall(CONFIG_MAP_TYPE, again, old_inputs=first)).changed == ()


def test_a_resource_without_a_namespace_goes_to_the_default_one(provider: KubernetesProvider) -> None:
    checked = provider.check(CONFIG_MAP_TYPE, "x", {"metadata": {"name": "a"}, "data": None}, None)
    assert checked["metadata"]["namespace"] == "default"
    assert "data" not in checked


def test_a_namespace_is_gone_only_after_its_objects(provider: KubernetesProvider, cluster: RunningCluster) -> None:
    _, made = apply(provider, NAMESPACE_TYPE, {"metadata": {"name": "going"}})
    cluster.create(JOB, "going", job("a", "import time; time.sleep(60)"))
    provider.delete(ResourceCall(NAMESPACE_TYPE, {}, "urn", made.id))
    assert cluster.find_all(POD, "going") == []
    assert provider.read(ResourceCall(NAMESPACE_TYPE, {}, id=made.id)) is None


def test_a_second_create_is_refused_and_a_resumed_one_adopts_the_object(
    provider: KubernetesProvider, namespace: str
) -> None:
    checked, made = apply(provider, CONFIG_MAP_TYPE, config_map(namespace, x="1"))
    with pytest.raises(MlopsError, match="already exists"):
        provider.create(ResourceCall(CONFIG_MAP_TYPE, checked, "urn"))
    resumed = provider.create(ResourceCall(CONFIG_MAP_TYPE, checked, "urn", resuming=True))
    assert resumed.outputs["metadata"]["uid"] == made.outputs["metadata"]["uid"]


@pytest.mark.parametrize("written", [True, "true"])
def test_a_provider_that_upserts_takes_an_object_over(
    provider: KubernetesProvider, namespace: str, written: object
) -> None:
    checked, made = apply(provider, CONFIG_MAP_TYPE, config_map(namespace, x="1"))
    checked["data"]["x"] = "2"
    configuration = {"upsertExistingObjects": written}
    taken = provider.create(ResourceCall(CONFIG_MAP_TYPE, checked, "urn", configuration=configuration))
    assert taken.outputs["metadata"]["uid"] == made.outputs["metadata"]["uid"]
    assert taken.outputs["data"] == {"x": "2"}
    with pytest.raises(MlopsError, match="already exists"):
        provider.create(ResourceCall(CONFIG_MAP_TYPE, checked, configuration={"upsertExistingObjects": "false"}))


@pytest.mark.parametrize(
    ("type_", "inputs", "said"),
    [
        (CONFIG_MAP_TYPE, {"metadata": {"name": "a"}, "dta": {}}, 'unknown field "dta"'),
        (CONFIG_MAP_TYPE, {"metadata": {"name": "A B"}}, "not a lower-case DNS name"),
        (JOB_TYPE, job("x", "", backoffLimitPerIndex=2), "backoffLimitPerIndex"),
        (ROLLOUT_TYPE, {"metadata": {"name": "a"}, "spec": {"strategy": {"canary": {}}}}, "'template' is a required"),
        ("kubernetes:apps/v1:StatefulSet", {}, "cluster does not support `kubernetes:apps/v1:StatefulSet`"),
    ],
)
def test_an_invalid_manifest_is_refused_before_any_request(
    tmp_path: Path, type_: str, inputs: dict[str, Any], said: str
) -> None:
    nowhere = KubernetesProvider(tmp_path / "no-kubeconfig")  # a check makes no requests
    with pytest.raises(MlopsError, match=said):
        nowhere.check(type_, "res", inputs, None)


def test_a_workload_in_a_restricted_namespace_is_checked_against_that_standard(tmp_path: Path) -> None:
    nowhere = KubernetesProvider(tmp_path / "no-kubeconfig")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    nowhere.check(NAMESPACE_TYPE, "n", {"metadata": {"name": "held", "labels": labels}}, None)
    manifest = job("x", "print(1)")
    manifest["metadata"]["namespace"] = "held"
    with pytest.raises(MlopsError, match=r"must set securityContext\.runAsNonRoot=true"):
        nowhere.check(JOB_TYPE, "x", manifest, None)


def test_an_unchanged_workload_is_checked_again_if_its_namespace_becomes_restricted(tmp_path: Path) -> None:
    nowhere = KubernetesProvider(tmp_path / "no-kubeconfig")
    manifest = job("x", "print(1)")
    manifest["metadata"]["namespace"] = "held"
    checked = nowhere.check(JOB_TYPE, "x", manifest, None)
    assert nowhere.check(JOB_TYPE, "x", manifest, checked) == checked
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    nowhere.check(NAMESPACE_TYPE, "n", {"metadata": {"name": "held", "labels": labels}}, None)
    with pytest.raises(MlopsError, match=r"must set securityContext\.runAsNonRoot=true"):
        nowhere.check(JOB_TYPE, "x", manifest, checked)


def test_unknown_values_of_a_preview_are_not_checked(tmp_path: Path) -> None:
    nowhere = KubernetesProvider(tmp_path / "no-kubeconfig")
    manifest = rollout("v1", [])
    manifest["metadata"] = {"name": "m", "namespace": UNKNOWN}
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["image"] = UNKNOWN
    container["env"][0] = {"name": "MLOPS_ENVIRONMENT", "value": UNKNOWN}
    checked = nowhere.check(ROLLOUT_TYPE, "m", manifest, None)
    assert checked["metadata"]["namespace"] is UNKNOWN
    assert (
        "metadata.namespace"
        in nowhere.diff(ResourceCall(ROLLOUT_TYPE, checked, old_inputs={**checked, "metadata": {"name": "m"}})).changed
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
def test_a_change_of_an_immutable_field_forces_a_replacement(
    provider: KubernetesProvider, type_: str, path: tuple[str, ...], value: Any, replaces: bool
) -> None:
    old: dict[str, Any] = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.1"}}
    new: dict[str, Any] = {"metadata": {"name": "a", "namespace": "n"}, "spec": {"clusterIP": "10.0.0.1"}}
    inner = new
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = value
    found = provider.diff(ResourceCall(type_, new, old_inputs=old))
    assert found.changed
    assert bool(found.replace) is replaces
    assert found.delete_before_replace is (replaces and path[-1] != "name")


def test_an_update_keeps_the_fields_of_the_rollout_controller(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str
) -> None:
    expose(cluster, namespace)
    cluster.create(ROLLOUT, namespace, rollout("v1", [], replicas=1))
    phase(cluster, namespace, "Healthy")
    service = cluster.get(SERVICE, namespace, "m-stable")
    old: dict[str, Any] = {"metadata": {"name": "m-stable", "namespace": namespace}, "spec": {"selector": {"app": "m"}}}
    new = {**old, "metadata": {**old["metadata"], "labels": {"owner": "us"}}}
    made = provider.update(ResourceCall(SERVICE_TYPE, new, "urn", f"{namespace}/m-stable", old))
    assert made.outputs["spec"]["selector"] == service["spec"]["selector"]
    assert "rollouts-pod-template-hash" in made.outputs["spec"]["selector"]


def test_a_create_waits_for_its_job_and_fails_with_it(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str
) -> None:
    good, bad = job("good", "print(1)"), job("bad", "raise SystemExit(7)")
    for manifest in (good, bad):
        manifest["metadata"]["namespace"] = namespace
    _, made = apply(provider, JOB_TYPE, good)
    assert made.outputs["status"]["succeeded"] == 1
    with pytest.raises(IncompleteError, match="specified backoff limit"):
        apply(provider, JOB_TYPE, bad)


def test_an_ingress_has_its_address_when_it_is_created(provider: KubernetesProvider, namespace: str) -> None:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rules = [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    inputs = {"metadata": {"name": "i", "namespace": namespace}, "spec": {"rules": rules}}
    _, made = apply(provider, INGRESS_TYPE, inputs)
    (address,) = made.outputs["status"]["loadBalancer"]["ingress"]
    assert address["ip"] == "127.0.0.1"
    assert address["ports"][0]["port"] > 1024


def test_a_create_waits_for_a_service_unless_it_opts_out(cluster: RunningCluster, namespace: str) -> None:
    hasty = KubernetesProvider(cluster.home / "kubeconfig", ready_within=0.2)
    inputs: dict[str, Any] = {
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"selector": {"app": "m"}, "ports": [{"port": 80}]},
    }
    with pytest.raises(IncompleteError, match="a ready pod that its selector matches") as incomplete:
        apply(hasty, SERVICE_TYPE, inputs)
    assert incomplete.value.id == f"{namespace}/s", "the engine keeps it, so that the next run does not make it again"
    inputs["metadata"] |= {"name": "t", "annotations": {"pulumi.com/skipAwait": "true"}}
    _, made = apply(hasty, SERVICE_TYPE, inputs)
    assert made.id == f"{namespace}/t"


def test_a_create_does_not_wait_for_a_rollout_because_pulumi_does_not(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str
) -> None:
    manifest = rollout("v1", [])
    manifest["metadata"]["namespace"] = namespace
    _, made = apply(provider, ROLLOUT_TYPE, manifest)
    assert made.outputs["spec"]["replicas"] == 2
    provider.delete(ResourceCall(ROLLOUT_TYPE, {}, "urn", made.id))
    assert cluster.find_all(POD, namespace) == []


def test_fields_of_controllers_are_not_drift_but_changes_of_a_person_are(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str
) -> None:
    """An Ingress whose weights Argo writes, while the router reports its address."""
    rule = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "m-stable"}}}]}}
    rule["http"]["paths"][0]["backend"]["service"]["port"] = {"number": 80}  # type: ignore[index]
    wanted = {"metadata": {"name": "m", "namespace": namespace, "annotations": {"a": "1"}}, "spec": {"rules": [rule]}}
    checked, made = apply(provider, INGRESS_TYPE, wanted)
    known = ResourceState(
        f"urn:pulumi:dev::p::{INGRESS_TYPE}::m",
        id=made.id,
        inputs=Properties(checked),
        outputs=Properties(made.outputs),
    )

    def refreshed() -> ResourceState:
        live = provider.read(ResourceCall(INGRESS_TYPE, known.inputs.values, id=made.id, outputs=known.outputs.values))
        assert live is not None
        return reconcile(known, live)

    weights = {"metadata": {"annotations": {"alb.ingress.kubernetes.io/actions.m-stable": "{}"}}}
    cluster.merge(INGRESS, namespace, "m", weights)
    assert refreshed().inputs == known.inputs
    other = {**rule, "host": "other.example.com"}
    cluster.merge(INGRESS, namespace, "m", {"metadata": {"annotations": {"a": "2"}}, "spec": {"rules": [other]}})
    found = refreshed().inputs.values
    assert provider.diff(ResourceCall(INGRESS_TYPE, checked, old_inputs=found)).changed == (
        "metadata.annotations.a",
        "spec.rules[0].host",
    )


def test_a_refusal_names_the_object_and_a_fix(provider: KubernetesProvider, namespace: str) -> None:
    old = config_map(namespace, "gone")
    with pytest.raises(MlopsError, match=rf"refused to update ConfigMap {namespace}/gone: .*not found") as error:
        provider.update(ResourceCall(CONFIG_MAP_TYPE, {**old, "data": {"x": "1"}}, "urn", f"{namespace}/gone", old))
    assert "refresh" in error.value.fix


def test_a_busy_cluster_is_asked_again(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("laptop.kubernetes.api_objects.WAIT_SECONDS", 0.1)
    Faults(cluster.home).inject("api-429", 0.5)
    assert apply(provider, CONFIG_MAP_TYPE, config_map(namespace, "late"))[1].id == f"{namespace}/late"


@pytest.mark.parametrize(
    ("fault", "found", "fix"),
    [("api-401", "Unauthorized", "run the operation again"), ("api-403", "forbidden", "give the role this permission")],
)
def test_a_refusal_for_now_asks_for_another_attempt(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str, fault: str, found: str, fix: str
) -> None:
    faults = Faults(cluster.home)
    faults.inject(fault, 600)
    try:
        with pytest.raises(MlopsError, match=found) as error:
            apply(provider, CONFIG_MAP_TYPE, config_map(namespace, "refused"))
        assert fix in error.value.fix
    finally:
        faults.inject(fault, -1)


def test_an_object_that_may_have_been_made_is_taken_up_by_the_next_attempt(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.connection.PATIENCE_SECONDS", 0.0)
    faults = Faults(cluster.home)
    checked = provider.check(CONFIG_MAP_TYPE, "res", config_map(namespace, "unknown"), None)
    faults.inject("api-restart", 600)
    try:
        with pytest.raises(IncompleteError, match="the cluster does not answer"):
            provider.create(ResourceCall(CONFIG_MAP_TYPE, checked, "urn"))
    finally:
        faults.inject("api-restart", -1)
        wait_for(cluster.is_listening)
    cluster.create(CONFIG_MAP, namespace, {"metadata": {"name": "unknown"}})
    made = provider.create(ResourceCall(CONFIG_MAP_TYPE, {**checked, "data": {"a": "b"}}, "urn", resuming=True))
    assert made.outputs["data"] == {"a": "b"}


def test_a_missing_kubeconfig_is_reported_with_a_fix(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="cannot use the kubeconfig") as error:
        KubernetesProvider(tmp_path / "kubeconfig").read(ResourceCall(CONFIG_MAP_TYPE, {}, id="n/a"))
    assert "mlops laptop start" in error.value.fix


def test_several_threads_use_one_provider(
    provider: KubernetesProvider, cluster: RunningCluster, namespace: str
) -> None:
    barrier = threading.Barrier(8)

    def one(number: int) -> str:
        barrier.wait(5)
        return apply(provider, CONFIG_MAP_TYPE, config_map(namespace, f"m{number}"))[1].id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 8
    assert len(cluster.find_all(CONFIG_MAP, namespace)) == 8
    assert cluster.find_all(INGRESS, namespace) == []
