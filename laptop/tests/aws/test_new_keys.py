"""A new key whose tags count late, on the emulated account with the permissions of a deploy role."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.bootstrap.permissions import allow
from laptop.aws import account as aws
from laptop.aws.cloud import Cloud
from laptop.delays import Delays
from pipelines.declarations.errors import MlopsError
from pipelines.registry import new_keys, signing
from pipelines.registry.signing import Statement

SECONDS = 3.0
KEYS = "arn:aws:kms:*:*:key/*"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
TAGGED = {"aws:ResourceTag/environment": "dev"}
GRANTS = [
    allow(["kms:Sign"], KEYS, StringEquals=TAGGED),
    allow(["kms:DescribeKey"], KEYS),
]


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Cloud]:
    """An account in which tags of keys count late."""
    Delays({"kms-tags": SECONDS}).write(tmp_path)
    account = aws.start(tmp_path / "aws")
    try:
        yield Cloud(account.environ(), account.home)
    finally:
        account.stop()


@pytest.fixture
def role(account: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign this process in as a role that may use keys of dev."""
    iam = account.client("iam")
    arn = iam.create_role(RoleName="deploy", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    iam.put_role_policy(
        RoleName="deploy",
        PolicyName="keys",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": GRANTS}),
    )
    keys = account.client("sts").assume_role(RoleArn=arn, RoleSessionName="run-1")["Credentials"]
    for name, value in (
        ("AWS_ENDPOINT_URL", account.client("iam").meta.endpoint_url),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", keys["AccessKeyId"]),
        ("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"]),
        ("AWS_SESSION_TOKEN", keys["SessionToken"]),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(new_keys, "PAUSE_SECONDS", 0.2)


def new_key(account: Cloud, tag: str) -> str:
    """Create a key that gets its tag afterwards."""
    kms = account.client("kms")
    arn: str = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")["KeyMetadata"]["Arn"]
    kms.get_public_key(KeyId=arn)  # any request, so that the account knows the key without the tag
    kms.tag_resource(KeyId=arn, Tags=[{"TagKey": "environment", "TagValue": tag}])
    return arn


def signed(key: str) -> Any:
    return signing.sign(Statement.about("m", "sha256:" + "a" * 64, "https://example.com/p", {}), key, "dev")


@pytest.mark.usefixtures("role")
def test_a_signature_waits_until_the_tags_of_a_new_key_count(account: Cloud) -> None:
    key = new_key(account, "dev")
    began = time.monotonic()
    assert signed(key).signatures
    assert time.monotonic() - began > SECONDS / 2, "the tag counted at once, so nothing was tried again"


@pytest.mark.usefixtures("role")
def test_a_key_that_is_not_new_denies_at_once(account: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_keys, "LATE", new_keys.LATE * 0)
    key = new_key(account, "prod")
    with pytest.raises(MlopsError, match="did not sign") as refused:
        signed(key)
    assert refused.value.fix == "grant the caller's role kms:Sign on this key"


@pytest.mark.usefixtures("role")
def test_a_new_key_of_another_environment_is_denied_in_the_end(account: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_keys, "LATE", timedelta(seconds=2 * SECONDS))
    with pytest.raises(MlopsError, match="did not sign"):
        signed(new_key(account, "prod"))
