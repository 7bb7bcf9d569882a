"""Where what is promoted lives: images, bundles with their evidence and ledger, and the key that signs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.bucket import Bucket, BucketArgs
from infra.components.storage import DELETION_WINDOW_DAYS, account_decides
from infra.environment import Environment
from pipelines.declarations.digests import Digest

IMAGES = ("training", "serving")

_UNTAGGED_DAYS = 30


@dataclass(frozen=True)
class RegistryArgs:
    """What the registry is made with.

    Attributes:
        environment: where it lives.
        key: encrypts what it holds.
        access_logs: the bucket that gets its access logs.
    """

    environment: Environment
    key: aws.kms.Key
    access_logs: Bucket


class Registry(pulumi.ComponentResource):
    """The registry of an environment.

    Attributes:
        bucket: bundles, evidence and the ledger; nobody can take a record back while it is retained.
        repositories: training, serving → the image repository.
        signing_key: what the environment signs its statements with.
        public_key: of the signing key, PEM.
    """

    def __init__(self, name: str, args: RegistryArgs) -> None:
        super().__init__("mlops:registry:Registry", name)
        environment = args.environment
        self.repositories = {image: self._repository(image, args) for image in IMAGES}
        self.bucket = Bucket(
            "registry",
            BucketArgs(environment, args.key.arn, args.access_logs, lock_days=environment.config.retention_days),
            parent=self,
        )
        self.signing_key = aws.kms.Key(
            "signing",
            description=f"Signs the evidence and the promotions of {environment.prefix}",
            customer_master_key_spec="ECC_NIST_P256",
            key_usage="SIGN_VERIFY",
            deletion_window_in_days=DELETION_WINDOW_DAYS,
            policy=pulumi.Output.json_dumps(account_decides(environment)),
            tags=environment.tags(),
            opts=pulumi.ResourceOptions(parent=self, protect=environment.protected),
        )
        aws.kms.Alias(
            "signing",
            name=f"alias/{environment.prefix}-signing",
            target_key_id=self.signing_key.key_id,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.public_key: pulumi.Output[str] = aws.kms.get_public_key_output(
            key_id=self.signing_key.key_id, opts=pulumi.InvokeOutputOptions(parent=self)
        ).public_key_pem
        self.register_outputs({"bucket": self.bucket.name, "signing_key": self.signing_key.arn})

    def _repository(self, image: str, args: RegistryArgs) -> aws.ecr.Repository:
        environment = args.environment
        repository = aws.ecr.Repository(
            image,
            name=f"{environment.prefix}/{image}",
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration={"scan_on_push": True},
            encryption_configurations=[{"encryption_type": "KMS", "kms_key": args.key.arn}],
            force_delete=environment.config.disposable,
            tags=environment.tags(),
            opts=pulumi.ResourceOptions(parent=self, protect=environment.protected),
        )
        # Tagged images stay: an environment may run one that many have followed.
        aws.ecr.LifecyclePolicy(
            image,
            repository=repository.name,
            policy=json.dumps(
                {
                    "rules": [
                        {
                            "rulePriority": 1,
                            "description": "Pushes that were never finished or have lost their tag",
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
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        return repository

    def image(self, image: str, digest: Digest | None) -> pulumi.Output[str] | None:
        """The full reference of an image by digest, or None when none is pinned."""
        if digest is None:
            return None
        url: pulumi.Output[str] = self.repositories[image].repository_url
        return url.apply(lambda known: f"{known}@{digest}")
