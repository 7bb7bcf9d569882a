"""The laptop's account after the bootstrap, and environments that their deploy roles brought up."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from infra.components import association_wait
from infra.policies import violations
from laptop.aws.access.web_identity import published_keys
from laptop.aws.account import ISSUERS, Account, start
from laptop.aws.aws_provider import AwsProvider
from laptop.aws.eks_clusters import declare_clusters, declared_clusters
from laptop.engine.deployment import Deployment
from laptop.engine.provider import Created, Diff, Provider, ResourceCall
from laptop.github.oidc_issuer import Issuer
from laptop.github.trust import AUDIENCE, ISSUER
from laptop.stack_operations import ACCOUNT_STACK
from pipelines.declarations.project import Project
from tests.infra.recording import AUTHORITY, edit, no_pause, release_everywhere, write_kubeconfig
from tests.sample_project import copy_as_forked

REPOSITORY = "acme/mlops"
"""The repository in the test project's `Pulumi.account.yaml`."""


STEWARD = "arn:aws:iam::123456789012:role/team/data-steward"
"""The role whose holders may land files in dev."""


def subject(name: str, repository: str = REPOSITORY) -> str:
    """Return the token subject of a job in a GitHub environment."""
    return f"repo:{repository}:environment:{name}"


class AnyCluster:
    """A Kubernetes provider that accepts everything; these tests are about AWS."""

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        return inputs

    def diff(self, call: ResourceCall) -> Diff:
        return Diff(tuple(key for key in call.inputs if call.old_inputs.get(key) != call.inputs[key]))

    def create(self, call: ResourceCall) -> Created:
        return Created(call.urn.rpartition("::")[2], call.inputs)

    def read(self, call: ResourceCall) -> dict[str, Any]:
        return call.outputs

    def update(self, call: ResourceCall) -> Created:
        return Created(call.id, call.inputs)

    def delete(self, call: ResourceCall) -> None:
        return None

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError(token)

    def recorded(self, type_: str, inputs: dict[str, Any]) -> dict[str, str]:
        return {}


_SESSION = boto3.Session()  # shared, because loading the service models is slow


class Caller:
    """AWS clients with some credentials, which do not retry.

    Args:
        account: the account to call.
        key: credentials as STS returns them.
    """

    def __init__(self, account: Account, key: Mapping[str, Any]) -> None:
        names = {"ID": "AccessKeyId", "SECRET": "SecretAccessKey", "TOKEN": "SessionToken"}
        self._account = account
        self._key = {name: key[given] for name, given in names.items() if key.get(given)}
        self._clients: dict[str, Any] = {}

    def __getitem__(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = _SESSION.client(
                service,
                endpoint_url=self._account.endpoint,
                region_name=self._account.region,
                aws_access_key_id=self._key["ID"],
                aws_secret_access_key=self._key["SECRET"],
                aws_session_token=self._key.get("TOKEN"),
                config=Config(retries={"total_max_attempts": 1}),
            )
        return self._clients[service]

    def environ(self) -> dict[str, str]:
        """Return the environment variables that give SDKs these credentials."""
        variables = {"ID": "AWS_ACCESS_KEY_ID", "SECRET": "AWS_SECRET_ACCESS_KEY", "TOKEN": "AWS_SESSION_TOKEN"}
        given = {variables[name]: value for name, value in self._key.items()}
        return {**self._account.environ(), "AWS_SHARED_CREDENTIALS_FILE": os.devnull, **given}


@dataclass(frozen=True)
class Ready:
    """An account after the bootstrap.

    Attributes:
        account: the account.
        home: the laptop's folder.
        project: a project with everything released.
        outputs: the outputs of the bootstrap.
        issuer: GitHub's token issuer.
    """

    account: Account
    home: Path
    project: Path
    outputs: Mapping[str, Any]
    issuer: Issuer
    _signed_in: dict[str, Caller] = field(default_factory=dict)

    def role(self, name: str) -> str:
        """Return the ARN of the role of a GitHub environment."""
        if name in ("images", "preview"):
            return str(self.outputs[f"{name}_role"])
        return str(self.outputs["deploy_roles"][name])

    @cached_property
    def operator(self) -> Caller:
        """A caller with all permissions."""
        return self._of_file("credentials")

    @cached_property
    def pod_identity(self) -> Caller:
        """The emulated EKS Pod Identity agent."""
        return self._of_file("pod-identity-credentials")

    def _of_file(self, name: str) -> Caller:
        lines = (self.account.home / name).read_text().split()
        return Caller(self.account, {"AccessKeyId": lines[3], "SecretAccessKey": lines[6]})

    def caller(self, **key: Any) -> Caller:
        """Return a caller with credentials as STS returns them."""
        return Caller(self.account, key)

    @cached_property
    def _sts(self) -> Any:
        return Caller(self.account, {"AccessKeyId": "nobody", "SecretAccessKey": "nothing"})["sts"]

    def as_job(self, name: str) -> Caller:
        """Return a caller that has signed in as a job of a GitHub environment."""
        if name not in self._signed_in:
            self._signed_in[name] = self.sign_in(name)
        return self._signed_in[name]

    def sign_in(self, name: str, subject_: str = "", *, token: str = "", **claims: str) -> Caller:
        """Assume the role of a GitHub environment with a token, by default of a job of that environment.

        Raises:
            ClientError: the role does not trust the token.
        """
        payload = {"sub": subject_ or subject(name), "aud": AUDIENCE, **claims}
        answer = self._sts.assume_role_with_web_identity(
            RoleArn=self.role(name), RoleSessionName="run-1", WebIdentityToken=token or self.issuer.token(payload)
        )
        return self.caller(**answer["Credentials"])

    def deployment(self, who: Caller, environment: str) -> Deployment:
        """Return the stack of an environment, to be run by a caller."""
        providers: dict[str, Provider] = {
            "aws": AwsProvider(who.environ(), self.account.home),
            "kubernetes": AnyCluster(),
        }
        return Deployment(self.project, environment, providers, self.home, policies=[violations])


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    home = tmp_path_factory.mktemp("account")
    project = release_everywhere(copy_as_forked(home / "project", "infra/__main__.py", "infra/bootstrap"))
    declared = project / "infra" / "bootstrap" / "Pulumi.account.yaml"
    edit(declared, "config", "mlops-bootstrap:account", "landing_principals", value={"dev": [STEWARD]})
    account = start(home / "aws")
    kubeconfig = write_kubeconfig(home / "kubeconfig", AUTHORITY)
    declare_clusters(account.home, kubeconfig, declared_clusters(Project(project)), cluster="declared")
    patch = pytest.MonkeyPatch()
    patch.setenv("KUBECONFIG", str(kubeconfig))
    patch.setattr(association_wait, "pause", no_pause)
    try:
        bootstrap = Deployment(
            project / "infra" / "bootstrap",
            ACCOUNT_STACK,
            {"aws": AwsProvider(account.environ(), account.home)},
            home,
            policies=[violations],
        )
        outputs = bootstrap.up().outputs
        (home / "github").mkdir()
        issuer = Issuer(home / "github", published_keys(account.home / ISSUERS, ISSUER))
        yield Ready(account, home, project, outputs, issuer)
    finally:
        patch.undo()
        account.stop()


@pytest.fixture(scope="session")
def provisioned(ready: Ready) -> Ready:
    """The account with dev and staging up, each brought up by its deploy role."""
    for environment in ("dev", "staging"):
        ready.deployment(ready.as_job(environment), environment).up()
    return ready
