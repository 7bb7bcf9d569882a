"""What a workload may do, as statements of its policy.

A grant on an encrypted bucket always comes with the grant on its key, which is good for that bucket and through S3
only. Nothing here can delete.
"""

from __future__ import annotations

from typing import Any

import pulumi

from infra.components.bucket import Bucket
from infra.environment import Environment

Statements = list[dict[str, Any]]

_READ = ("kms:Decrypt",)
_WRITE = ("kms:GenerateDataKey", "kms:Decrypt")  # S3 reads the parts of a large upload back to join them


def read_prefix(bucket: Bucket, *prefixes: str) -> Statements:
    """Read the objects under prefixes (`bundles/fraud/`), and see which there are."""
    return [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{bucket.arn}/{prefix}*" for prefix in prefixes]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [bucket.arn],
            "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
        },
        *_key_of(bucket, _READ),
    ]


def write_prefix(bucket: Bucket, *prefixes: str) -> Statements:
    """Write objects under prefixes, without reading them."""
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": [f"{bucket.arn}/{prefix}*" for prefix in prefixes],
        },
        *_key_of(bucket, _WRITE),
    ]


def _key_of(bucket: Bucket, actions: tuple[str, ...]) -> Statements:
    if bucket.key_arn is None:
        return []
    return [
        {
            "Effect": "Allow",
            "Action": list(actions),
            "Resource": [bucket.key_arn],
            "Condition": {
                "StringEquals": {"kms:ViaService": f"s3.{bucket.region}.amazonaws.com"},
                # With a bucket key S3 names the bucket, without one the object.
                "StringLike": {"kms:EncryptionContext:aws:s3:arn": [bucket.arn, f"{bucket.arn}/*"]},
            },
        }
    ]


def sign(key_arn: pulumi.Input[str]) -> Statements:
    """Sign messages of up to 4,096 bytes with a key of type ECC_NIST_P256."""
    return [
        {
            "Effect": "Allow",
            "Action": ["kms:Sign"],
            "Resource": [key_arn],
            "Condition": {"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256", "kms:MessageType": "RAW"}},
        }
    ]


def read_table(environment: Environment, table: str) -> Statements:
    """Find a table in the catalogue."""
    return _glue(environment, table, "glue:GetDatabase", "glue:GetTable")


def commit_table(environment: Environment, table: str) -> Statements:
    """Find a table in the catalogue, and point it at a new version."""
    return _glue(environment, table, "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable")


def _glue(environment: Environment, table: str, *actions: str) -> Statements:
    # Glue asks for the permission on the table, its database and the catalogue alike; only the table is a table.
    database = environment.catalog_database
    return [
        {
            "Effect": "Allow",
            "Action": list(actions),
            "Resource": [
                environment.arn("glue", "catalog"),
                environment.arn("glue", f"database/{database}"),
                environment.arn("glue", f"table/{database}/{table}"),
            ],
        }
    ]
