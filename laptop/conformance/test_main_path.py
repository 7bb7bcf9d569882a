"""Main path: ingest, train, deploy, roll back, audit on the target aws, on a real API server with the laptop's node."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from laptop.cluster.image_source import EcrImageSource
from laptop.cluster.node_account import NodeAccount
from laptop.conformance.audit_log import RoleRequests, denials, read_role_requests, unused_rights
from laptop.conformance.aws_site import PERSON, PULUMI, REPOSITORY, AwsSite, aws_site
from laptop.conformance.control_plane import AUDIT_LOG, running
from laptop.conformance.engines import link_binaries
from laptop.conformance.run_record import ROOT
from laptop.conformance.worker_node import running_node
from laptop.demo.material import DATASET, MODEL, batches
from pipelines.declarations.contract import ENGINE
from pipelines.declarations.names import ROLLOUT_FIELD_MANAGER, table_name
from pipelines.declarations.spark_jobs import START_WORKERS
from pipelines.targets.cluster_roles import (
    NAMESPACE_DEPLOY,
    NAMESPACE_PREVIEW,
    NAMESPACES_DEPLOY,
    RIGHTS,
    SPARK_RIGHTS,
    Right,
    deploy_group,
    preview_group,
)
from tests.infra.recording import edit

CLUSTER = ("etcd", "kube-apiserver", "kube-controller-manager", "argo-rollouts")
pytestmark = [pytest.mark.needs(*PULUMI, *CLUSTER), pytest.mark.timeout(1800)]

REQUESTS = 25
"""Requests that a bundle answers before the next environment may have it; more than the model's soak gate asks for."""

SWITCH = f"""
import sys
from pipelines.cluster.rollouts import switch_bundle
switch_bundle("models-dev", {MODEL!r}, sys.argv[1], on_change=print, deadline_seconds=120)
"""

REPLACE = """
import sys
from pipelines.cluster.connection import connect
from pipelines.cluster.pod_credentials import replace_pod
with connect("models-dev") as client:
    replace_pod(client, sys.argv[1], print)
"""

POD_LABELS = "rollouts-pod-template-hash"

DEPLOY, PREVIEW = deploy_group("mlops", "dev"), preview_group("mlops")

LARGE, SPARK = "diabetes-large", "models-dev-spark"
"""Dataset that a Spark server reads, and the namespace of that server."""

LOGGED_WITHIN = 120.0  # seconds from a request to its record in the bucket


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsSite]:
    """A bootstrapped account with published images, and a cluster whose pods run."""
    folder = tmp_path_factory.mktemp("main-path")
    binaries = link_binaries(folder / "plane-bin", CLUSTER)
    with (
        running(folder / "plane", binaries, kwok=False, stand_ins=False) as plane,
        aws_site(folder, ROOT, plane) as site,
        running_node(plane, site.home, EcrImageSource(NodeAccount(site.home), site.home / "aws"), time_scale=0.1),
    ):
        add_large_dataset(site)
        site.bootstrap()
        site.publish_images()
        site.commit("template: pin the images")
        site.use("dev", "dev")
        site.use("dev", "preview")
        site.use("staging", "staging")
        yield site


def add_large_dataset(site: AwsSite) -> None:
    """Add a dataset that a Spark server with one worker reads in dev: a copy of the sample under another name."""
    declared = site.project.contract_file(DATASET).read_text()
    copied = declared.replace(DATASET, LARGE).replace(table_name(DATASET), table_name(LARGE))
    file = site.project.contract_file(LARGE)
    file.write_text(copied)
    edit(file, "customProperties", value=[{"property": ENGINE, "value": "spark"}])
    spark = {"workers": 1, "cpu": "1", "memory": "2Gi"}
    edit(site.root / "Pulumi.dev.yaml", "config", "mlops:environment", "spark", value=spark)


