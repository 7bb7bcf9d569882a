"""An emulated account that the bootstrap made ready, and environments in it that their own roles brought up."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from infra.policies import PlannedResource
from laptop.aws.access.web_identity import published_keys
from laptop.aws.account import ISSUERS, Account, start
from laptop.aws.provider import AwsProvider
from laptop.engine.deployment import Deployment
from laptop.engine.provider import Created, Diff
from laptop.github.oidc import Issuer
from laptop.github.trust import AUDIENCE, ISSUER
from laptop.stacks import ACCOUNT_STACK, judged, keep_the_rules
from tests.infra.recording import release_everywhere
from tests.sample_project import copy_as_forked

REPOSITORY = "acme/mlops"
"""As the tests' `Pulumi.account.yaml` says."""


def subject(name: str, repository: str = REPOSITORY) -> str:
    """Who a job in an environment of GitHub is."""
    return f"repo:{repository}:environment:{name}"


class AnyCluster:
    """A cluster that takes everything and says that it is there: what counts here is what AWS says."""

    def check(self, type_: str, name: str, inputs: dict[str, Any], old_inputs: dict[str, Any] | None) -> dict[str, Any]:
        return inputs

    def diff(
        self, type_: str, old_inputs: dict[str, Any], new_inputs: dict[str, Any], old_outputs: dict[str, Any]
    ) -> Diff:
        return Diff(tuple(key for key in new_inputs if old_inputs.get(key) != new_inputs[key]))

    def create(self, urn: str, type_: str, inputs: dict[str, Any], *, resuming: bool = False) -> Created:
        return Created(urn.rpartition("::")[2], dict(inputs))

    def read(self, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        return dict(outputs)

    def update(
        self,
        urn: str,
        type_: str,
        id_: str,
        old_inputs: dict[str, Any],
        new_inputs: dict[str, Any],
        old_outputs: dict[str, Any],
    ) -> Created:
        return Created(id_, dict(new_inputs))

    def delete(self, urn: str, type_: str, id_: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        return None

    def invoke(self, token: str, args: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError(token)

    def recorded(self, type_: str, inputs: dict[str, Any]) -> dict[str, str]:
        return {}


_SESSION = boto3.Session()  # one for all: it reads what services there are, which takes a while


class Somebody:
    """Clients with some credentials, which give up at once when they are refused.

    Args:
        account: where.
        key: as STS gives it.
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
        """The standard variables by which SDKs are this somebody."""
        variables = {"ID": "AWS_ACCESS_KEY_ID", "SECRET": "AWS_SECRET_ACCESS_KEY", "TOKEN": "AWS_SESSION_TOKEN"}
        given = {variables[name]: value for name, value in self._key.items()}
        return {**self._account.environ(), "AWS_SHARED_CREDENTIALS_FILE": os.devnull, **given}


@dataclass(frozen=True)
class Ready:
    """An account after the bootstrap.

    Attributes:
        account: the account.
        home: of the local target.
        project: one in which everything is released.
        outputs: what the bootstrap exports.
        graph: the resources that the bootstrap made.
        issuer: GitHub's.
    """

    account: Account
    home: Path
    project: Path
    outputs: Mapping[str, Any]
    graph: Sequence[PlannedResource]
    issuer: Issuer
    _signed_in: dict[str, Somebody] = field(default_factory=dict)

    def role(self, name: str) -> str:
        """ARN of the role of a GitHub environment: `preview`, or one that is deployed."""
        return str(self.outputs["preview_role"] if name == "preview" else self.outputs["deploy_roles"][name])

    @cached_property
    def operator(self) -> Somebody:
        """Who may do everything."""
        return self._of_file("credentials")

    @cached_property
    def pod_identity(self) -> Somebody:
        """The stand-in of EKS Pod Identity."""
        return self._of_file("pod-identity-credentials")

    def _of_file(self, name: str) -> Somebody:
        lines = (self.account.home / name).read_text().split()
        return Somebody(self.account, {"AccessKeyId": lines[3], "SecretAccessKey": lines[6]})

    def somebody(self, **key: Any) -> Somebody:
        """Somebody with credentials as STS gives them."""
        return Somebody(self.account, key)

    @cached_property
    def _sts(self) -> Any:
        return Somebody(self.account, {"AccessKeyId": "nobody", "SecretAccessKey": "nothing"})["sts"]

    def as_job(self, name: str) -> Somebody:
        """A job of a GitHub environment, with that environment's role."""
        if name not in self._signed_in:
            self._signed_in[name] = self.sign_in(name)
        return self._signed_in[name]

    def sign_in(self, name: str, subject_: str = "", *, token: str = "", **claims: str) -> Somebody:
        """Take the role of a GitHub environment as a job does, by default one of that environment.

        Raises what STS answers when the role does not let it in.
        """
        said = {"sub": subject_ or subject(name), "aud": AUDIENCE, **claims}
        answer = self._sts.assume_role_with_web_identity(
            RoleArn=self.role(name), RoleSessionName="run-1", WebIdentityToken=token or self.issuer.token(said)
        )
        return self.somebody(**answer["Credentials"])

    def deployment(self, who: Somebody, environment: str) -> Deployment:
        """The main program's stack of an environment, run by somebody."""
        providers = {"aws": AwsProvider(who.environ(), self.account.home), "kubernetes": AnyCluster()}
        return Deployment(self.project, environment, providers, self.home, policies=[keep_the_rules])


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    home = tmp_path_factory.mktemp("account")
    project = release_everywhere(copy_as_forked(home / "project", "infra/__main__.py", "infra/bootstrap"))
    account = start(home / "aws")
    try:
        made: list[Any] = []

        def keep(resources: Sequence[Any]) -> tuple[()]:
            made[:] = judged(resources)
            return ()

        bootstrap = Deployment(
            project / "infra" / "bootstrap",
            ACCOUNT_STACK,
            {"aws": AwsProvider(account.environ(), account.home)},
            home,
            policies=[keep_the_rules, keep],
        )
        outputs = bootstrap.up().outputs
        (home / "github").mkdir()
        issuer = Issuer(home / "github", published_keys(account.home / ISSUERS, ISSUER))
        yield Ready(account, home, project, outputs, tuple(made), issuer)
    finally:
        account.stop()


@pytest.fixture(scope="session")
def provisioned(ready: Ready) -> Ready:
    """The same, with dev and staging up, each brought up by its own deploy role."""
    for environment in ("dev", "staging"):
        ready.deployment(ready.as_job(environment), environment).up()
    return ready
