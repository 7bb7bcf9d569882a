from __future__ import annotations

import json
import stat
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from laptop.aws import account as aws
from laptop.aws.image_content import folder_of
from laptop.aws.pod_identity import Association, associate, associations
from laptop.cluster.credentials_agent import PodIdentityAgent
from laptop.cluster.image_source import EcrImageSource, MissingImageError
from laptop.cluster.kinds import JOB, NAMESPACE, SERVICE_ACCOUNT
from laptop.cluster.node_account import NodeAccount
from laptop.tests.cluster.running_cluster import RunningCluster, SetClock, job, new_namespace, wait_for

pytestmark = pytest.mark.slow

PODS = "pods.eks.amazonaws.com"
LONG = "import time; time.sleep(30)"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Cluster with an AWS account."""
    folder = tmp_path_factory.mktemp("identity")
    account = aws.start(folder / "home" / "aws")
    yield folder / "home"
    account.stop()


@pytest.fixture(scope="module")
def with_account(home: Path) -> Iterator[RunningCluster]:
    running = RunningCluster(home.parent, time_scale=0.1)
    yield running
    running.close()


@pytest.fixture
def space(with_account: RunningCluster) -> Iterator[str]:
    name = new_namespace(with_account, f"id-{uuid.uuid4().hex[:8]}")
    with_account.create(SERVICE_ACCOUNT, name, {"metadata": {"name": "trainer"}})
    yield name
    with_account.delete(NAMESPACE, "", name)


def client(home: Path, service: str) -> Any:
    return NodeAccount(home).client(service)


def make_role(home: Path, name: str, trusts: str) -> str:
    actions = ["sts:AssumeRole", "sts:TagSession"]
    statement = {"Effect": "Allow", "Principal": {"Service": trusts}, "Action": actions}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = client(home, "iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)
    return str(role["Role"]["Arn"])


def start(with_account: RunningCluster, space: str, code: str = LONG, name: str = "j") -> dict[str, str]:
    """Run a pod as the service account `trainer`, and return the variables that it prints."""
    printing = "import os, json; print(json.dumps(dict(os.environ)), flush=True); "
    with_account.create(JOB, space, job(name, printing + code, pod={"serviceAccountName": "trainer"}))
    pod = wait_for(lambda: with_account.pods_of(space, name))[0]["metadata"]["name"]
    wait_for(lambda: with_account.pods_of(space, name)[0].get("status", {}).get("phase") not in (None, "Pending"))
    text = wait_for(lambda: "\n" in (answer := with_account.log(space, pod)) and answer)
    return dict(json.loads(text.splitlines()[0]))


def ask(url: str, token: str | None) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, headers={"Authorization": token} if token is not None else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_pod_gets_the_credentials_of_the_role_of_its_service_account(
    home: Path, with_account: RunningCluster, space: str
) -> None:
    role = make_role(home, f"train-{space}", PODS)
    associate(home / "aws", "mlops-dev", Association("a-1", space, "trainer", role))
    code = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'], flush=True)"
    start(with_account, space, code)
    assert with_account.ended(space, "j")["type"] == "Complete"
    (pod,) = with_account.pods_of(space, "j")
    arn = with_account.log(space, pod["metadata"]["name"]).splitlines()[-1]
    assert f":assumed-role/train-{space}/eks-mlops-dev-" in arn


def test_a_pod_without_an_association_gets_nothing(with_account: RunningCluster, space: str) -> None:
    seen = start(with_account, space)
    token = Path(seen["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    status, answer = ask(seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"], token.read_text())
    assert (status, answer["message"]) == (403, f"service account {space}/trainer has no pod identity association")


def test_a_role_that_does_not_trust_pods_is_refused(home: Path, with_account: RunningCluster, space: str) -> None:
    role = make_role(home, f"lambda-{space}", "lambda.amazonaws.com")
    associate(home / "aws", "mlops-dev", Association("a-2", space, "trainer", role))
    seen = start(with_account, space)
    token = Path(seen["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read_text()
    status, answer = ask(seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"], token)
    assert status == 403
    assert f"{role} cannot be assumed by {PODS}" in answer["message"]


@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_a_wrong_token_is_refused(with_account: RunningCluster, space: str, token: str | None) -> None:
    seen = start(with_account, space)
    status, _ = ask(seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"], token)
    assert status == 401


def test_the_token_of_a_deleted_pod_is_refused(home: Path, with_account: RunningCluster, space: str) -> None:
    role = make_role(home, f"gone-{space}", PODS)
    associate(home / "aws", "mlops-dev", Association("a-3", space, "trainer", role))
    seen = start(with_account, space)
    url, token = seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"], Path(seen["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
    secret = token.read_text()
    status, given = ask(url, secret)
    assert status == 200
    assert set(given) == {"AccessKeyId", "SecretAccessKey", "Token", "AccountId", "Expiration"}
    assert ask(url, secret)[1] == given  # as long as they are fresh
    with_account.delete(JOB, space, "j", propagationPolicy="Foreground")
    wait_for(lambda: ask(url, secret)[0] == 401)
    assert not token.exists()


def test_credentials_are_renewed_before_they_expire(home: Path, with_account: RunningCluster, space: str) -> None:
    role = make_role(home, f"renew-{space}", PODS)
    associate(home / "aws", "mlops-dev", Association("a-4", space, "trainer", role))
    seen = start(with_account, space)
    url = seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    secret = Path(seen["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read_text()
    first = ask(url, secret)[1]
    agent = with_account._cluster._agent
    admitted = agent._pods[secret]
    assert admitted.until is not None
    from datetime import timedelta

    admitted.until -= timedelta(minutes=45)  # a quarter of an hour is left
    assert ask(url, secret)[1]["AccessKeyId"] != first["AccessKeyId"]


def test_an_image_is_available_once_it_is_pushed_to_ecr(home: Path) -> None:
    import asyncio

    images = EcrImageSource(NodeAccount(home), home / "aws")
    repository = client(home, "ecr").create_repository(repositoryName="mlops/serving")["repository"]

    def missing(image: str) -> str:
        image = f"{repository['repositoryUri']}{image}" if image[0] in "@:" else image
        try:
            assert asyncio.run(images.pull(image)) == folder_of(home / "aws", digest)
        except MissingImageError as error:
            return str(error)
        return ""

    assert "not found in ECR" in missing("@sha256:" + "0" * 64)
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": "sha256:" + "1" * 64}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config}
    pushed = client(home, "ecr").put_image(
        repositoryName="mlops/serving", imageManifest=json.dumps({**manifest, "layers": []}), imageTag="one"
    )
    digest = pushed["image"]["imageId"]["imageDigest"]
    assert "its files are not on this machine" in missing(f"@{digest}")
    folder_of(home / "aws", digest).mkdir(parents=True)
    assert missing(f"@{digest}") == ""
    assert missing(":one") == ""
    assert "not found in ECR" in missing(":two")
    assert "is not an image of an ECR repository" in missing("docker.io/library/python:3.11")
    gone = missing(f"{repository['repositoryUri']}x@{digest}")
    assert "does not exist" in gone or "not found" in gone


def test_the_cluster_ignores_the_operators_aws_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAOPERATOR",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_PROFILE": "real",
    }.items():
        monkeypatch.setenv(name, value)
    assert client(home, "sts").get_caller_identity()["Arn"].endswith(":user/operator")


class _FixedAccount:
    """Account with one association."""

    endpoint, region = "http://127.0.0.1:1", "eu-west-1"

    def __init__(self, changed_at: float) -> None:
        self._changed_at = changed_at

    def pod_identities(self) -> list[dict[str, Any]]:
        return [
            {"namespace": "n", "serviceAccount": "s", "roleArn": "r", "cluster": "c", "changedAt": self._changed_at}
        ]


def test_a_pod_that_is_created_before_its_association_is_in_effect_never_gets_credentials(tmp_path: Path) -> None:
    clock = SetClock()
    agent = PodIdentityAgent(_FixedAccount(clock.now), 10.0, clock)  # type: ignore[arg-type]
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"serviceAccountName": "s"}}
    clock.pass_time(9)
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in agent.admit(pod, tmp_path)
    clock.pass_time(1)
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in agent.admit(pod, tmp_path)
    other = {**pod, "spec": {"serviceAccountName": "other"}}
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in agent.admit(other, tmp_path)


def test_an_association_counts_from_its_last_change(tmp_path: Path) -> None:
    associate(tmp_path, "c", Association("a-1", "n", "s", "role-1"))
    (first,) = associations(tmp_path, "c")
    associate(tmp_path, "c", Association("a-1", "n", "s", "role-1"))
    assert associations(tmp_path, "c") == (first,)
    associate(tmp_path, "c", Association("a-1", "n", "s", "role-2"))
    (second,) = associations(tmp_path, "c")
    assert second.changed_at > first.changed_at