@pytest.fixture(scope="module")
def files(site: AwsSite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return batches(site.project, tmp_path_factory.mktemp("batches"))


def trained(site: AwsSite, file: Path) -> str:
    """Land and ingest a batch, train on everything that was ingested, and return the digest of the bundle."""
    site.mlops("land", DATASET, str(file), "--env", "dev")
    site.mlops("ingest", DATASET, "--file", file.name, "--env", "dev", who="dev")
    return site.mlops("train", MODEL, "--env", "dev", who="dev").splitlines()[-1]


def released(site: AwsSite, environment: str, bundle: str) -> str:
    """Commit a release, deploy it, send requests to it, and return what `deploy` said."""
    site.mlops("release", MODEL, "--env", environment, "--bundle", bundle, who="preview")
    site.commit(f"Release {MODEL} to {environment}")
    said = deployed(site, environment)
    answer = site.mlops("predict", MODEL, "--env", environment, who=environment)
    request = json.loads(answer.splitlines()[0].removeprefix("request"))
    with site.plane.client() as api:
        path = f"/apis/networking.k8s.io/v1/namespaces/models-{environment}/ingresses/{MODEL}"
        balancer = api.get(path).json()["status"]["loadBalancer"]["ingress"][0]
    url = f"http://{balancer['ip']}:{balancer['ports'][0]['port']}/v2/models/{MODEL}/infer"
    with httpx.Client(trust_env=False, timeout=30) as client:
        for _ in range(REQUESTS):
            assert client.post(url, json=request).status_code == httpx.codes.OK
    return said


def deployed(site: AwsSite, environment: str) -> str:
    """Deploy an environment. The gate `soak` lets a bundle pass once its requests are in the inference log."""
    deadline = time.monotonic() + LOGGED_WITHIN
    while True:
        result = site.run(sys.executable, "-m", "pipelines.cli", "deploy", "--env", environment, who=environment)
        if result.returncode == 0:
            return result.stdout
        assert "soak" in result.stdout and time.monotonic() < deadline, result.stdout[-6000:]


@pytest.fixture(scope="module")
def first(site: AwsSite, files: dict[str, Path]) -> str:
    """The first bundle, live in dev."""
    site.mlops("up", "--env", "dev", who="dev")
    bundle = trained(site, files["first"])
    said = released(site, "dev", bundle)
    assert "golden rows match" in said
    assert f"serves {bundle}" in said
    return bundle


def test_the_first_bundle_is_trained_by_a_job_and_served(site: AwsSite, first: str) -> None:
    assert first.startswith("sha256:")
    assert f"serves {first}, as in git" in site.mlops("audit", "--env", "dev", who="preview")


@pytest.fixture(scope="module")
def second(site: AwsSite, first: str, files: dict[str, Path]) -> str:
    """A bundle of more data, that took traffic in steps from the first."""
    bundle = trained(site, files["later"])
    assert bundle != first
    assert f"serves {bundle}" in released(site, "dev", bundle)
    return bundle


def test_a_large_dataset_is_read_by_a_worker_that_the_server_starts(
    site: AwsSite, first: str, files: dict[str, Path]
) -> None:
    file = shutil.copy(files["first"], files["first"].with_name("large.csv"))
    site.mlops("land", LARGE, str(file), "--env", "dev")
    site.mlops("ingest", LARGE, "--env", "dev", who="dev")
    assert "bmi" in site.mlops("monitor", "run", LARGE, "--env", "dev", who="dev")
    with site.plane.client() as api:
        query = {"labelSelector": "app.kubernetes.io/component=worker"}
        (worker,) = api.get(f"/api/v1/namespaces/{SPARK}/pods", params=query).json()["items"]
    assert worker["spec"]["serviceAccountName"] == "spark-worker"
    assert worker["metadata"]["ownerReferences"][0]["kind"] == "Pod"
    assert "worker" in site.mlops("logs", "spark", "--env", "dev", who="dev")


MORE_THAN_IT_HAS = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
]
FORBIDDEN_TO_SPARK = [
    ("GET", "/api/v1/namespaces/{}/secrets"),
    ("POST", "/api/v1/namespaces/{}/pods/one/exec"),
    ("DELETE", "/api/v1/namespaces/{}/pods/one"),
    ("POST", "/api/v1/namespaces/{}/serviceaccounts/spark/token"),
    ("POST", "/apis/batch/v1/namespaces/{}/jobs"),
]


def member_of(group: str) -> dict[str, str]:
    """Return headers with which the administrator asks as a member of a group; `read_role_requests` leaves them out."""
    return {"Impersonate-User": group, "Impersonate-Group": group}


