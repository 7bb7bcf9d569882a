"""An environment: how it is configured (`Pulumi.<environment>.yaml`), and how its names reach a pipeline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration, parse
from pipelines.declarations.errors import DeclarationError, MlopsError, Problem
from pipelines.declarations.names import Name

VARIABLE = "MLOPS_ENVIRONMENT"
"""The environment variable by which a job gets its descriptor."""

PORT_OF_HTTPS = 443

Cidr = Annotated[str, StringConstraints(pattern=r"^\d{1,3}(\.\d{1,3}){3}/\d{1,2}$")]
"""A range of IPv4 addresses, `10.0.0.0/8`."""

ManagedPolicy = Annotated[
    str, StringConstraints(pattern=r"^(arn:[a-z-]+:iam::\d{12}:policy/)?[A-Za-z0-9_+=,.@/-]+$", max_length=700)
]
"""A policy of IAM: `path/name`, or its ARN."""

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
"""An AWS region, `eu-west-1`."""

PRIVATE_RANGES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""The addresses of private networks (RFC 1918), in which every VPC lies unless somebody went out of their way."""


class Images(Declaration):
    """The images that an environment's pods run, by digest; None until one has been built and pinned."""

    training: Digest | None = None
    serving: Digest | None = None


class ImageRegistry(Declaration):
    """The ECR registry from which an environment pulls its images.

    Attributes:
        account: id of the AWS account that owns the registry; None for the environment's own account. That account's
            bootstrap must list the environment's account in `pull_accounts`.
        region: the registry's region; None for the environment's own region.
    """

    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")] | None = None
    region: Region | None = None


