"""S3 buckets: private, encrypted, versioned, access-logged and cleaned up by lifecycle rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.policies.exemptions import exemptions
from infra.scopes import BOOTSTRAP_PATH, MAY_CHANGE_PROTECTION, Scope

Statement = Mapping[str, Any]

_ABANDONED_UPLOAD_DAYS = 7

_PROTECTION = (
    "s3:DeleteBucketPolicy",
    "s3:PutBucketAcl",
    "s3:PutBucketLogging",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketOwnershipControls",
    "s3:PutBucketPolicy",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketVersioning",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:PutReplicationConfiguration",
)
"""Actions that change who reaches a bucket's objects, and how long they are kept."""


@dataclass(frozen=True, kw_only=True)
class BucketArgs:
    """Arguments of `Bucket`.

    Attributes:
        scope: the scope that the bucket belongs to.
        key_arn: ARN of the KMS key that encrypts the bucket; None for SSE-S3.
        access_logs: the bucket that receives the access logs; None to log no access.
        lock_days: days that Object Lock retains every version; None for no Object Lock.
        expires_days: key prefix → days after which its objects expire.
        statements: statements to add to the bucket policy, which always refuses plain HTTP and seals the settings.
        exempt: rule id → reason, for each rule of `infra/policies` that the bucket breaks.
    """

    scope: Scope
    key_arn: pulumi.Input[str] | None
    access_logs: Bucket | None
    lock_days: int | None = None
    expires_days: Mapping[str, int] = field(default_factory=dict)
    statements: Sequence[Statement] = ()
    exempt: Mapping[str, str] = field(default_factory=dict)


class Bucket(pulumi.ComponentResource):
    """A bucket and its settings.

    The bucket policy is written last, and seals the settings: from then on, no role of the bootstrap can change them
    unless an administrator opens it (decision 0028).

    Attributes:
        name: the bucket's name, known before the bucket exists.
        arn: the bucket's ARN, known before the bucket exists.
        region: the bucket's region.
        key_arn: ARN of the key that encrypts the bucket, or None.
        ready: resources to depend on before writing to the bucket. Earlier writes are not encrypted with the key.
    """

    def __init__(self, purpose: str, args: BucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:storage:Bucket", purpose, None, opts)
        scope = args.scope
        self.region = scope.region
        self.name = scope.bucket_name(purpose)
        self.arn = f"arn:{scope.partition}:s3:::{self.name}"
        self.key_arn = args.key_arn
        child = pulumi.ResourceOptions(parent=self)

        def after(*resources: pulumi.Resource) -> pulumi.ResourceOptions:
            return pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(depends_on=list(resources)))

        bucket = aws.s3.Bucket(
            purpose,
            bucket=self.name,
            force_destroy=scope.config.disposable,
            object_lock_enabled=args.lock_days is not None,
            tags=scope.tags(),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=scope.protected)),
        )
        private = aws.s3.BucketPublicAccessBlock(
            purpose,
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        owned = aws.s3.BucketOwnershipControls(
            purpose, bucket=bucket.id, rule={"object_ownership": "BucketOwnerEnforced"}, opts=child
        )
        encrypted = aws.s3.BucketServerSideEncryptionConfiguration(
            purpose, bucket=bucket.id, rules=[_encryption(args.key_arn)], opts=child
        )
        versioned = aws.s3.BucketVersioning(
            purpose, bucket=bucket.id, versioning_configuration={"status": "Enabled"}, opts=child
        )
        settings: list[pulumi.Resource] = [private, owned, encrypted, versioned]
        if args.lock_days is not None:
            # A privileged role can lift GOVERNANCE. Nobody can lift COMPLIANCE, not even the root user.
            mode = "GOVERNANCE" if scope.config.disposable else "COMPLIANCE"
            lock = aws.s3.BucketObjectLockConfiguration(
                purpose,
                bucket=bucket.id,
                rule={"default_retention": {"mode": mode, "days": args.lock_days}},
                opts=after(versioned),
            )
            settings.append(lock)
        lifecycle = aws.s3.BucketLifecycleConfiguration(
            purpose,
            bucket=bucket.id,
            rules=_lifecycle(scope.config.noncurrent_days, args.expires_days),
            opts=after(versioned),
        )
        settings.append(lifecycle)
        if args.access_logs is not None:
            logging = aws.s3.BucketLogging(
                purpose,
                bucket=bucket.id,
                target_bucket=args.access_logs.name,
                target_prefix=f"s3-access/{purpose}/",
                opts=after(*args.access_logs.ready),
            )
            settings.append(logging)
        policy = aws.s3.BucketPolicy(
            purpose,
            bucket=bucket.id,
            policy=pulumi.Output.json_dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [_deny_http(self.arn), _seal(scope, self.arn), *args.statements],
                }
            ),
            opts=after(*settings),
        )
        self.ready: tuple[pulumi.Resource, ...] = (policy, encrypted)
        self.register_outputs({"name": bucket.bucket, **exemptions(args.exempt)})


def access_log_bucket(scope: Scope, purpose: str, days: int) -> BucketArgs:
    """Return the arguments of a bucket that receives the S3 access logs of its scope.

    Args:
        scope: the scope whose buckets are logged.
        purpose: the bucket's purpose, the last part of its name.
        days: days to keep the logs.
    """
    return BucketArgs(
        scope=scope,
        key_arn=None,
        access_logs=None,
        expires_days={"s3-access/": days},
        statements=[_log_delivery(scope, purpose)],
        exempt={
            "s3-encrypted-with-customer-key": "S3 delivers access logs only to buckets with SSE-S3",
            "s3-access-logged": "logging the deliveries of logs would never end",
        },
    )


def _encryption(key_arn: pulumi.Input[str] | None) -> dict[str, Any]:
    if key_arn is None:
        return {"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}
    return {
        "apply_server_side_encryption_by_default": {"sse_algorithm": "aws:kms", "kms_master_key_id": key_arn},
        "bucket_key_enabled": True,  # one KMS call serves many objects
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


def _deny_http(arn: str) -> Statement:
    return {
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def _seal(scope: Scope, arn: str) -> Statement:
    """Deny the roles of GitHub jobs to change the bucket's protection, unless the bootstrap lets them by a tag."""
    tag, value = MAY_CHANGE_PROTECTION
    return {
        "Sid": "Sealed",
        "Effect": "Deny",
        "Principal": {"AWS": "*"},
        "Action": list(_PROTECTION),
        "Resource": arn,
        "Condition": {
            "ArnLike": {"aws:PrincipalArn": f"arn:{scope.partition}:iam::{scope.account}:role{BOOTSTRAP_PATH}*"},
            "StringNotEquals": {f"aws:PrincipalTag/{tag}": value},
        },
    }


def _log_delivery(scope: Scope, purpose: str) -> Statement:
    return {
        "Sid": "LogDelivery",
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"arn:{scope.partition}:s3:::{scope.bucket_name(purpose)}/*",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": scope.account},
            "ArnLike": {"aws:SourceArn": f"arn:{scope.partition}:s3:::{scope.prefix}-*"},
        },
    }