def refused_requests(site: AwsSite, group: str, namespace: str, requests: list[tuple[str, str]]) -> None:
    """Assert that a group may do none of some requests in a namespace."""
    with site.plane.client() as api:
        for method, path in requests:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            headers = {"Content-Type": kind, **member_of(group)}
            answer = api.request(method, path.format(namespace), content=b"{}", headers=headers)
            assert answer.status_code == httpx.codes.FORBIDDEN, f"{method} {path}: {answer.text}"


@pytest.mark.usefixtures("first")
def test_the_deploy_role_gives_the_server_no_right_that_it_does_not_have(site: AwsSite) -> None:
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SPARK}/roles"
    with site.plane.client() as api:
        for rule in MORE_THAN_IT_HAS:
            role = {"metadata": {"name": "more"}, "rules": [rule]}
            answer = api.post(path, json=role, headers=member_of(DEPLOY))
            assert answer.status_code == httpx.codes.FORBIDDEN, answer.text
            assert "not currently held" in answer.text
    refused_requests(site, DEPLOY, SPARK, FORBIDDEN_TO_SPARK)


def test_a_new_bundle_takes_traffic_in_steps_that_a_canary_check_judges(site: AwsSite, second: str) -> None:
    with site.plane.client() as api:
        runs = api.get("/apis/argoproj.io/v1alpha1/namespaces/models-dev/analysisruns").json()["items"]
    assert {run["status"]["phase"] for run in runs} == {"Successful"}
    assert len(runs) == 2, "one for each step of the second rollout"


def test_a_bundle_is_promoted_to_staging_with_its_evidence(site: AwsSite, second: str) -> None:
    site.mlops("up", "--env", "staging", who="staging")
    assert f"serves {second}" in released(site, "staging", second)
    history = site.mlops("history", MODEL, "--env", "staging", "--verify", who="preview")
    assert "every signature is valid" in history


def test_a_rollback_returns_traffic_then_git(site: AwsSite, first: str, second: str) -> None:
    site.mlops("rollback", MODEL, "--env", "dev", "--reason", "the mean error rose", who="dev")
    site.done("git", "pull", "--quiet", "--rebase", "origin", "main")
    assert site.project.release(MODEL, "dev").bundle == first
    site.mlops("deploy", "--env", "dev", who="dev")
    assert f"serves {first}, as in git" in site.mlops("audit", "--env", "dev", who="preview")


@pytest.fixture(scope="module")
def third(site: AwsSite, second: str, files: dict[str, Path]) -> str:
    """A bundle of more data, registered after the rollback."""
    head, *rows = [line.split(",") for line in files["later"].read_text().splitlines()]
    blood_pressure = head.index("bp")
    for number, row in enumerate(rows):
        row[0], row[blood_pressure] = str(20_000 + number), str(float(row[blood_pressure]) + 1)
    file = files["later"].with_name("third.csv")
    file.write_text("\n".join(",".join(row) for row in (head, *rows)) + "\n")
    bundle = trained(site, file)
    assert bundle != second
    return bundle


def test_another_bundle_is_deployed_after_a_rollback(site: AwsSite, third: str) -> None:
    assert f"serves {third}" in released(site, "dev", third)
    with site.plane.client() as api:
        found = api.get(f"/apis/argoproj.io/v1alpha1/namespaces/models-dev/rollouts/{MODEL}").json()
    applied = [entry for entry in found["metadata"]["managedFields"] if entry["operation"] == "Apply"]
    assert [entry["manager"] for entry in applied] == [ROLLOUT_FIELD_MANAGER]


def test_a_deployment_applies_again_what_left_the_cluster(site: AwsSite, first: str, third: str) -> None:
    """As after a failed deployment: traffic went back, and Pulumi's state still has the release."""
    site.done(sys.executable, "-c", SWITCH, first, who="dev")
    said = deployed(site, "dev")
    assert f"serves {third}" in said
    assert f"serves {third}, as in git" in site.mlops("audit", "--env", "dev", who="preview")


def test_a_rollback_takes_no_steps_whatever_lies_between(site: AwsSite, first: str, third: str) -> None:
    """The ReplicaSet of the second bundle was created between those of the first and the third."""
    with site.plane.client() as api:
        path = "/apis/argoproj.io/v1alpha1/namespaces/models-dev/analysisruns"
        before = len(api.get(path).json()["items"])
        said = site.mlops("rollback", MODEL, "--env", "dev", "--reason", "the mean error rose again", who="dev")
        assert len(api.get(path).json()["items"]) == before, "no canary check ran"
    assert f"runs {first}" in said
    site.done("git", "pull", "--quiet", "--rebase", "origin", "main")
    site.mlops("deploy", "--env", "dev", who="dev")
    print(said)


