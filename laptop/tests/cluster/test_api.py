from __future__ import annotations

import stat
import urllib.error
import urllib.request
from typing import Any

import pytest
from lightkube import Client as Lightkube
from lightkube import KubeConfig
from lightkube.core.exceptions import ApiError as LightkubeError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import CascadeType, PatchType

from laptop.cluster.kinds import CONFIG_MAP, DEPLOYMENT, EVENT, INGRESS, JOB, KINDS, NAMESPACE, POD, ROLLOUT, SERVICE
from laptop.cluster.reviews import RESOURCES
from laptop.tests.cluster.running_cluster import (
    IMAGE,
    RunningCluster,
    job,
    new_namespace,
    refusal,
    rollout,
    wait_for,
)

MAIN = {"name": "main", "image": IMAGE, "command": ["true"]}
MOUNTED = {"volumeMounts": [{"name": "v", "mountPath": "/etc/model"}]}
RESTRICTED: dict[str, dict[str, Any]] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "container": {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}},
}


@pytest.fixture
def lightkube(cluster: RunningCluster, namespace: str) -> Lightkube:
    return Lightkube(KubeConfig.from_file(cluster.home / "kubeconfig"), namespace=namespace, field_manager="test")


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


def test_the_kubeconfig_is_for_its_owner_only(cluster: RunningCluster) -> None:
    assert stat.S_IMODE((cluster.home / "kubeconfig").stat().st_mode) == 0o600


def test_a_request_without_the_token_is_refused(cluster: RunningCluster) -> None:
    for token in ("", "wrong"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            cluster.open("/api/v1/namespaces", token=token)
        assert refused.value.code == 401


def test_a_client_without_the_laptops_authority_does_not_trust_the_server(cluster: RunningCluster) -> None:
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"{cluster.endpoint}/version", timeout=5)


def test_an_object_is_created_read_changed_and_deleted(cluster: RunningCluster, namespace: str) -> None:
    made = cluster.create(CONFIG_MAP, namespace, config_map("a", x="1"))
    assert made["metadata"]["uid"]
    changed = cluster.client.send("PUT", CONFIG_MAP.path(namespace, "a"), {**made, "data": {"x": "2"}})
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    assert changed["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    cluster.delete(CONFIG_MAP, namespace, "a")
    assert cluster.client.get(CONFIG_MAP.path(namespace, "a")) is None


def test_refusals_are_the_status_objects_of_kubernetes(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(CONFIG_MAP, namespace, config_map("a"))
    there = refusal(lambda: cluster.create(CONFIG_MAP, namespace, config_map("a")))
    assert (there.code, there.reason) == (409, "AlreadyExists")
    gone = refusal(lambda: cluster.delete(CONFIG_MAP, namespace, "b"))
    assert (gone.code, gone.reason, gone.message) == (404, "NotFound", 'configmaps "b" not found')
    nowhere = refusal(lambda: cluster.create(CONFIG_MAP, "no-such-namespace", config_map("a")))
    assert (nowhere.code, nowhere.message) == (404, 'namespaces "no-such-namespace" not found')
    unknown = refusal(lambda: cluster.client.send("GET", "/apis/example.com/v1/namespaces/x/things"))
    assert unknown.code == 404


def test_replacing_an_object_that_has_changed_is_a_conflict(cluster: RunningCluster, namespace: str) -> None:
    made = cluster.create(CONFIG_MAP, namespace, config_map("a", x="1"))
    path = CONFIG_MAP.path(namespace, "a")
    cluster.client.send("PUT", path, {**made, "data": {"x": "2"}})
    late = refusal(lambda: cluster.client.send("PUT", path, {**made, "data": {"x": "3"}}))
    assert (late.code, late.reason) == (409, "Conflict")
    assert cluster.get(CONFIG_MAP, namespace, "a")["data"] == {"x": "2"}


def test_an_unknown_field_is_refused_with_its_path_if_the_request_is_strict(
    cluster: RunningCluster, namespace: str
) -> None:
    manifest = job("a", "print(1)", pod={"container": {"imagePulPolicy": "Always"}})
    path = f"{JOB.path(namespace)}?fieldValidation=Strict"
    error = refusal(lambda: cluster.client.send("POST", path, manifest))
    assert error.code == 400
    assert 'unknown field "spec.template.spec.containers[0].imagePulPolicy"' in error.message
    cluster.create(JOB, namespace, manifest)
    assert "imagePulPolicy" not in str(cluster.get(JOB, namespace, "a"))


def test_an_unknown_field_of_a_rollout_is_always_refused(cluster: RunningCluster, namespace: str) -> None:
    manifest = rollout("v1", [])
    manifest["spec"]["replica"] = 2
    error = refusal(lambda: cluster.create(ROLLOUT, namespace, manifest))
    assert (error.code, 'unknown field "replica"' in error.message) == (422, True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"replicas": "two"}, "spec.replicas"),
        ({"replica": 2}, 'unknown field "replica"'),
        ({"strategy": {"blueGreen": {}}}, "blueGreen"),
    ],
)
def test_a_rollout_that_the_cluster_cannot_run_is_refused(
    cluster: RunningCluster, namespace: str, change: dict[str, Any], expected: str
) -> None:
    manifest = rollout("v1", [])
    manifest["spec"] |= change
    error = refusal(lambda: cluster.create(ROLLOUT, namespace, manifest))
    assert error.code in (400, 422)
    assert expected in error.message


