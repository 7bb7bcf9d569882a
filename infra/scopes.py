"""The environment that the program runs for: its configuration, names and tags."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pulumi
import pulumi_aws as aws

from pipelines.declarations.documents import parse
from pipelines.declarations.environment import EnvironmentConfig, Images
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import Model
from pipelines.declarations.names import ImageName, bucket_name, database_name, fitting, repository_name
from pipelines.declarations.project import Project

PLATFORM = "platform"
"""Value of the tag `model` on a resource that is shared by all models."""

BOOTSTRAP_PATH = "/bootstrap/"
"""IAM path of the roles and policies of the bootstrap. No pattern for an environment's roles matches it."""

MAY_CHANGE_PROTECTION = ("data-protection", "may-change")
"""Tag of a deploy role that may change the protection of buckets after they were created: key, value."""

PARTITION = "aws"
"""The only partition that is supported: policies and endpoints name its service principals and domains."""

_LONGEST_BUCKET_NAME = 63
_LONGEST_ROLE_NAME = 64
_LONGEST_RULE_NAME = 64


class Ownership(Protocol):
    """Owner, cost centre and retention of the resources in a scope."""

    @property
    def owner(self) -> str:
        """The team responsible for the resources."""

    @property
    def cost_centre(self) -> str:
        """The cost centre that pays for the resources."""

    @property
    def disposable(self) -> bool:
        """True if the resources may be deleted together with their data."""

    @property
    def noncurrent_days(self) -> int:
        """Days to keep a superseded or deleted version of an object."""


@dataclass(frozen=True)
class Scope:
    """A part of an AWS account whose resources share a name prefix and tags.

    Attributes:
        name: the scope's name (`dev`).
        project: the project's name, the first part of every physical name.
        config: owner, cost centre and retention.
        account: the AWS account's id.
        region: the AWS region.
        partition: the AWS partition.
    """

    name: str
    project: str
    config: Ownership
    account: str
    region: str
    partition: str = "aws"

    @property
    def protected(self) -> bool:
        """True if Pulumi must refuse to delete stateful resources."""
        return not self.config.disposable

    @property
    def prefix(self) -> str:
        """The name prefix of every resource."""
        return f"{self.project}-{self.name}"

    def bucket_name(self, purpose: str) -> str:
        """Return the name of a bucket. The account id makes it globally unique.

        Raises:
            MlopsError: the name is longer than S3 allows.
        """
        name = bucket_name(self.project, self.name, purpose, self.account)
        if len(name) > _LONGEST_BUCKET_NAME:
            raise MlopsError(
                f"the bucket name {name!r} is too long: S3 allows {_LONGEST_BUCKET_NAME} characters, found {len(name)}",
                fix=f"shorten `name` in Pulumi.yaml, or rename the environment {self.name!r}",
            )
        return name

    def role_name(self, workload: str) -> str:
        """Return the name of an IAM role. A name that is too long is cut and ends in a digest of itself."""
        return fitting(f"{self.prefix}-{workload}", _LONGEST_ROLE_NAME)

    def event_rule_name(self, purpose: str) -> str:
        """Return the name of an EventBridge rule, cut like that of a role."""
        return fitting(f"{self.prefix}-{purpose}", _LONGEST_RULE_NAME)

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource in this account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def tags(self, model: Model | None = None) -> dict[str, str]:
        """Return the tags of a resource.

        Args:
            model: the model that the resource belongs to; None if all models share it.
        """
        return {
            "environment": self.name,
            "owner": model.owner if model else self.config.owner,
            "model": model.name if model else PLATFORM,
            "cost-centre": self.config.cost_centre,
            "disposable": str(self.config.disposable).lower(),
        }


@dataclass(frozen=True)
class Environment(Scope):
    """An environment in its AWS account.

    Attributes:
        config: the value of `mlops:environment` in `Pulumi.<name>.yaml`.
    """

    config: EnvironmentConfig

    @property
    def catalog_database(self) -> str:
        """The name of the Glue database. SQL does not accept hyphens."""
        return database_name(self.project, self.name)

    @property
    def permissions_boundary(self) -> str | None:
        """The ARN of the permissions boundary of every role, or None."""
        named = self.config.permissions_boundary
        if named is None or named.startswith("arn:"):
            return named
        return f"arn:{self.partition}:iam::{self.account}:policy/{named}"

    def image_repository(self, image: ImageName) -> str:
        """Return the URL of the ECR repository from which the environment pulls an image.

        The bootstrap of the account that owns the registry creates the repository.
        """
        registry = self.config.image_registry
        account, region = registry.account or self.account, registry.region or self.region
        return f"{account}.dkr.ecr.{region}.amazonaws.com/{repository_name(self.project, image)}"

    def image_reference(self, image: ImageName) -> str | None:
        """Return the reference of the pinned image (`<repository>@sha256:…`), or None if no image is pinned."""
        digest = self.config.images.training if image == "training" else self.config.images.serving
        return f"{self.image_repository(image)}@{digest}" if digest else None

    def without_images(self) -> Environment:
        """Return the environment as if it pinned no image."""
        return replace(self, config=self.config.model_copy(update={"images": Images()}))


def load_environment(project: Project) -> Environment:
    """Return the environment of the stack that Pulumi is running.

    Raises:
        MlopsError: the configuration is missing or invalid.
    """
    name = pulumi.get_stack()
    file = project.stack_file(name)
    if file.is_file():
        project.stack(name)  # reports problems with the file's line numbers, which the parsed value below lacks
    value = pulumi.Config("mlops").get_object("environment")
    if value is None:
        raise MlopsError(
            f"{file.name}: expected a value at config.mlops:environment, found none",
            fix=f"write the environment's configuration under config.mlops:environment in {file.name}",
        )
    account, region, partition = find_account()
    return Environment(
        name=name,
        project=pulumi.get_project(),
        config=parse(json.dumps(value), EnvironmentConfig, Path(f"mlops:environment of {name}")),
        account=account,
        region=region,
        partition=partition,
    )


def find_account() -> tuple[str, str, str]:
    """Return the account id, the region and the partition that the AWS provider works in.

    Raises:
        MlopsError: the provider cannot sign in, or the account is in China, GovCloud or another partition.
    """
    try:
        caller, region = aws.get_caller_identity(), aws.get_region().region
    except Exception as error:  # the SDK raises no narrower class for a call that failed
        raise MlopsError(
            f"cannot use AWS: expected credentials and a region, found {error}",
            fix="sign in to AWS so that `aws sts get-caller-identity` answers, and set aws:region in the stack's file",
        ) from error
    partition = caller.arn.split(":")[1]
    if partition != PARTITION:
        raise MlopsError(
            f"AWS partition {partition} is not supported: expected {PARTITION}, found the account {caller.account_id} "
            f"of {partition}",
            fix="use an account outside China, GovCloud and the isolated partitions",
        )
    return caller.account_id, region, partition
