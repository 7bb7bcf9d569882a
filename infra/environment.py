"""The environment that a program is run for: its configuration, and the names and tags of what it holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pulumi
import pulumi_aws as aws

from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentConfig
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.declarations.project import Project

PLATFORM = "platform"
"""What the tag `model` says on a resource that serves every model."""

_LONGEST_BUCKET_NAME = 63
_LONGEST_ROLE_NAME = 64


class Terms(Protocol):
    """What is said of everything in one place."""

    @property
    def owner(self) -> str:
        """The team that answers for it."""

    @property
    def cost_centre(self) -> str:
        """Who pays for it."""

    @property
    def disposable(self) -> bool:
        """Whether it may be deleted with what it holds."""

    @property
    def noncurrent_days(self) -> int:
        """Days that a superseded or deleted version of an object is kept."""


@dataclass(frozen=True)
class Place:
    """A part of an AWS account whose resources belong together, by their names and tags.

    Attributes:
        name: of the part (`dev`).
        project: the project's name, the first part of every physical name.
        config: what is said of everything in it.
        account, region, partition: of AWS.
    """

    name: str
    project: str
    config: Terms
    account: str
    region: str
    partition: str = "aws"

    @property
    def protected(self) -> bool:
        """Whether its state must outlive a mistake: nothing stateful can be deleted without first unprotecting it."""
        return not self.config.disposable

    @property
    def prefix(self) -> str:
        """What the names of its resources start with."""
        return f"{self.project}-{self.name}"

    def bucket_name(self, purpose: str) -> str:
        """The name of a bucket: found by people, unique in the world through the account's number.

        Raises:
            MlopsError: the name would be longer than S3 allows.
        """
        name = f"{self.prefix}-{purpose}-{self.account}"
        if len(name) > _LONGEST_BUCKET_NAME:
            raise MlopsError(
                f"the bucket name {name!r} has {len(name)} characters; S3 allows {_LONGEST_BUCKET_NAME}",
                fix="shorten the project's name in Pulumi.yaml or the environment's",
            )
        return name

    def role_name(self, workload: str) -> str:
        """The name of a role, which is unique in the account. One that is too long ends in a digest of itself."""
        name = f"{self.prefix}-{workload}"
        if len(name) <= _LONGEST_ROLE_NAME:
            return name
        return f"{name[: _LONGEST_ROLE_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    def arn(self, service: str, resource: str) -> str:
        """The ARN of a resource of this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def tags(self, model: Model | None = None) -> dict[str, str]:
        """The tags of a resource: who answers for it, what it belongs to, who pays, and whether it may be deleted.

        Args:
            model: the model it serves; None for what serves all of them.
        """
        return {
            "environment": self.name,
            "owner": model.owner if model else self.config.owner,
            "model": model.name if model else PLATFORM,
            "cost-centre": self.config.cost_centre,
            "disposable": str(self.config.disposable).lower(),
        }


@dataclass(frozen=True)
class Environment(Place):
    """An environment in its account.

    Attributes:
        config: what `Pulumi.<name>.yaml` says.
    """

    config: EnvironmentConfig

    @property
    def catalog_database(self) -> str:
        """The name of the Glue database; SQL takes no hyphens."""
        return self.prefix.replace("-", "_")

    @property
    def permissions_boundary(self) -> str | None:
        """The ARN of what bounds its roles; None: nothing does."""
        named = self.config.permissions_boundary
        if named is None or named.startswith("arn:"):
            return named
        return f"arn:{self.partition}:iam::{self.account}:policy/{named}"


def load_environment(project: Project) -> Environment:
    """The environment of the stack that is being run.

    Raises:
        MlopsError: the configuration is missing or wrong.
    """
    name = pulumi.get_stack()
    file = project.stack_file(name)
    if file.is_file():
        project.stack(name)  # what is wrong there is said with its line
    value = pulumi.Config("mlops").get_object("environment")
    if value is None:
        raise MlopsError(f"the stack {name!r} has no configuration mlops:environment", fix=f"write it in {file.name}")
    caller = aws.get_caller_identity()
    return Environment(
        name=name,
        project=pulumi.get_project(),
        config=parse(json.dumps(value), EnvironmentConfig, Path(f"mlops:environment of {name}")),
        account=caller.account_id,
        region=aws.get_region().region,
        partition=caller.arn.split(":")[1],
    )
