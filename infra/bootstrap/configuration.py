"""The configuration of the bootstrap, `Pulumi.account.yaml`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pulumi
from pydantic import Field, StringConstraints, model_validator

from pipelines.declarations.documents import Declaration, parse
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name, TagValue
from pipelines.declarations.token_subject import Repository, RepositoryIds, SubjectTemplate, subject_of

ISSUER = "token.actions.githubusercontent.com"
"""Issuer of github.com's tokens, without `https://`."""

AUDIENCE = "sts.amazonaws.com"
PREVIEW = "preview"
"""The GitHub environment whose jobs may read every environment and change nothing."""

IMAGES = "images"
"""The GitHub environment whose jobs push images."""

Principal = Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:iam::\d{12}:(role|user)/[A-Za-z0-9_+=,.@/-]+$")]
"""The ARN of an IAM role or user, without wildcards."""

AccountId = Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
"""The id of an AWS account."""


class AccountConfig(Declaration):
    """The value of `mlops-bootstrap:account`.

    Attributes:
        repository: the GitHub repository, `owner/name`.
        repository_ids: ids of the repository and its owner. Set them if the subjects of GitHub's tokens carry ids, as
            they do for repositories created since mid-2026.
        subject_template: subject of GitHub's tokens if it is customised, with `{environment}` in place of the GitHub
            environment: `repository_owner_id:1:environment:{environment}`. It replaces the two values above.
        issuer: issuer of GitHub's tokens, without `https://`. `<hostname>/_services/token` on Enterprise Server.
        identity_provider: ARN of the issuer's identity provider if the account already has one. An account cannot have
            two.
        pull_accounts: ids of other AWS accounts that may pull images.
        landing_principals: environment → ARNs of the IAM roles and users that may land data files there. People who
            sign in with IAM Identity Center have a role below `aws-reserved/sso.amazonaws.com/`.
        open_environments: environments whose deploy roles may change the protection of existing buckets, in addition to
            disposable ones. Set it for one change, and empty it again.
        owner: the team responsible for the account's resources (a tag).
        cost_centre: the cost centre that pays for them (a tag).
        disposable: whether the state of every environment, and all images, may be deleted.
        noncurrent_days: days to keep superseded state files.
        log_days: days to keep access logs.
    """

    repository: Repository
    repository_ids: RepositoryIds | None = None
    subject_template: SubjectTemplate | None = None
    issuer: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*(/[A-Za-z0-9._/-]+)?$")] = ISSUER
    identity_provider: (
        Annotated[str, StringConstraints(pattern=r"^arn:[a-z-]+:iam::\d{12}:oidc-provider/.+$")] | None
    ) = None
    pull_accounts: tuple[AccountId, ...] = ()
    landing_principals: dict[Name, tuple[Principal, ...]] = Field(default_factory=dict)
    open_environments: tuple[Name, ...] = ()
    owner: TagValue
    cost_centre: TagValue
    disposable: bool = False
    noncurrent_days: Annotated[int, Field(ge=1)] = 365
    log_days: Annotated[int, Field(ge=1)] = 365

    @model_validator(mode="after")
    def _check_identity_provider(self) -> AccountConfig:
        expected = f":oidc-provider/{self.issuer}"
        if self.identity_provider is not None and not self.identity_provider.endswith(expected):
            raise ValueError(
                f"identity_provider: expected an ARN that ends in {expected}, found {self.identity_provider}"
            )
        return self

    def subject(self, environment: str) -> str:
        """Return the `sub` claim of the token of a job in a GitHub environment."""
        return subject_of(self.repository, self.repository_ids, self.subject_template, environment)


def load_account() -> AccountConfig:
    """Return the configuration of the stack that Pulumi is running.

    Raises:
        MlopsError: the configuration is missing or invalid.
    """
    file = f"Pulumi.{pulumi.get_stack()}.yaml"
    value = pulumi.Config().get_object("account")
    if value is None:
        raise MlopsError(
            f"{file}: expected a value at config.mlops-bootstrap:account, found none",
            fix=f"write the account's configuration under config.mlops-bootstrap:account in infra/bootstrap/{file}",
        )
    return parse(json.dumps(value), AccountConfig, Path(f"mlops-bootstrap:account in {file}"))