def test_a_bundle_that_was_rolled_back_is_refused(site: AwsSite, second: str) -> None:
    file = site.project.release_file(MODEL, "dev")
    before = file.read_text()
    site.mlops("release", MODEL, "--env", "dev", "--bundle", second, who="preview")
    site.commit("Release it again")
    said = site.refused("deploy", "--env", "dev", who="dev")
    assert "quarantine" in said
    file.write_text(before)
    site.commit("Take it back")


def test_a_pull_request_is_reviewed_with_the_previews_of_what_it_changes(site: AwsSite) -> None:
    edit(site.root / "Pulumi.dev.yaml", "config", "mlops:environment", "cost_centre", value="another")
    site.commit("Move dev to another cost centre", "cost-centre")
    request = site.hub.open(PERSON, "cost-centre", "Move dev to another cost centre")
    words = ("ci", "review", "--base", "HEAD^", "--pull-request", str(request.number))
    said = site.mlops(*words, who="preview", more={"GITHUB_REPOSITORY": REPOSITORY})
    assert said.splitlines()[-1].startswith("dev: ")
    (comment,) = site.hub.server.comments(request.number)
    assert "another" in comment["body"]
    site.done("git", "reset", "--quiet", "--hard", "origin/main")


def test_the_audit_names_what_someone_changed_by_hand(site: AwsSite, first: str) -> None:
    patch = {"spec": {"revisionHistoryLimit": 1}}
    path = f"/apis/argoproj.io/v1alpha1/namespaces/models-dev/rollouts/{MODEL}"
    headers = {"Content-Type": "application/merge-patch+json"}
    with site.plane.client() as api:
        api.patch(path, content=json.dumps(patch), headers=headers).raise_for_status()
    assert "differs from git" in site.refused("audit", "--env", "dev", who="preview")


def test_a_pod_that_got_no_credentials_is_replaced_by_the_role(site: AwsSite, first: str) -> None:
    with site.plane.client() as api:
        pods = api.get("/api/v1/namespaces/models-dev/pods", params={"labelSelector": POD_LABELS}).json()["items"]
    name = pods[0]["metadata"]["name"]
    said = site.done(sys.executable, "-c", REPLACE, name, who="dev")
    assert f"replaced the pod {name}" in said


def test_dev_is_destroyed_by_its_role(site: AwsSite) -> None:
    site.mlops("destroy", "--env", "dev", "--confirm", "dev", who="dev")
    with site.plane.client() as api:
        assert api.get("/api/v1/namespaces/models-dev").status_code == httpx.codes.NOT_FOUND


ROLE_RIGHTS = (
    *RIGHTS,
    Right("", "namespaces", (*NAMESPACE_DEPLOY, *NAMESPACES_DEPLOY), NAMESPACE_PREVIEW, "the namespace"),
)

DONE_WITHOUT = {
    "list events": "Pulumi looks among all events for warnings about the Namespace",
    f"list events in {SPARK}": "Pulumi waits for nothing there",
}
"""Requests of Pulumi that may be denied: it goes on without them."""

FROM_1_35 = "create pods/portforward"
"""Right that Kubernetes asks for from 1.35 on."""


GIVEN = {f"{verb} pods" for verb in START_WORKERS} | {"bind roles.rbac.authorization.k8s.io"}
"""Rights with which the deploy role gives the server of Spark its own. Nothing asks for them by a request."""


@pytest.fixture(scope="module")
def requests(site: AwsSite) -> RoleRequests:
    """Requests of the roles in all tests above."""
    return read_role_requests(site.plane.home / AUDIT_LOG, site.plane.group_tokens)


def test_the_roles_are_sufficient(requests: RoleRequests) -> None:
    """A preview is a dry run of what the preview role may not do; Pulumi then computes it without the server."""
    groups = (DEPLOY, deploy_group("mlops", "staging"), PREVIEW)
    found = [one for one in denials(requests, groups) if one.partition(": ")[2] not in DONE_WITHOUT]
    assert [one for one in found if not (one.startswith(PREVIEW) and one.endswith(" as a dry run"))] == []


