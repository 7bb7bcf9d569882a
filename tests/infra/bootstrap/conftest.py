"""An emulated account that the bootstrap made ready, and ways to be a job on GitHub that signs in to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from infra.local.aws.access.web_identity import published_keys
from infra.local.aws.account import ISSUERS, Account, start
from infra.local.aws.provider import AwsProvider
from infra.local.deploy import ACCOUNT_STACK, keep_the_rules
from infra.local.engine.deployment import Deployment
from infra.local.github.oidc import Issuer
from infra.local.github.trust import AUDIENCE, ISSUER
from tests.infra.recording import ROOT

REPOSITORY = "acme/mlops"
"""As `Pulumi.account.yaml` says."""


@dataclass(frozen=True)
class Ready:
    """An account after the bootstrap.

    Attributes:
        account: the account.
        home: of the local target.
        outputs: what the bootstrap exports.
        issuer: GitHub's.
    """

    account: Account
    home: Path
    outputs: dict[str, Any]
    issuer: Issuer

    def role(self, name: str) -> str:
        """ARN of the role of a GitHub environment: `preview`, or one that is deployed."""
        outputs = self.outputs
        return str(outputs["preview_role"] if name == "preview" else outputs["deploy_roles"][name])

    def session(self, credentials: dict[str, Any]) -> boto3.Session:
        """Somebody with credentials that STS gave."""
        return boto3.Session(
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
            region_name=self.account.region,
        )

    def client(self, service: str, session: boto3.Session) -> Any:
        """A client of somebody, which gives up at once."""
        once = Config(retries={"total_max_attempts": 1})
        return session.client(service, endpoint_url=self.account.endpoint, config=once)


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    home = tmp_path_factory.mktemp("account")
    account = start(home / "aws")
    try:
        provider = AwsProvider(account.environ(), account.home)
        deployment = Deployment(
            ROOT / "infra" / "bootstrap", ACCOUNT_STACK, {"aws": provider}, home, policies=[keep_the_rules]
        )
        (home / "github").mkdir()
        issuer = Issuer(home / "github", published_keys(account.home / ISSUERS, ISSUER))
        yield Ready(account, home, deployment.up().outputs, issuer)
    finally:
        account.stop()


SignIn = Callable[..., boto3.Session]


@pytest.fixture(scope="session")
def sign_in(ready: Ready) -> SignIn:
    """Takes a role as a job of a subject does; returns its session.

    Raises what STS answers when the role does not let it in.
    """
    sts = boto3.client("sts", endpoint_url=ready.account.endpoint, region_name=ready.account.region)

    def take(role: str, subject: str, *, token: str = "", **claims: str) -> boto3.Session:
        said = {"sub": subject, "aud": AUDIENCE, **claims}
        answer = sts.assume_role_with_web_identity(
            RoleArn=role, RoleSessionName="run-1", WebIdentityToken=token or ready.issuer.token(said)
        )
        return ready.session(answer["Credentials"])

    return take


def document(*statements: dict[str, Any]) -> str:
    """A policy."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
