"""An account per test worker, and clients of its principals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from laptop.aws.account import Account, start
from laptop.aws.aws_provider import AwsProvider
from laptop.engine.provider import Created, ResourceCall

TRUSTS_PODS: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    ],
}
_NUMBER = itertools.count(1)


@pytest.fixture(scope="session")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    running = start(tmp_path_factory.mktemp("local") / "aws")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def provider(account: Account) -> AwsProvider:
    return AwsProvider(account.environ(), account.home)


@pytest.fixture
def name() -> str:
    """Return a name that no other test uses."""
    return f"thing-{next(_NUMBER)}"


@pytest.fixture
def client(provider: AwsProvider) -> Callable[[str], Any]:
    """Return the operator's client of a service."""
    return provider.cloud.client


@pytest.fixture
def make(provider: AwsProvider) -> Callable[..., Created]:
    """Return a function that creates a resource as the engine does: check, then create."""

    def create(type_: str, resource: str, **inputs: Any) -> Created:
        return provider.create(
            ResourceCall(type_, provider.check(type_, resource, inputs, None), f"urn:{type_}::{resource}")
        )

    return create


class RoleClients:
    """Clients with the credentials of an assumed role."""

    def __init__(self, account: Account, credentials: dict[str, str]) -> None:
        self._account = account
        self.credentials = credentials

    def __getitem__(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self._account.endpoint,
            region_name=self._account.region,
            aws_access_key_id=self.credentials["AccessKeyId"],
            aws_secret_access_key=self.credentials["SecretAccessKey"],
            aws_session_token=self.credentials["SessionToken"],
            config=Config(retries={"total_max_attempts": 1}),
        )


@pytest.fixture
def agent(account: Account) -> Any:
    """Return the STS client of EKS Pod Identity."""
    lines = (account.home / "pod-identity-credentials").read_text().split()
    return boto3.client(
        "sts",
        endpoint_url=account.endpoint,
        region_name=account.region,
        aws_access_key_id=lines[3],
        aws_secret_access_key=lines[6],
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def pod(account: Account, agent: Any, client: Callable[[str], Any], name: str) -> Callable[..., RoleClients]:
    """Return a function that creates a role with a policy and assumes it as a pod."""
    iam = client("iam")

    def become(*statements: dict[str, Any], trust: Any = TRUSTS_PODS, **extra: Any) -> RoleClients:
        role = f"{name}-{next(_NUMBER)}"
        boundary = extra.pop("boundary", None)
        arn = iam.create_role(
            RoleName=role,
            AssumeRolePolicyDocument=json.dumps(trust),
            **({"PermissionsBoundary": boundary} if boundary else {}),
        )["Role"]["Arn"]
        if statements:
            document = {"Version": "2012-10-17", "Statement": list(statements)}
            iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=json.dumps(document))
        answer = agent.assume_role(RoleArn=arn, RoleSessionName="pod-1", **extra)
        return RoleClients(account, {**answer["Credentials"], "role": role, "arn": arn})

    return become


@pytest.fixture
def bucket(client: Callable[[str], Any], account: Account, name: str) -> str:
    """Create an empty bucket."""
    client("s3").create_bucket(
        Bucket=f"bucket-{name}", CreateBucketConfiguration={"LocationConstraint": account.region}
    )
    return f"bucket-{name}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "aws"
