"""What `Pulumi.account.yaml` says, and who that makes of a job on GitHub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pulumi
from pydantic import Field, StringConstraints

from pipelines.declarations.documents import Declaration, parse
from pipelines.declarations.errors import MlopsError

ISSUER = "token.actions.githubusercontent.com"
AUDIENCE = "sts.amazonaws.com"
PREVIEW = "preview"
"""The GitHub environment whose jobs may look at everything and change nothing."""


class RepositoryIds(Declaration):
    """The numbers of a repository and its owner, which never change and are never given twice."""

    owner: Annotated[int, Field(ge=1)]
    repository: Annotated[int, Field(ge=1)]


class AccountConfig(Declaration):
    """The value of `mlops-bootstrap:account`.

    Attributes:
        repository: on GitHub, `owner/name`.
        repository_ids: set where the subjects of GitHub's tokens carry ids, as they do for repositories made since
            mid-2026.
        identity_provider: ARN of GitHub's identity provider, where the account has one: it can have no second.
        owner: the team that answers for it (a tag on everything).
        cost_centre: who pays for it (a tag on everything).
        disposable: whether it may be deleted with the state of every environment.
        noncurrent_days: days that a superseded state is kept.
        log_days: days that access logs are kept.
    """

    repository: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$")]
    repository_ids: RepositoryIds | None = None
    identity_provider: (
        Annotated[str, StringConstraints(pattern=rf"^arn:[a-z-]+:iam::\d{{12}}:oidc-provider/{ISSUER}$")] | None
    ) = None
    owner: Annotated[str, StringConstraints(min_length=1)]
    cost_centre: Annotated[str, StringConstraints(min_length=1)]
    disposable: bool = False
    noncurrent_days: Annotated[int, Field(ge=1)] = 365
    log_days: Annotated[int, Field(ge=1)] = 365

    def subject(self, environment: str) -> str:
        """Who a job is that runs in a GitHub environment, as the `sub` of its token says.

        Source: GitHub, "OpenID Connect reference", subject claims.
        """
        owner, _, name = self.repository.partition("/")
        if self.repository_ids is not None:
            owner, name = f"{owner}@{self.repository_ids.owner}", f"{name}@{self.repository_ids.repository}"
        return f"repo:{owner}/{name}:environment:{environment}"


def load_account() -> AccountConfig:
    """The configuration of the stack that is being run.

    Raises:
        MlopsError: it is missing or wrong.
    """
    file = f"Pulumi.{pulumi.get_stack()}.yaml"
    value = pulumi.Config().get_object("account")
    if value is None:
        raise MlopsError(f"no configuration mlops-bootstrap:account in {file}", fix=f"write it in {file}")
    return parse(json.dumps(value), AccountConfig, Path(f"mlops-bootstrap:account in {file}"))
