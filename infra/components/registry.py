"""The registry of an environment: bundles, evidence, the ledger and the signing key."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.bucket import Bucket, BucketArgs
from infra.components.key import Key, KeyArgs
from infra.components.storage import Storage
from infra.scopes import Environment


@dataclass(frozen=True, kw_only=True)
class RegistryArgs:
    """Arguments of `Registry`.

    Attributes:
        environment: the environment that the registry belongs to.
        storage: provides the encryption key and the bucket for access logs.
    """

    environment: Environment
    storage: Storage


class Registry(pulumi.ComponentResource):
    """The registry of an environment.

    Attributes:
        bucket: bundles, evidence and the ledger. Object Lock retains every version.
        signing_key: the key that signs the environment's statements.
        public_key: the signing key's public key, PEM.
    """

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:registry:Registry", name, None, opts)
        environment, storage = args.environment, args.storage
        child = pulumi.ResourceOptions(parent=self)
        self.bucket = Bucket(
            "registry",
            BucketArgs(
                scope=environment,
                key_arn=storage.key.arn,
                access_logs=storage.access_logs,
                lock_days=environment.config.retention_days,
            ),
            child,
        )
        self.signing_key = Key(
            "signing",
            KeyArgs(
                scope=environment,
                description=f"Signs the evidence and the promotions of {environment.prefix}",
                alias=f"alias/{environment.prefix}-signing",
                use="sign",
            ),
            child,
        )
        self.public_key: pulumi.Output[str] = aws.kms.get_public_key_output(
            key_id=self.signing_key.key_id, opts=pulumi.InvokeOutputOptions(parent=self)
        ).public_key_pem
        self.register_outputs({"bucket": self.bucket.name, "signing_key": self.signing_key.arn})
