"""Data storage: the encryption key, the buckets, and the Glue database with one Iceberg table per contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.components.bucket import Bucket, BucketArgs, access_log_bucket
from infra.components.glue_columns import glue_type
from infra.components.key import Key, KeyArgs
from infra.scopes import Environment
from pipelines.declarations.contract import Contract
from pipelines.declarations.names import table_name


@dataclass(frozen=True, kw_only=True)
class StorageArgs:
    """Arguments of `Storage`.

    Attributes:
        environment: the environment that the storage belongs to.
        contracts: the contracts to create tables for.
    """

    environment: Environment
    contracts: Sequence[Contract]


class Storage(pulumi.ComponentResource):
    """The data storage of an environment.

    Attributes:
        key: the KMS key that encrypts all data at rest.
        access_logs: S3 access logs of the other buckets.
        landing: landing files.
        lake: Iceberg tables and quarantined rows.
        logs: inference logs, lineage events and reports of monitors.
        database: the Glue database.
    """

    def __init__(self, name: str, args: StorageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mlops:storage:Storage", name, None, opts)
        environment = args.environment
        log_days = environment.config.log_days
        child = pulumi.ResourceOptions(parent=self)
        self.key = Key(
            "data",
            KeyArgs(
                scope=environment,
                description=f"Encrypts the data of {environment.prefix} at rest",
                alias=f"alias/{environment.prefix}-data",
            ),
            child,
        )
        self.access_logs = Bucket("access-logs", access_log_bucket(environment, "access-logs", log_days), child)

        def bucket(purpose: str, **expires_days: int) -> Bucket:
            return Bucket(
                purpose,
                BucketArgs(
                    scope=environment,
                    key_arn=self.key.arn,
                    access_logs=self.access_logs,
                    expires_days={f"{prefix}/": days for prefix, days in expires_days.items()},
                ),
                child,
            )

        self.landing = bucket("landing")
        self.lake = bucket("lake")
        self.logs = bucket("logs", inference=log_days, lineage=log_days, monitoring=log_days)
        self.database = aws.glue.CatalogDatabase(
            "lake",
            name=environment.catalog_database,
            description=f"The datasets of {environment.prefix}, one table per contract",
            location_uri=f"s3://{self.lake.name}/{environment.catalog_database}",
            tags=environment.tags(),
            opts=pulumi.ResourceOptions.merge(child, pulumi.ResourceOptions(protect=environment.protected)),
        )
        for contract in args.contracts:
            self._table(environment, contract)
        self.register_outputs({"key": self.key.arn, "database": self.database.name})

    def _table(self, environment: Environment, contract: Contract) -> None:
        """Create the Iceberg table of a contract.

        Glue writes the first metadata. After that, only ingestion commits to the table, so changes of the columns are
        ignored here: an update through Glue would drop the pointer to the newest metadata and break the table. A
        column added to the contract reaches the table with the next batch.
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
