"""The account's image repositories. Images are pushed once, and every environment pulls them by digest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import pulumi
import pulumi_aws as aws

from infra.components.key import Key, KeyArgs
from infra.scopes import Scope
from pipelines.declarations.names import ImageName, repository_name

_UNTAGGED_DAYS = 30


@dataclass(frozen=True, kw_only=True)
class ImageRepositoriesArgs:
    """Arguments of `ImageRepositories`.

    Attributes:
        scope: the account's scope.
        pull_accounts: ids of other AWS accounts that may pull images.
    """

    scope: Scope
    pull_accounts: Sequence[str] = ()


class ImageRepositories(pulumi.ComponentResource):
    """The ECR repositories of the training and the serving image, and the key that encrypts them.

    Attributes:
        arns: ARNs of the repositories, known before they exist.
    """

    def __init__(self, name: str, args: ImageRepositoriesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:bootstrap:ImageRepositories", name, None, opts)
        scope, child = args.scope, pulumi.ResourceOptions(parent=self)
        key = Key(
            name,
            KeyArgs(
                scope=scope,
                description=f"Encrypts the images of {scope.project} at rest",
                alias=f"alias/{scope.prefix}-images",
            ),
            child,
        )
        names = {image: repository_name(scope.project, image) for image in get_args(ImageName)}
        for image, full_name in names.items():
            repository = aws.ecr.Repository(
                image,
                name=full_name,
                image_tag_mutability="IMMUTABLE",
                image_scanning_configuration={"scan_on_push": True},
                encryption_configurations=[{"encryption_type": "KMS", "kms_key": key.arn}],
                force_delete=scope.config.disposable,
                tags=scope.tags(),
                opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=scope.protected)),
            )
            # Only untagged images expire: an environment may still run an old tagged one. The images for each
            # architecture have no tag, and stay as long as the index that lists them (Amazon ECR user guide, "Automate
            # the cleanup of images by using lifecycle policies").
            aws.ecr.LifecyclePolicy(image, repository=repository.name, policy=_expire_untagged(), opts=child)
            if args.pull_accounts:
                aws.ecr.RepositoryPolicy(
                    image, repository=repository.name, policy=_allow_pull(scope, args.pull_accounts), opts=child
                )
        self.arns = [scope.arn("ecr", f"repository/{full_name}") for full_name in names.values()]
        self.register_outputs({"arns": self.arns})


def _expire_untagged() -> str:
    return json.dumps(
        {
            "rules": [
                {
                    "rulePriority": 1,
                    "description": "Unfinished pushes, and images that have lost their tag",
                    "selection": {
                        "tagStatus": "untagged",
                        "countType": "sinceImagePushed",
                        "countUnit": "days",
                        "countNumber": _UNTAGGED_DAYS,
                    },
                    "action": {"type": "expire"},
                }
            ]
        }
    )


def _allow_pull(scope: Scope, accounts: Sequence[str]) -> str:
    """Allow other accounts to pull, and to judge what they pin.

    Source: Amazon ECR user guide, "Private repository policy examples".
    """
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "PullFromOtherAccounts",
                    "Effect": "Allow",
                    "Principal": {"AWS": [f"arn:{scope.partition}:iam::{account}:root" for account in accounts]},
                    "Action": [
                        "ecr:BatchGetImage",
                        "ecr:DescribeImageScanFindings",
                        "ecr:DescribeImages",
                        "ecr:GetDownloadUrlForLayer",
                    ],
                }
            ],
        }
    )
