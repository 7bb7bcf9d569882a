"""The server as a pod starts it: verified bundle from the registry, inference log to the logs bucket."""

from __future__ import annotations

import json
import re

import boto3
import pytest

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles, evidence
from tests.aws import EmulatedAccount
from tests.pipelines.serving.bundles import NAME, linear_bundle
from tests.pipelines.serving.conftest import features
from tests.pipelines.serving.server_process import ServerProcess, client, get
from tests.signing_environments import GATES, example_build, make_signing_environment, with_empty_registry

pytestmark = pytest.mark.slow

BUNDLE = linear_bundle()
PREFIX = bundles.prefix_of(NAME, BUNDLE.digest)


@pytest.fixture(scope="module")
def environment(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_signing_environment()


@pytest.fixture
def dev(environment: EnvironmentDescriptor) -> EnvironmentDescriptor:
    """Return an environment whose registry has the signed bundle."""
    descriptor = with_empty_registry(environment)
    bundles.push(descriptor, BUNDLE.manifest, BUNDLE.files)
    evidence.attest(descriptor, BUNDLE.manifest, GATES, example_build(descriptor.name))
    return descriptor


def start(descriptor: EnvironmentDescriptor, digest: str = BUNDLE.digest) -> ServerProcess:
    """Run the command of the container with the environment variables of its pod."""
    arguments = ["pipelines.serving", "--model", NAME, "--bundle", digest]
    environ = {"MLOPS_ENVIRONMENT": descriptor.model_dump_json(by_alias=True), "HOSTNAME": "progression-7d9f-x2x"}
    return ServerProcess(arguments, {**environ, "DRAIN_SECONDS": "0"})


def test_a_signed_bundle_is_served_and_its_predictions_are_logged(dev: EnvironmentDescriptor) -> None:
    with start(dev) as server:
        url = server.url()
        server.wait_for("ready")
        answer = client.post(f"{url}/v2/models/{NAME}/infer", json=features() | {"id": "patient 7"})
        assert answer.status_code == 200
        assert answer.json()["model_version"] == BUNDLE.digest
        assert get(f"{url}/v2/models/{NAME}/versions/{BUNDLE.digest}/ready").status_code == 200
        server.terminate()
        assert server.status() == 0
    s3 = boto3.client("s3")
    entry, counts = s3.list_objects_v2(Bucket=dev.logs_bucket)["Contents"]
    assert counts["Key"].startswith(f"inference/{NAME}/counts/")
    assert re.fullmatch(
        rf"inference/{NAME}/\d{{4}}/\d\d/\d\d/\d\d/progression-7d9f-x2x-[0-9a-f]{{6}}-1\.jsonl", entry["Key"]
    )
    content = s3.get_object(Bucket=dev.logs_bucket, Key=entry["Key"])["Body"].read()
    assert [json.loads(line)["id"] for line in content.splitlines()] == ["patient 7"]


def tamper(descriptor: EnvironmentDescriptor, how: str) -> None:
    """Change the content of the registry."""
    s3 = boto3.client("s3")
    if how == "changed file":
        s3.put_object(Bucket=descriptor.registry_bucket, Key=PREFIX + "model.onnx", Body=b"another model")
    elif how == "added file":
        s3.put_object(Bucket=descriptor.registry_bucket, Key=PREFIX + "weights.bin", Body=b"more")
    elif how == "missing file":
        s3.delete_object(Bucket=descriptor.registry_bucket, Key=PREFIX + "golden.json")
    elif how == "no signature":
        for entry in s3.list_objects_v2(Bucket=descriptor.registry_bucket, Prefix="evidence/")["Contents"]:
            s3.delete_object(Bucket=descriptor.registry_bucket, Key=entry["Key"])


@pytest.mark.parametrize("how", ["changed file", "added file", "missing file", "no signature"])
def test_a_bundle_that_does_not_verify_is_never_served(dev: EnvironmentDescriptor, how: str) -> None:
    tamper(dev, how)
    with start(dev) as server:
        assert server.status() == 1
        said = [line.get("message", line.get("text", "")) for line in server.said]
        assert "ready" not in said
        assert any(NAME in line for line in said[1:])
        assert "Traceback" not in json.dumps(server.said)
