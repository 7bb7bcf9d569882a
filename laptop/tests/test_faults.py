"""Faults that the laptop has for a while."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from laptop.aws import account as aws
from laptop.aws.cloud import Cloud
from laptop.cluster.image_source import EcrImageSource, MissingImageError
from laptop.cluster.kinds import CONFIG_MAP, NAMESPACE
from laptop.cluster.node_account import NodeAccount
from laptop.faults import API_STATUSES, FAULTS, Faults
from laptop.github.forge.actors import Actor, RequestDeniedError, person
from laptop.github.forge.github_server import GitHubServer
from laptop.github.forge.repository_settings import RepositorySettings
from laptop.tests.cluster.running_cluster import RunningCluster, SetClock, new_namespace, refusal, wait_for
from pipelines.declarations.errors import MlopsError

ACCOUNT = "123456789012"
PAGE = Path(__file__).parents[1] / "docs" / "realistic.md"


def test_the_documentation_lists_every_fault() -> None:
    assert dict(re.findall(r"^\| \*([a-z0-9-]+)\* \| (.+) \|$", PAGE.read_text(), re.MULTILINE)) == FAULTS


def test_a_fault_ends_by_itself_and_leaves_others(tmp_path: Path) -> None:
    clock = SetClock()
    here, elsewhere = Faults(tmp_path, clock), Faults(tmp_path, clock)
    assert elsewhere.active() == frozenset()
    here.inject("api-401", 10)
    clock.pass_time(5)
    here.inject("github-down", 10)
    assert elsewhere.active() == {"api-401", "github-down"}
    clock.pass_time(5)
    assert elsewhere.active() == {"github-down"}


def test_an_unknown_fault_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MlopsError, match="fault 'rain': expected one of api-401, "):
        Faults(tmp_path).inject("rain", 1)


@pytest.mark.slow
def test_the_kubernetes_api_fails_as_it_was_asked_to(tmp_path: Path) -> None:
    cluster = RunningCluster(tmp_path, time_scale=1.0)
    try:
        namespace = new_namespace(cluster, "faulty")
        for name, (code, _, _) in API_STATUSES.items():
            faults = Faults(cluster.home)
            faults.inject(name, 600)
            created = refusal(lambda: cluster.create(CONFIG_MAP, namespace, {"metadata": {"name": "one"}, "data": {}}))
            assert created.code == code
            if name == "api-409":
                assert cluster.get(NAMESPACE, "", namespace)
            else:
                assert refusal(lambda: cluster.get(NAMESPACE, "", namespace)).code == code
            faults.inject(name, -1)
        assert cluster.get(NAMESPACE, "", namespace)
        Faults(cluster.home).inject("watch-closed", 600)
        began = time.monotonic()
        with cluster.open(f"{NAMESPACE.path('')}?watch=1&timeoutSeconds=50") as watch:
            assert watch.read()
        assert time.monotonic() - began < 40
        Faults(cluster.home).inject("watch-closed", -1)
        with cluster.open(f"{NAMESPACE.path('')}?watch=1&timeoutSeconds=600") as watch:
            assert watch.readline()
            Faults(cluster.home).inject("api-restart", 600)
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                watch.read()
        assert not cluster.is_listening()
        Faults(cluster.home).inject("api-restart", -1)
        wait_for(cluster.is_listening)
        assert cluster.get(NAMESPACE, "", namespace)
    finally:
        cluster.close()


@pytest.mark.slow
def test_ecr_is_throttled_and_nothing_else(tmp_path: Path) -> None:
    account = aws.start(tmp_path / "aws")
    try:
        cloud = Cloud(account.environ(), account.home)
        Faults(tmp_path).inject("ecr-throttled", 600)
        with pytest.raises(ClientError) as refused:
            cloud.client("ecr").describe_repositories()
        assert refused.value.response["Error"]["Code"] == "ThrottlingException"
        assert cloud.client("s3").list_buckets()["Buckets"] == []
        image = f"{ACCOUNT}.dkr.ecr.{account.region}.amazonaws.com/mlops/serving@sha256:{'0' * 64}"
        images = EcrImageSource(NodeAccount(tmp_path), account.home)
        with pytest.raises(MissingImageError, match="Rate exceeded"):
            asyncio.run(images.pull(image))
    finally:
        account.stop()


@pytest.mark.slow
def test_s3_is_down_throttles_or_is_slow_and_nothing_else(tmp_path: Path) -> None:
    account = aws.start(tmp_path / "aws")
    try:
        cloud, faults = Cloud(account.environ(), account.home), Faults(tmp_path)
        s3, once = cloud.client("s3"), Config(retries={"total_max_attempts": 1}, read_timeout=1)
        with mock.patch.dict(os.environ, account.environ()):
            impatient = boto3.client("s3", config=once)
        s3.create_bucket(Bucket="logs", CreateBucketConfiguration={"LocationConstraint": account.region})

        def put() -> None:
            impatient.put_object(Bucket="logs", Key="one", Body=b"1")

        def is_read() -> bool:
            return bool(impatient.list_buckets()["Buckets"])

        def code(request: Callable[[], object]) -> str:
            with pytest.raises(ClientError) as refused:
                request()
            return str(refused.value.response["Error"]["Code"])

        faults.inject("s3-down", 600)
        assert (code(put), code(is_read)) == ("ServiceUnavailable", "ServiceUnavailable")
        assert cloud.client("kms").list_keys()["Keys"] == []
        faults.inject("s3-down", -1)
        faults.inject("s3-throttled", 600)
        assert code(put) == "SlowDown"
        assert is_read()
        faults.inject("s3-throttled", -1)
        faults.inject("s3-slow", 600)
        with pytest.raises(ReadTimeoutError):
            put()
        assert is_read()
        faults.inject("s3-slow", -1)
        put()
    finally:
        account.stop()


def test_github_is_down_for_all_and_refuses_only_a_revoked_app(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text("hello\n")
    server = GitHubServer(tmp_path / "github")
    server.create(source, "acme/mlops", RepositorySettings(users=("ada",)))
    user, app, job = (server.issue_token(actor) for actor in (person("ada"), APP, JOB))
    faults = Faults(tmp_path)
    faults.inject("app-token-revoked", 600)
    with pytest.raises(RequestDeniedError) as revoked:
        server.authenticate(app)
    assert revoked.value.status == 401
    assert server.authenticate(job) == JOB
    assert server.authenticate(user).login == "ada"
    faults.inject("github-down", 600)
    for token in (app, job, user):
        with pytest.raises(RequestDeniedError) as down:
            server.authenticate(token)
        assert down.value.status == 503


APP = Actor("mlops[bot]", "app", {})
JOB = Actor("github-actions[bot]", "job", {})
