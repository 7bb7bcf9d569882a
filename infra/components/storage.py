"""Where data lives: the key, the buckets, and the catalogue with a table for each contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.components.bucket import Bucket, BucketArgs, Statement
from infra.components.columns import glue_type
from infra.environment import Environment, Place
from pipelines.declarations.contract import Contract
from pipelines.declarations.names import table_name

DELETION_WINDOW_DAYS = 30
"""The longest that KMS offers: what is encrypted with a deleted key is lost."""


@dataclass(frozen=True)
class StorageArgs:
    """What is stored where.

    Attributes:
        environment: where it lives.
        contracts: each gets a table.
    """

    environment: Environment
    contracts: Sequence[Contract]


class Storage(pulumi.ComponentResource):
    """The storage of an environment.

    Attributes:
        key: encrypts everything at rest.
        access_logs: who read and wrote which object of the other buckets.
        landing: where batches of data arrive.
        lake: the tables, and the rows that were refused.
        logs: what was predicted, and lineage.
        database: of the Glue catalogue.
    """

    def __init__(self, name: str, args: StorageArgs) -> None:
        super().__init__("mlops:storage:Storage", name)
        environment = args.environment
        self.key = aws.kms.Key(
            "data",
            description=f"Encrypts the data of {environment.prefix} at rest",
            enable_key_rotation=True,
            deletion_window_in_days=DELETION_WINDOW_DAYS,
            policy=pulumi.Output.json_dumps(account_decides(environment)),
            tags=environment.tags(),
            opts=pulumi.ResourceOptions(parent=self, protect=environment.protected),
        )
        aws.kms.Alias(
            "data",
            name=f"alias/{environment.prefix}-data",
            target_key_id=self.key.key_id,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.access_logs = Bucket(
            "access-logs", access_logs(environment, "access-logs", environment.config.log_days), parent=self
        )
        self.landing = Bucket("landing", BucketArgs(environment, self.key.arn, self.access_logs), parent=self)
        self.lake = Bucket("lake", BucketArgs(environment, self.key.arn, self.access_logs), parent=self)
        self.logs = Bucket(
            "logs",
            BucketArgs(
                environment,
                self.key.arn,
                self.access_logs,
                expires_days={"inference/": environment.config.log_days, "lineage/": environment.config.log_days},
            ),
            parent=self,
        )
        self.database = aws.glue.CatalogDatabase(
            "lake",
            name=environment.catalog_database,
            description=f"The datasets of {environment.prefix}, a table for each contract",
            location_uri=f"s3://{self.lake.name}/{environment.catalog_database}",
            tags=environment.tags(),
            opts=pulumi.ResourceOptions(parent=self, protect=environment.protected),
        )
        for contract in args.contracts:
            self._table(environment, contract)
        self.register_outputs({"key": self.key.arn, "database": self.database.name})

    def _table(self, environment: Environment, contract: Contract) -> None:
        """The Iceberg table of a contract. Glue writes its first metadata; after that every commit is ingest's.

        What a commit changes is not ours to change back: an update through the catalogue would leave the metadata
        behind and break the table. A contract that grows a column reaches the table with the next batch.
        """
        table = table_name(contract.name)
        aws.glue.CatalogTable(
            contract.name,
            database_name=self.database.name,
            name=table,
            table_type="EXTERNAL_TABLE",
            description=(contract.description or {}).get("purpose"),
            open_table_format_input={"iceberg_input": {"metadata_operation": "CREATE", "version": "2"}},
            storage_descriptor={
                "location": f"s3://{self.lake.name}/{environment.catalog_database}/{table}",
                "columns": [
                    {"name": column.name, "type": glue_type(column), "comment": column.description}
                    for column in contract.columns.values()
                ],
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=environment.protected,
                depends_on=self.lake.ready,
                ignore_changes=["description", "openTableFormatInput", "parameters", "storageDescriptor", "tableType"],
            ),
        )


def account_decides(place: Place) -> dict[str, Any]:
    """A key policy that leaves it to the IAM policies of the account who may use the key; nobody outside can."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "AccountDecides",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{place.partition}:iam::{place.account}:root"},
                "Action": "kms:*",
                "Resource": "*",
            }
        ],
    }


def access_logs(place: Place, purpose: str, days: int) -> BucketArgs:
    """A bucket that S3 delivers the access logs of the buckets beside it to.

    Args:
        purpose: of the bucket.
        days: that logs are kept.
    """
    return BucketArgs(
        place,
        key_arn=None,
        access_logs=None,
        expires_days={"s3-access/": days},
        statements=[_log_delivery(place, purpose)],
        exempt={
            "s3-encrypted-with-customer-key": "S3 delivers access logs to buckets with SSE-S3 only",
            "s3-access-logged": "a bucket that logs its own deliveries never stops logging",
        },
    )


def _log_delivery(place: Place, purpose: str) -> Statement:
    return {
        "Sid": "LogDelivery",
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"arn:{place.partition}:s3:::{place.bucket_name(purpose)}/*",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": place.account},
            "ArnLike": {"aws:SourceArn": f"arn:{place.partition}:s3:::{place.prefix}-*"},
        },
    }