class FreezeWindow(Declaration):
    """A time in which nothing is promoted; a rollback always is.

    Attributes:
        start, end: with their time zone (`2026-12-24T00:00:00+01:00`); the end is not part of it.
        reason: shown to whoever is refused.
    """

    start: AwareDatetime
    end: AwareDatetime
    reason: Annotated[str, StringConstraints(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> FreezeWindow:
        if self.end <= self.start:
            raise ValueError("an end after the start; found it before")
        return self


class EnvironmentConfig(Declaration):
    """The value of `mlops:environment` in `Pulumi.<environment>.yaml`.

    Attributes:
        promotes_from: the environment a bundle must have been verified in before; None for the first.
        trains: whether data jobs (ingest, training) run here. Exactly the first environment trains.
        disposable: whether its data may be deleted with it. Anything else is protected.
        owner: the team that answers for it (a tag on everything).
        cost_centre: who pays for it (a tag on everything).
        cluster: name of the EKS cluster.
        namespace: the Kubernetes namespace, made by the program.
        ingress_class: the class whose controller moves traffic by weight; `alb` is the AWS Load Balancer Controller.
        load_balancer_cidrs: address ranges from which the load balancer reaches the pods. The private ranges unless
            said; name the subnets of your load balancers to keep other pods of the VPC out.
        permissions_boundary: the managed policy that bounds every role the program makes, by its name in the account
            with the path before it, or by its ARN. The deploy role may only make roles that carry the one that
            `infra/bootstrap` makes; None where the account has none.
        noncurrent_days: days that a superseded or deleted version of an object is kept.
        retention_days: days during which Object Lock lets nobody delete a bundle or a ledger record.
        log_days: days that logs are kept.
        freezes: times in which nothing is promoted to it.
        images: the pinned images.
        image_registry: the ECR registry that holds the images.
    """

    promotes_from: Name | None
    trains: bool
    disposable: bool
    owner: Annotated[str, StringConstraints(min_length=1)]
    cost_centre: Annotated[str, StringConstraints(min_length=1)]
    cluster: Name
    namespace: Name
    ingress_class: Name = "alb"
    load_balancer_cidrs: Annotated[tuple[Cidr, ...], Field(min_length=1)] = PRIVATE_RANGES
    permissions_boundary: ManagedPolicy | None = None
    noncurrent_days: Annotated[int, Field(ge=1)] = 30
    retention_days: Annotated[int, Field(ge=1)] = 1
    log_days: Annotated[int, Field(ge=1)] = 90
    freezes: tuple[FreezeWindow, ...] = ()
    images: Images = Images()
    image_registry: ImageRegistry = ImageRegistry()

    @model_validator(mode="after")
    def _first_environment_trains(self) -> EnvironmentConfig:
        if self.trains != (self.promotes_from is None):
            raise ValueError(
                "trains: true exactly where promotes_from is null; "
                f"found trains: {str(self.trains).lower()} and promotes_from: {self.promotes_from or 'null'}"
            )
        return self


class StackConfig(Declaration):
    """The `config` section of `Pulumi.<environment>.yaml`; keys of providers are Pulumi's business."""

    environment: EnvironmentConfig = Field(alias="mlops:environment")
    region: Region = Field(alias="aws:region")
    context: str | None = Field(None, alias="kubernetes:context")


class StackFile(Declaration):
    """`Pulumi.<environment>.yaml`."""

    config: StackConfig
    secrets_provider: str | None = Field(None, alias="secretsprovider")
    encrypted_key: str | None = Field(None, alias="encryptedkey")
    encryption_salt: str | None = Field(None, alias="encryptionsalt")


class ImageReferences(Declaration):
    """Full references of the images by digest (`<repository>@sha256:…`), None where none is pinned."""

    training: str | None = None
    serving: str | None = None


class Repositories(Declaration):
    """URLs of the ECR repositories, shared by all environments of an account."""

    training: str
    serving: str


class EnvironmentDescriptor(Declaration):
    """The names of what the stack made. The stack exports it as `descriptor`; a job gets it as `MLOPS_ENVIRONMENT`.

    Attributes:
        name: the environment.
        promotes_from: the environment before it.
        region, account: of AWS.
        landing_bucket: where batches of data arrive.
        lake_bucket: where the tables and the quarantine are.
        logs_bucket: inference logs, lineage events, access logs.
        registry_bucket: bundles, evidence and the ledger.
        catalog_database: the Glue database.
        signing_key: ARN of the KMS key that this environment signs with.
        trusted_keys: environment → PEM of its public key: its own, and of those it promotes from.
        cluster: name of the EKS cluster.
        namespace: in Kubernetes.
        images, repositories: of the containers. The account's bootstrap makes the repositories.
        endpoints: model → base URL; empty inside a job, which is made before them.
    """

    format: Literal["mlops/environment/v1"] = "mlops/environment/v1"
    name: Name
    promotes_from: Name | None = None  # Pulumi drops an output that is null
    region: str
    account: Annotated[str, StringConstraints(pattern=r"^\d{12}$")]
    landing_bucket: str
    lake_bucket: str
    logs_bucket: str
    registry_bucket: str
    catalog_database: str
    signing_key: str
    trusted_keys: dict[Name, str]
    cluster: str
    namespace: str
    images: ImageReferences
    repositories: Repositories
    endpoints: dict[Name, str] = Field(default_factory=dict)

    @classmethod
    def from_environ(cls) -> EnvironmentDescriptor:
        """The descriptor that this job was given.

        Raises:
            MlopsError: `MLOPS_ENVIRONMENT` is not set, or is not a descriptor.
        """
        text = os.environ.get(VARIABLE)
        if not text:
            raise MlopsError(
                f"the environment variable {VARIABLE} is not set",
                fix="run the job from its CronJob, or the command with --env",
            )
        return parse(text, cls, Path(f"${VARIABLE}"))

    @classmethod
    def from_output(cls, output: Any, stack: str) -> EnvironmentDescriptor:
        """The descriptor among a stack's outputs.

        Raises:
            DeclarationError: it is not there or not whole: the stack is not up.
        """
        if not isinstance(output, dict):
            raise DeclarationError(
                [
                    Problem(
                        Path(f"stack {stack}"),
                        None,
                        "descriptor",
                        "an output of the stack",
                        "nothing",
                        f"mlops up --env {stack}",
                    )
                ]
            )
        return cls.model_validate(output, strict=False)