ON_EXIT_1 = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}
ON_DISRUPTION = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (job("x", "", pod={"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}), "'a' is a hostPath"),
        (
            job(
                "x",
                "",
                pod={"initContainers": [{"name": "i", "image": IMAGE, "command": ["x"], "restartPolicy": "Always"}]},
            ),
            "sidecars are not supported",
        ),
        (job("x", "", pod={"containers": [MAIN, {**MAIN, "name": "second"}]}), "expected one container, found 2"),
        (job("x", "", pod={"container": {"command": None}}), "their entry point is not known"),
        (job("x", "", pod={"container": {"workingDir": "/srv"}}), "workingDir"),
        (
            job("x", "", pod={"volumes": [{"name": "v", "configMap": {"name": "c"}}], "container": MOUNTED}),
            "no variable or argument of the container names /etc/model",
        ),
        (job("x", "", pod={"container": {"livenessProbe": {"exec": {"command": ["true"]}}}}), "only httpGet"),
        (job("x", "", backoffLimitPerIndex=3), "backoffLimitPerIndex"),
        (job("x", "", podFailurePolicy={"rules": [ON_DISRUPTION]}), "only rules on exit codes"),
        (
            job("x", "", pod={"restartPolicy": "OnFailure"}, podFailurePolicy={"rules": [ON_EXIT_1]}),
            "needs the restartPolicy Never",
        ),
    ],
)
def test_a_workload_that_the_cluster_cannot_run_is_refused(
    cluster: RunningCluster, namespace: str, manifest: dict[str, Any], expected: str
) -> None:
    pod = manifest["spec"]["template"]["spec"]
    pod["containers"] = [{k: v for k, v in container.items() if v is not None} for container in pod["containers"]]
    error = refusal(lambda: cluster.create(JOB, namespace, manifest))
    assert error.code == 422
    assert expected in error.message
    assert "a limit of the laptop" in error.message


@pytest.mark.parametrize("name", ["Upper", "under_score", "-a", "a" * 254])
def test_a_name_that_is_not_a_dns_name_is_refused(cluster: RunningCluster, namespace: str, name: str) -> None:
    assert refusal(lambda: cluster.create(CONFIG_MAP, namespace, config_map(name))).code == 422


def test_a_label_that_kubernetes_would_refuse_is_refused(cluster: RunningCluster, namespace: str) -> None:
    manifest = {"metadata": {"name": "a", "labels": {"digest": "sha256:" + "0" * 64}}}
    message = refusal(lambda: cluster.create(CONFIG_MAP, namespace, manifest)).message
    assert "metadata.labels: Invalid value" in message
    assert "a valid label must be" in message


def test_a_namespace_that_enforces_restricted_refuses_pods_that_are_not(
    cluster: RunningCluster, namespace: str
) -> None:
    cluster.merge(
        NAMESPACE, "", namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    error = refusal(lambda: cluster.create(POD, namespace, {"metadata": {"name": "p"}, "spec": {"containers": [MAIN]}}))
    assert (error.code, error.reason) == (403, "Forbidden")
    assert error.message == (
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": '
        'allowPrivilegeEscalation != false (container "main" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "main" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "main" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "main" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")'
    )
    cluster.create(JOB, namespace, job("b", "print(1)"))  # a workload is accepted, its pods are not
    wait_for(lambda: any("violates PodSecurity" in event["message"] for event in cluster.find_all(EVENT, namespace)))
    assert cluster.pods_of(namespace, "b") == []
    cluster.create(JOB, namespace, job("a", "print(1)", pod={key: dict(value) for key, value in RESTRICTED.items()}))
    assert cluster.ended(namespace, "a")["type"] == "Complete"


def test_an_immutable_field_cannot_be_changed(cluster: RunningCluster, namespace: str) -> None:
    cluster.create(JOB, namespace, job("a", "print(1)"))
    error = refusal(
        lambda: cluster.merge(JOB, namespace, "a", {"spec": {"template": {"spec": {"restartPolicy": "OnFailure"}}}})
    )
    assert (error.code, "field is immutable" in error.message) == (422, True)


def test_a_status_is_written_by_its_subresource_only(cluster: RunningCluster, namespace: str) -> None:
    manifest = rollout("v1", [], paused=True)
    cluster.create(ROLLOUT, namespace, {**manifest, "status": {"phase": "Healthy", "note": "mine"}})
    assert "note" not in (cluster.get(ROLLOUT, namespace, "m").get("status") or {})
    cluster.merge(ROLLOUT, namespace, "m", {"status": {"note": "mine"}})
    assert "note" not in (cluster.get(ROLLOUT, namespace, "m").get("status") or {})
    found = cluster.merge(ROLLOUT, namespace, "m", {"spec": {"replicas": 9}, "status": {"note": "mine"}}, sub="status")
    assert (found["status"]["note"], found["spec"]["replicas"]) == ("mine", 2)


def test_a_list_is_narrowed_by_labels_and_fields(cluster: RunningCluster, namespace: str) -> None:
    for name, labels in (("a", {"env": "dev", "m": "x"}), ("b", {"env": "prod"}), ("c", {})):
        cluster.create(CONFIG_MAP, namespace, {"metadata": {"name": name, "labels": labels}})

    def names(query: str) -> list[str]:
        return [item["metadata"]["name"] for item in cluster.find_all(CONFIG_MAP, namespace, query)]

    assert names("?labelSelector=env%3Ddev") == ["a"]
    assert names("?labelSelector=env!%3Ddev") == ["b", "c"]
    assert names("?labelSelector=env+in+(dev,prod),m") == ["a"]
    assert names("?labelSelector=env+notin+(dev)") == ["b", "c"]
    assert names("?labelSelector=!env") == ["c"]
    assert names("?fieldSelector=metadata.name%3Db") == ["b"]
    assert refusal(lambda: names("?labelSelector=%3D%3D")).code == 400


def test_a_dry_run_changes_nothing(cluster: RunningCluster, namespace: str) -> None:
    cluster.client.send("POST", f"{CONFIG_MAP.path(namespace)}?dryRun=All", config_map("a"))
    assert cluster.find_all(CONFIG_MAP, namespace) == []


def test_owned_objects_are_deleted_or_kept_by_propagation_policy(cluster: RunningCluster, namespace: str) -> None:
    for policy, left in (("Background", []), ("Foreground", []), ("Orphan", ["child"])):
        owner = cluster.create(CONFIG_MAP, namespace, config_map("owner"))
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        cluster.create(CONFIG_MAP, namespace, {"metadata": {"name": "child", "ownerReferences": [reference]}})
        cluster.delete(CONFIG_MAP, namespace, "owner", propagationPolicy=policy)
        names = [item["metadata"]["name"] for item in cluster.find_all(CONFIG_MAP, namespace)]
        assert names == left, policy


def test_deleting_a_namespace_deletes_everything_in_it(cluster: RunningCluster) -> None:
    name = new_namespace(cluster, "short-lived")
    cluster.create(JOB, name, job("a", "import time; time.sleep(60)"))
    wait_for(lambda: cluster.pods_of(name, "a"))
    cluster.delete(NAMESPACE, "", name)
    refused = refusal(lambda: cluster.create(CONFIG_MAP, name, config_map("late")))
    assert refused.code in (403, 404)
    wait_for(lambda: cluster.client.get(NAMESPACE.path(name=name)) is None)
    assert cluster.find_all(POD, name) == []


def test_lightkube_creates_lists_patches_applies_watches_and_deletes(lightkube: Lightkube, namespace: str) -> None:
    lightkube.create(ConfigMap(metadata=ObjectMeta(name="a", labels={"x": "1"}), data={"k": "1"}))
    with pytest.raises(LightkubeError) as there:
        lightkube.create(ConfigMap(metadata=ObjectMeta(name="a")))
    assert there.value.status.code == 409
    lightkube.patch(ConfigMap, "a", {"data": {"l": "2"}})  # strategic merge
    lightkube.patch(ConfigMap, "a", {"data": {"k": None}}, patch_type=PatchType.MERGE)
    lightkube.apply(ConfigMap(metadata=ObjectMeta(name="a"), data={"m": "3"}))
    lightkube.apply(ConfigMap(metadata=ObjectMeta(name="new"), data={"n": "4"}))
    found = lightkube.get(ConfigMap, "a")
    assert found.data == {"l": "2", "m": "3"}
    found.data = {"only": "this"}
    assert lightkube.replace(found).data == {"only": "this"}
    assert [item.metadata and item.metadata.name for item in lightkube.list(ConfigMap, labels={"x": "1"})] == ["a"]
    for type_, item in lightkube.watch(ConfigMap):
        assert type_ == "ADDED"
        if item.metadata and item.metadata.name == "new":
            break
    lightkube.delete(ConfigMap, "a", cascade=CascadeType.FOREGROUND)
    with pytest.raises(LightkubeError) as gone:
        lightkube.get(ConfigMap, "a")
    assert gone.value.status.code == 404
    assert list(lightkube.list(Pod)) == []


def test_a_watch_reports_changes(cluster: RunningCluster, namespace: str) -> None:
    made = cluster.create(CONFIG_MAP, namespace, config_map("a"))
    since = made["metadata"]["resourceVersion"]
    with cluster.open(f"{CONFIG_MAP.path(namespace)}?watch=true&resourceVersion={since}&timeoutSeconds=10") as events:
        cluster.merge(CONFIG_MAP, namespace, "a", {"data": {"x": "1"}})
        cluster.delete(CONFIG_MAP, namespace, "a")
        seen = [events.readline().decode()[:20] for _ in range(2)]
    assert [line.split('"')[3] for line in seen] == ["MODIFIED", "DELETED"]


def test_discovery_lists_every_kind_that_is_served(cluster: RunningCluster) -> None:
    groups = cluster.client.send("GET", "/apis")["groups"]
    bases = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
    served = {
        (base, resource["name"])
        for base in bases
        for resource in cluster.client.send("GET", base)["resources"]
        if "/" not in resource["name"]
    }
    asked = {(f"/apis/{group}/v1", plural) for group, plurals in RESOURCES.items() for plural, _ in plurals}
    assert served == {(kind.base, kind.plural) for kind in KINDS} | asked


def test_a_deployment_replaces_its_pods_once_the_new_ones_are_available(
    cluster: RunningCluster, namespace: str
) -> None:
    template = rollout("v1", [])["spec"]["template"]
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "m"}}, "template": template}
    cluster.create(DEPLOYMENT, namespace, {"metadata": {"name": "d"}, "spec": spec})
    cluster.wait(DEPLOYMENT, namespace, "d", lambda found: (found.get("status") or {}).get("availableReplicas") == 1)
    (old,) = cluster.find_all(POD, namespace)
    spec["template"] = rollout("v2", [])["spec"]["template"]
    cluster.merge(DEPLOYMENT, namespace, "d", {"spec": spec})
    wait_for(lambda: old["metadata"]["name"] not in [p["metadata"]["name"] for p in cluster.find_all(POD, namespace)])
    (new,) = cluster.find_all(POD, namespace)
    assert new["spec"]["containers"][0]["command"][-1] == "v2"


def test_an_ingress_without_weights_routes_to_its_service(cluster: RunningCluster, namespace: str) -> None:
    template = rollout("v1", [])["spec"]["template"]
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "m"}}, "template": template}
    cluster.create(DEPLOYMENT, namespace, {"metadata": {"name": "d"}, "spec": spec})
    ports = [{"port": 80, "targetPort": "http"}]
    cluster.create(SERVICE, namespace, {"metadata": {"name": "s"}, "spec": {"selector": {"app": "m"}, "ports": ports}})
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rules = [{"host": "m.example.com", "http": {"paths": [{"path": "/v2", "pathType": "Prefix", "backend": backend}]}}]
    cluster.create(INGRESS, namespace, {"metadata": {"name": "i"}, "spec": {"rules": rules}})
    url = cluster.address(namespace, "i")

    def status(path: str) -> int:
        try:
            with urllib.request.urlopen(url + path, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    wait_for(lambda: status("/v2/models") == 200)
    assert status("/v2x") == 404
    cluster.merge(DEPLOYMENT, namespace, "d", {"spec": {"replicas": 0}})
    wait_for(lambda: status("/v2/models") == 503)