@pytest.mark.parametrize("group", [DEPLOY, PREVIEW])
def test_the_roles_are_necessary(requests: RoleRequests, group: str) -> None:
    """A right is used by a test above, so this holds only after all of them."""
    found = unused_rights(requests.allowed, group, ("models-dev", ""), deploy=group == DEPLOY, rights=ROLE_RIGHTS)
    assert found == ([FROM_1_35] if group == DEPLOY else [])


@pytest.mark.parametrize("group", [DEPLOY, PREVIEW])
def test_the_roles_in_the_namespace_of_spark_are_necessary(requests: RoleRequests, group: str) -> None:
    found = unused_rights(requests.allowed, group, (SPARK,), deploy=group == DEPLOY, rights=SPARK_RIGHTS)
    assert [one for one in found if group != DEPLOY or one not in GIVEN] == []


APPS, BATCH = "/apis/apps/v1/namespaces/{}", "/apis/batch/v1/namespaces/{}"
ARGO, RBAC = "/apis/argoproj.io/v1alpha1/namespaces/{}", "/apis/rbac.authorization.k8s.io/v1"
FORBIDDEN_TO_ALL = [
    ("GET", "/api/v1/namespaces/{}/secrets"),
    ("GET", "/api/v1/namespaces/{}/configmaps"),
    ("POST", "/api/v1/namespaces/{}/pods"),
    ("POST", f"/api/v1/namespaces/{{}}/pods/{MODEL}/exec"),
    ("POST", f"/api/v1/namespaces/{{}}/serviceaccounts/serve-{MODEL}/token"),
    ("POST", f"{APPS}/deployments"),
    ("POST", RBAC + "/namespaces/{}/rolebindings"),
    ("PATCH", RBAC + "/namespaces/{}/roles/mlops-deploy"),
    ("PATCH", f"{RBAC}/clusterroles/mlops-deploy-staging"),
    ("POST", "/api/v1/namespaces"),
    ("DELETE", "/api/v1/namespaces/kube-system"),
    ("GET", "/api/v1/nodes"),
]
FORBIDDEN_TO_PREVIEW = [
    ("PATCH", "/api/v1/namespaces/{}"),
    ("DELETE", "/api/v1/namespaces/{}"),
    ("PATCH", f"{ARGO}/rollouts/{MODEL}"),
    ("PATCH", f"{ARGO}/rollouts/{MODEL}/status"),
    ("DELETE", f"{ARGO}/rollouts/{MODEL}"),
    ("POST", f"{BATCH}/jobs"),
    ("DELETE", "/api/v1/namespaces/{}/pods/one"),
    ("GET", "/api/v1/namespaces/{}/pods/one/log"),
    ("PATCH", f"/api/v1/namespaces/{{}}/services/{MODEL}"),
    ("POST", "/apis/coordination.k8s.io/v1/namespaces/{}/leases"),
]
IN_OTHER_NAMESPACES = [
    ("GET", "/api/v1/namespaces/{}/pods"),
    ("GET", "/api/v1/namespaces/{}/services"),
    ("POST", f"{BATCH}/jobs"),
]


@pytest.mark.parametrize(
    ("group", "namespace", "forbidden"),
    [
        (deploy_group("mlops", "staging"), "models-staging", FORBIDDEN_TO_ALL),
        (PREVIEW, "models-staging", [*FORBIDDEN_TO_ALL, *FORBIDDEN_TO_PREVIEW]),
        (deploy_group("mlops", "staging"), "models-dev", [*IN_OTHER_NAMESPACES, *FORBIDDEN_TO_PREVIEW]),
        (deploy_group("mlops", "staging"), "kube-system", IN_OTHER_NAMESPACES),
        (PREVIEW, "kube-system", IN_OTHER_NAMESPACES),
        (deploy_group("mlops", "prod"), "models-staging", [*IN_OTHER_NAMESPACES, *FORBIDDEN_TO_PREVIEW]),
    ],
)
@pytest.mark.usefixtures("requests")
def test_what_a_role_may_not_do_is_denied(
    site: AwsSite, group: str, namespace: str, forbidden: list[tuple[str, str]]
) -> None:
    refused_requests(site, group, namespace, forbidden)
