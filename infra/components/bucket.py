"""A bucket as every bucket here is: private, encrypted, versioned, logged, and cleaned up after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.environment import Place
from infra.policies.exemptions import exemptions

Statement = Mapping[str, Any]

_ABANDONED_UPLOAD_DAYS = 7


@dataclass(frozen=True)
class BucketArgs:
    """What tells one bucket from another.

    Attributes:
        place: where it lives.
        key_arn: of the KMS key that encrypts it; None for keys of S3 itself.
        access_logs: the bucket that gets its access logs; None: it keeps none.
        lock_days: days during which Object Lock lets nobody delete or overwrite a version; None: no Object Lock.
        expires_days: prefix → days after which its objects end.
        statements: what its policy says besides refusing plain HTTP.
        exempt: rule → reason, for each rule of `infra/policies` that it does not keep.
    """

    place: Place
    key_arn: pulumi.Input[str] | None
    access_logs: Bucket | None
    lock_days: int | None = None
    expires_days: Mapping[str, int] = field(default_factory=dict)
    statements: Sequence[Statement] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)


class Bucket(pulumi.ComponentResource):
    """A bucket and its settings.

    Attributes:
        name: its name.
        arn: its ARN, known before it exists.
        key_arn: of the key that encrypts it, or None.
        ready: depend on these before using it: what is written earlier is not encrypted with the key.
    """

    def __init__(self, purpose: str, args: BucketArgs, *, parent: pulumi.Resource) -> None:
        super().__init__(
            "mlops:storage:Bucket", purpose, exemptions(args.exempt), pulumi.ResourceOptions(parent=parent)
        )
        place = args.place
        self.region = place.region
        self.name = place.bucket_name(purpose)
        self.arn = f"arn:{place.partition}:s3:::{self.name}"
        self.key_arn = args.key_arn

        def child(*after: pulumi.Resource) -> pulumi.ResourceOptions:
            return pulumi.ResourceOptions(parent=self, depends_on=list(after))

        bucket = aws.s3.Bucket(
            purpose,
            bucket=self.name,
            force_destroy=place.config.disposable,
            object_lock_enabled=args.lock_days is not None,
            tags=place.tags(),
            opts=pulumi.ResourceOptions(parent=self, protect=place.protected),
        )
        private = aws.s3.BucketPublicAccessBlock(
            purpose,
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child(),
        )
        owned = aws.s3.BucketOwnershipControls(
            purpose, bucket=bucket.id, rule={"object_ownership": "BucketOwnerEnforced"}, opts=child()
        )
        encrypted = aws.s3.BucketServerSideEncryptionConfiguration(
            purpose, bucket=bucket.id, rules=[_encryption(args.key_arn)], opts=child()
        )
        versioned = aws.s3.BucketVersioning(
            purpose, bucket=bucket.id, versioning_configuration={"status": "Enabled"}, opts=child()
        )
        if args.lock_days is not None:
            # Governance can be lifted by who may; where data must outlive everybody, nobody may.
            mode = "GOVERNANCE" if place.config.disposable else "COMPLIANCE"
            aws.s3.BucketObjectLockConfiguration(
                purpose,
                bucket=bucket.id,
                rule={"default_retention": {"mode": mode, "days": args.lock_days}},
                opts=child(versioned),
            )
        aws.s3.BucketLifecycleConfiguration(
            purpose,
            bucket=bucket.id,
            rules=_lifecycle(place.config.noncurrent_days, args.expires_days),
            opts=child(versioned),
        )
        policy = aws.s3.BucketPolicy(
            purpose,
            bucket=bucket.id,
            policy=pulumi.Output.json_dumps(
                {"Version": "2012-10-17", "Statement": [_only_tls(self.arn), *args.statements]}
            ),
            # S3 refuses two changes of a bucket's access at once.
            opts=child(private, owned),
        )
        if args.access_logs is not None:
            aws.s3.BucketLogging(
                purpose,
                bucket=bucket.id,
                target_bucket=args.access_logs.name,
                target_prefix=f"s3-access/{purpose}/",
                opts=child(*args.access_logs.ready),
            )
        self.ready: tuple[pulumi.Resource, ...] = (policy, encrypted)
        self.register_outputs({"name": bucket.bucket, **(exemptions(args.exempt) or {})})


def _encryption(key_arn: pulumi.Input[str] | None) -> dict[str, Any]:
    if key_arn is None:
        return {"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}
    return {
        "apply_server_side_encryption_by_default": {"sse_algorithm": "aws:kms", "kms_master_key_id": key_arn},
        "bucket_key_enabled": True,  # one call of KMS for many objects
    }


def _lifecycle(noncurrent_days: int, expires_days: Mapping[str, int]) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [
        {
            "id": "clean-up",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "abort_incomplete_multipart_upload": {"days_after_initiation": _ABANDONED_UPLOAD_DAYS},
            "noncurrent_version_expiration": {"noncurrent_days": noncurrent_days},
        }
    ]
    for prefix, days in expires_days.items():
        rules.append(
            {
                "id": f"expire-{prefix.strip('/') or 'all'}",
                "status": "Enabled",
                "filter": {"prefix": prefix},
                "expiration": {"days": days},
            }
        )
    return rules


def _only_tls(arn: str) -> Statement:
    return {
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
