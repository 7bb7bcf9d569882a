"""IAM policy statements for workloads.

Access to an encrypted bucket always includes access to its key, limited to that bucket and to requests through S3.
No statement allows deleting a version of an object.
"""

from __future__ import annotations

from typing import Any

import pulumi

from infra.components.bucket import Bucket
from infra.scopes import Environment
from pipelines.declarations.alarm_events import ALARM_EVENT, alarm_source

Statements = list[dict[str, Any]]

_READ = ("kms:Decrypt",)
_WRITE = ("kms:GenerateDataKey", "kms:Decrypt")  # S3 decrypts the parts of a multipart upload to join them


def read_prefix(bucket: Bucket, *prefixes: str) -> Statements:
    """Allow reading and listing the objects under key prefixes (`bundles/fraud/`)."""
    return [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{bucket.arn}/{prefix}*" for prefix in prefixes]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [bucket.arn],
            "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
        },
        *_use_key(bucket, _READ),
    ]


def list_versions(bucket: Bucket, *prefixes: str) -> Statements:
    """Allow listing the versions of objects under key prefixes, which the reader of a ledger looks at."""
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucketVersions"],
            "Resource": [bucket.arn],
            "Condition": {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
        }
    ]


def write_prefix(bucket: Bucket, *prefixes: str) -> Statements:
    """Allow writing objects under key prefixes, but not reading them."""
    return write_matching(bucket, *(f"{prefix}*" for prefix in prefixes))


def write_matching(bucket: Bucket, *patterns: str) -> Statements:
    """Allow writing objects whose keys match patterns (`inference/fraud/*.jsonl`), but not reading them."""
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload"],
            "Resource": [f"{bucket.arn}/{pattern}" for pattern in patterns],
        },
        *_use_key(bucket, _WRITE),
    ]


def delete_from_prefix(bucket: Bucket, *prefixes: str, ending: str = "") -> Statements:
    """Allow deleting objects under key prefixes, if their keys end in `ending`.

    Their former versions stay, because the bucket keeps versions.
    """
    resources = [f"{bucket.arn}/{prefix}*{ending}" for prefix in prefixes]
    return [{"Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": resources}]


def read_manifests(registry: Bucket) -> Statements:
    """Allow reading the manifests of all bundles in a registry, but none of their other files."""
    return [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{registry.arn}/bundles/*/bundle.json"]},
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [registry.arn],
            "Condition": {"StringLike": {"s3:prefix": ["bundles/*"]}},
        },
        *_use_key(registry, _READ),
    ]


def add_to_prefix(bucket: Bucket, *prefixes: str, ending: str = "") -> Statements:
    """Allow writing new objects under key prefixes, but neither reading nor replacing any.

    Their keys must end in `ending`.
    A write must be conditional on the absence of the object (Amazon S3 user guide, "Enforce conditional writes"), which
    leaves out multipart uploads.
    """
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject"],
            "Resource": [f"{bucket.arn}/{prefix}*{ending}" for prefix in prefixes],
            "Condition": {"Null": {"s3:if-none-match": "false"}},
        },
        *_use_key(bucket, _WRITE),
    ]


def _use_key(bucket: Bucket, actions: tuple[str, ...]) -> Statements:
    if bucket.key_arn is None:
        return []
    return [
        {
            "Effect": "Allow",
            "Action": list(actions),
            "Resource": [bucket.key_arn],
            "Condition": {
                "StringEquals": {"kms:ViaService": f"s3.{bucket.region}.amazonaws.com"},
                # The encryption context names the bucket with a bucket key, and the object without one.
                "StringLike": {"kms:EncryptionContext:aws:s3:arn": [bucket.arn, f"{bucket.arn}/*"]},
            },
        }
    ]


def sign(key_arn: pulumi.Input[str]) -> Statements:
    """Allow signing messages of up to 4,096 bytes with an ECC_NIST_P256 key."""
    return [
        {
            "Effect": "Allow",
            "Action": ["kms:Sign"],
            "Resource": [key_arn],
            "Condition": {"StringEquals": {"kms:SigningAlgorithm": "ECDSA_SHA_256", "kms:MessageType": "RAW"}},
        }
    ]


def publish_metrics(namespace: str) -> Statements:
    """Allow sending metrics to one CloudWatch namespace."""
    return [
        {
            "Effect": "Allow",
            "Action": ["cloudwatch:PutMetricData"],
            "Resource": ["*"],  # the action accepts no resource
            "Condition": {"StringEquals": {"cloudwatch:namespace": namespace}},
        }
    ]


def send_alarms(environment: Environment, model: str) -> Statements:
    """Allow sending alarms to EventBridge in the name of one model's monitor."""
    return [
        {
            "Effect": "Allow",
            "Action": ["events:PutEvents"],
            "Resource": [environment.arn("events", "event-bus/default")],
            "Condition": {
                "ForAllValues:StringEquals": {
                    "events:source": [alarm_source(environment.prefix, model)],
                    "events:detail-type": [ALARM_EVENT],
                },
                "Null": {"events:source": "false"},
            },
        }
    ]


def read_table(environment: Environment, table: str) -> Statements:
    """Allow looking up a table in the Glue catalog."""
    return _glue(environment, table, "glue:GetDatabase", "glue:GetTable")


def commit_table(environment: Environment, table: str) -> Statements:
    """Allow looking up a table in the Glue catalog and committing a new version."""
    return _glue(environment, table, "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable")


def make_and_commit_table(environment: Environment, table: str) -> Statements:
    """Allow what `commit_table` allows, and making that table in the Glue catalog."""
    return _glue(environment, table, "glue:CreateTable", "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable")


def _glue(environment: Environment, table: str, *actions: str) -> Statements:
    # Glue requires the permission on the catalog and the database as well as on the table.
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
