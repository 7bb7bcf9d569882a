"""The tables of an environment: Iceberg, in the Glue catalogue, in the lake bucket.

Everything goes through the standard AWS configuration: credentials, region and endpoints are those that boto3 finds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.data.clients import credentials, glue
from pipelines.data.columns import iceberg_type
from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import table_name

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot
    from pyiceberg.types import IcebergType

BATCH = "mlops.batch"
"""Snapshot property: digest of the landing file whose rows the snapshot added."""

PRIMARY_KEY = "mlops.primary-key"
"""Snapshot property: the columns by which rows were told apart when it was written, comma-separated. Kept with the
snapshot, so that its digest does not depend on a later contract."""

SOURCE = "mlops.source"
"""Snapshot property: key of the landing file."""

ETAG = "mlops.etag"
"""Snapshot property: ETag of the landing file, by which it is known again without reading it."""

CONTRACT = "mlops.contract"
"""Snapshot property: version of the contract that the rows were checked against."""


def open_catalog(descriptor: EnvironmentDescriptor) -> GlueCatalog:
    """The environment's catalogue.

    Raises:
        MlopsError: there are no AWS credentials.
    """
    from pyiceberg.catalog.glue import GlueCatalog

    # Arrow's own S3 client does not know all the places where boto3 finds credentials (EKS Pod Identity, SSO).
    frozen = credentials(descriptor)
    properties = {
        "warehouse": f"s3://{descriptor.lake_bucket}",
        "s3.region": descriptor.region,
        "s3.access-key-id": frozen.access_key,
        "s3.secret-access-key": frozen.secret_key,
        "s3.session-token": frozen.token,
        "s3.endpoint": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
    }
    properties["py-io-impl"] = "pipelines.data.files.TableFiles"
    given = {key: value for key, value in properties.items() if value}
    return GlueCatalog(descriptor.catalog_database, client=glue(descriptor), **given)


def open_table(descriptor: EnvironmentDescriptor, dataset: str) -> Table:
    """The table of a dataset, as it is now.

    Raises:
        MlopsError: the environment has no such table.
    """
    from pyiceberg.exceptions import NoSuchIcebergTableError, NoSuchPropertyException, NoSuchTableError

    name = (descriptor.catalog_database, table_name(dataset))
    try:
        return open_catalog(descriptor).load_table(name)
    except (NoSuchTableError, NoSuchIcebergTableError, NoSuchPropertyException):
        raise MlopsError(
            f"the catalogue of {descriptor.name} has no Iceberg table {'.'.join(name)}",
            fix=f"provision it: mlops up --env {descriptor.name} (the contract must be in data-contracts/)",
        ) from None


def read_version(
    descriptor: EnvironmentDescriptor, dataset: str, snapshot: str | None = None
) -> tuple[pa.Table, DatasetVersion]:
    """All rows of one version of a dataset, in the order of their primary key, and what names that version.

    Args:
        descriptor: the environment to read from.
        dataset: the contract's name.
        snapshot: id of an Iceberg snapshot; the latest when None.

    Returns:
        The rows, with the columns and types the table had at that version, and the version.

    Raises:
        MlopsError: there is no such table, no such snapshot, or no row in it.
    """
    from pipelines.data.digest import digest_of_rows, in_key_order

    table = open_table(descriptor, dataset)
    found = _snapshot(table, dataset, snapshot)
    key = _primary_key(table, found)
    rows = in_key_order(table.scan(snapshot_id=found.snapshot_id).to_arrow(), key).combine_chunks()
    if rows.num_rows == 0:
        raise MlopsError(f"snapshot {found.snapshot_id} of {dataset} has no rows", fix="ingest data first")
    version = DatasetVersion(
        dataset=dataset,
        table=f"{descriptor.catalog_database}.{table_name(dataset)}",
        snapshot=str(found.snapshot_id),
        content=digest_of_rows(rows, key),
        rows=rows.num_rows,
    )
    return rows, version


def _snapshot(table: Table, dataset: str, snapshot: str | None) -> Snapshot:
    if snapshot is None:
        current = table.current_snapshot()
        if current is None:
            raise MlopsError(f"{dataset} has no rows yet", fix=f"mlops ingest {dataset}")
        return current
    found = table.snapshot_by_id(int(snapshot)) if snapshot.isascii() and snapshot.isdigit() else None
    if found is None:
        known = ", ".join(str(entry.snapshot_id) for entry in table.snapshots()[-5:]) or "none"
        raise MlopsError(
            f"{dataset} has no snapshot {snapshot!r}", fix=f"the latest are {known}; older ones may have been expired"
        )
    return found


def _primary_key(table: Table, snapshot: Snapshot) -> tuple[str, ...]:
    """The key noted with the snapshot or, when another engine wrote it (a compaction), with the one before it."""
    at: Snapshot | None = snapshot
    while at is not None:
        noted = at.summary.additional_properties.get(PRIMARY_KEY) if at.summary is not None else None
        if noted:
            return tuple(noted.split(","))
        at = table.snapshot_by_id(at.parent_snapshot_id) if at.parent_snapshot_id is not None else None
    return ()


def tag_of(batch: str) -> str:
    """The tag of the snapshot that added a batch: `batch-` and the first 12 digits of its digest."""
    return f"batch-{batch.removeprefix('sha256:')[:12]}"


def find_batch(table: Table, batch: str) -> Snapshot | None:
    """The snapshot that added a batch, or None: then none of its rows is in the table."""
    for snapshot in table.snapshots():
        if snapshot.summary is not None and snapshot.summary.additional_properties.get(BATCH) == batch:
            return snapshot
    return None


def known_sources(table: Table) -> set[tuple[str, str]]:
    """Key and ETag of every landing file whose rows are in the table."""
    noted = [s.summary.additional_properties for s in table.snapshots() if s.summary is not None]
    return {
        (properties[SOURCE], properties[ETAG]) for properties in noted if SOURCE in properties and ETAG in properties
    }


def existing_keys(table: Table, key: tuple[str, ...]) -> pa.RecordBatchReader | None:
    """The primary keys in a table, as a stream; None when it has no rows."""
    if table.current_snapshot() is None:
        return None
    return table.scan(selected_fields=key).to_arrow_batch_reader()


def evolve(table: Table, contract: Contract) -> Table:
    """Add to a table the columns of a contract that it lacks, and widen those whose type became wider.

    Raises:
        MlopsError: a column has another type in the table, and the values there would have to change.
    """
    has = {field.name: field.field_type for field in table.schema().fields}
    lacks = [column for name, column in contract.columns.items() if name not in has]
    wider = []
    for column in contract.columns.values():
        old, new = has.get(column.name), iceberg_type(column)
        if old is None or old == new or _holds(old, new):
            continue
        if not _holds(new, old):
            raise MlopsError(
                f"the table of {contract.name} has the column {column.name!r} as {old}, and the contract as {new}",
                fix="a type can only become wider (int to long, float to double); name a new column instead",
            )
        wider.append(column)
    if lacks or wider:
        with table.update_schema() as update:
            for column in lacks:
                update.add_column(column.name, iceberg_type(column), doc=column.description)
            for column in wider:
                update.update_column(column.name, field_type=iceberg_type(column))
        table.refresh()
    return table


def _holds(stored: IcebergType, value: IcebergType) -> bool:
    """Whether a column of one type can take every value of another as it is."""
    from pyiceberg.exceptions import ResolveError
    from pyiceberg.schema import promote
    from pyiceberg.types import TimestampType, TimestamptzType

    if isinstance(stored, TimestamptzType) and isinstance(value, TimestampType):
        return True  # ours are in UTC
    try:
        promote(value, stored)
    except ResolveError:
        return False
    return True


def append(
    descriptor: EnvironmentDescriptor,
    table: Table,
    rows: pa.RecordBatchReader,
    batch: str,
    properties: Mapping[str, str],
) -> str:
    """Add rows to a table and tag the snapshot, in one commit: either all of it happened, or nothing.

    A commit that loses against another one is not tried again here: what was checked against the table (is the batch
    in it, are its keys) may no longer hold.

    Args:
        descriptor: the environment.
        table: the table, as it was when the rows were checked.
        rows: with columns of the table; read as a stream.
        batch: digest of the landing file.
        properties: noted with the snapshot, besides the batch.

    Returns:
        The new snapshot's id.

    Raises:
        pyiceberg.exceptions.CommitFailedException: another commit came first.
    """
    from pyiceberg.table import Table as IcebergTable
    from pyiceberg.table import TableProperties
    from pyiceberg.table.update.snapshot import ManageSnapshots

    from pipelines.data.files import write_data_files

    # Only in this process's copy: other writers of the table keep their own setting.
    settings = {**table.metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
    once = IcebergTable(
        identifier=table.name(),
        metadata=table.metadata.model_copy(update={"properties": settings}),
        metadata_location=table.metadata_location,
        io=table.io,
        catalog=table.catalog,
    )
    paths = write_data_files(descriptor, table, rows)
    with once.transaction() as transaction:
        transaction.add_files(paths, {BATCH: batch, **properties}, check_duplicate_files=False)
        added: Any = transaction.table_metadata.current_snapshot_id
        with ManageSnapshots(transaction) as manage:
            manage.create_tag(added, tag_of(batch))
    return str(added)
