"""Iceberg tables of an environment, in the Glue catalogue and the lake bucket.

Credentials, region and endpoints come from the standard AWS configuration, as boto3 finds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pipelines.data.columns import iceberg_type
from pipelines.data.glue_client import credentials, glue
from pipelines.declarations.bundle import DatasetVersion
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import PREDICTIONS_SUFFIX, table_name

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot
    from pyiceberg.types import IcebergType

BATCH = "mlops.batch"
"""Snapshot property: digest of the landing file that the snapshot added."""

PRIMARY_KEY = "mlops.primary-key"
"""Snapshot property: primary key columns at the time of writing, comma-separated.

Stored with the snapshot so that its digest does not depend on later contracts."""

SOURCE = "mlops.source"
"""Snapshot property: key of the landing file."""

ETAG = "mlops.etag"
"""Snapshot property: ETag of the landing file, to recognise it without reading it."""

CONTRACT = "mlops.contract"
"""Snapshot property: version of the contract that checked the rows."""

BUNDLE = "mlops.bundle"
"""Snapshot property of predictions: digest of the bundle that predicted."""

INPUT = "mlops.input"
"""Snapshot property of predictions: `<dataset>@<snapshot>` that was predicted, or the digest of a file."""

RUN = "mlops.run"
"""Snapshot property: identifies the run of the ingest job, whose batches are one delivery."""


class MissingTableError(MlopsError):
    """The catalogue has no table of a dataset."""


class TablePlace(Protocol):
    """Where the tables of an environment are: an `EnvironmentDescriptor`, or a `DeclaredTables`."""

    @property
    def name(self) -> str:
        """Name of the environment."""

    @property
    def region(self) -> str:
        """AWS region."""

    @property
    def lake_bucket(self) -> str:
        """Bucket of the tables."""

    @property
    def catalog_database(self) -> str:
        """Glue database of the tables."""


@dataclass(frozen=True)
class DeclaredTables:
    """Tables of an environment whose names follow from the declarations.

    Attributes:
        name: name of the environment.
        region: AWS region.
        lake_bucket: bucket of the tables.
        catalog_database: Glue database of the tables.
    """

    name: str
    region: str
    lake_bucket: str
    catalog_database: str


MOST_EVOLUTIONS = 5
"""Maximum number of attempts to update a schema while other writers update it."""

REQUEST_SECONDS = 20
"""Seconds without data after which a request to S3 fails. Arrow's 3 s are too few on a busy machine."""

KEPT_HISTORY = "mlops.kept-history"
"""Table property: comma-separated ids of the snapshots that an expiry has kept and whose rows the table had then.

pyiceberg drops the parent of a snapshot when the parent expires, so the property tells those that are included from
those that the table was rolled back from."""


def open_catalog(descriptor: TablePlace) -> GlueCatalog:
    """Open the Glue catalogue of an environment.

    Raises:
        MlopsError: there are no AWS credentials.
    """
    from pyiceberg.catalog.glue import GlueCatalog

    # Arrow's S3 client does not support every credential provider of boto3 (EKS Pod Identity, SSO).
    frozen = credentials(descriptor)
    properties = {
        "warehouse": f"s3://{descriptor.lake_bucket}",
        "s3.region": descriptor.region,
        "s3.access-key-id": frozen.access_key,
        "s3.secret-access-key": frozen.secret_key,
        "s3.session-token": frozen.token,
        "s3.request-timeout": str(REQUEST_SECONDS),
        "s3.endpoint": os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
    }
    properties["py-io-impl"] = "pipelines.data.data_files.TableFiles"
    given = {key: value for key, value in properties.items() if value}
    return GlueCatalog(descriptor.catalog_database, client=glue(descriptor), **given)


def open_table(descriptor: TablePlace, dataset: str) -> Table:
    """Open the table of a dataset at its current version.

    Raises:
        MissingTableError: the environment has no such table.
    """
    from pyiceberg.exceptions import NoSuchIcebergTableError, NoSuchPropertyException, NoSuchTableError

    name = (descriptor.catalog_database, table_name(dataset))
    try:
        return open_catalog(descriptor).load_table(name)
    except (NoSuchTableError, NoSuchIcebergTableError, NoSuchPropertyException):
        fix = f"provision it: mlops up --env {descriptor.name} (the contract must be in data-contracts/)"
        if dataset.endswith(PREDICTIONS_SUFFIX):
            model = dataset.removesuffix(PREDICTIONS_SUFFIX)
            fix = f"the first batch prediction makes it: mlops predict {model} --file FILE --env {descriptor.name}"
        raise MissingTableError(
            f"the catalogue of {descriptor.name} has no Iceberg table {'.'.join(name)}", fix=fix
        ) from None


def has_table(descriptor: TablePlace, dataset: str) -> bool:
    """Return True if an environment has the table of a dataset."""
    try:
        open_table(descriptor, dataset)
    except MissingTableError:
        return False
    return True


def open_or_make_table(descriptor: TablePlace, contract: Contract) -> Table:
    """Open the table of a dataset that no program provisions; make it first if there is none.

    Raises:
        MlopsError: there are no AWS credentials.
    """
    from pyiceberg.exceptions import TableAlreadyExistsError

    from pipelines.data.columns import iceberg_schema

    try:
        return open_table(descriptor, contract.name)
    except MissingTableError:
        table = table_name(contract.name)
        with suppress(TableAlreadyExistsError):  # another job was faster
            return open_catalog(descriptor).create_table(
                (descriptor.catalog_database, table),
                iceberg_schema(contract),
                location=f"s3://{descriptor.lake_bucket}/{descriptor.catalog_database}/{table}",
                properties={"format-version": "2"},
            )
        return open_table(descriptor, contract.name)


def schema_of(table: Table, snapshot: Snapshot) -> Schema:
    """Return the columns that a table had in a snapshot; its present ones if the snapshot does not say it."""
    known = snapshot.schema_id
    return table.schema() if known is None else table.schemas().get(known, table.schema())


def latest_columns(descriptor: EnvironmentDescriptor, dataset: str) -> tuple[str, frozenset[str]] | None:
    """Return the id of the latest snapshot of a dataset, and its columns; None if the dataset has no rows yet.

    A contract may declare more columns: the table gets them with the next rows.

    Raises:
        MlopsError: the environment has no such table, or it cannot be read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        table = open_table(descriptor, dataset)
        snapshot = table.current_snapshot()
    except (BotoCoreError, ClientError, OSError) as error:
        raise MlopsError(
            f"the table of {dataset} in {descriptor.name} cannot be read: {error}",
            fix="check that the caller may call glue:GetTable, and read the table's metadata in the lake bucket",
        ) from error
    if snapshot is None:
        return None
    schema = schema_of(table, snapshot)
    return str(snapshot.snapshot_id), frozenset(field.name for field in schema.fields)


def read_version(descriptor: TablePlace, dataset: str, snapshot: str | None = None) -> tuple[pa.Table, DatasetVersion]:
    """Read all rows of a dataset version.

    Args:
        descriptor: the environment to read from.
        dataset: name of the contract.
        snapshot: id of an Iceberg snapshot; None for the latest.

    Returns:
        The rows in the order of their primary key, with the columns and types of that version; and the version.

    Raises:
        MlopsError: the table or the snapshot does not exist, or has no rows.
    """
    from pipelines.data.row_digest import digest_of_rows, in_key_order

    table = open_table(descriptor, dataset)
    found = snapshot_of(table, descriptor.name, dataset, snapshot)
    key = primary_key_of(table, found)
    rows = in_key_order(table.scan(snapshot_id=found.snapshot_id).to_arrow(), key).combine_chunks()
    if rows.num_rows == 0:
        raise MlopsError(f"snapshot {found.snapshot_id} of {dataset} has no rows", fix="ingest data first")
    return rows, describe_version(descriptor, dataset, found, digest_of_rows(rows, key), rows.num_rows)


def describe_version(place: TablePlace, dataset: str, snapshot: Snapshot, content: str, rows: int) -> DatasetVersion:
    """Return the identity of a dataset version.

    Args:
        place: where the table is.
        dataset: name of the contract.
        snapshot: the Iceberg snapshot.
        content: digest of its rows; see `digest_of_rows`.
        rows: number of rows.
    """
    return DatasetVersion(
        dataset=dataset,
        table=f"{place.catalog_database}.{table_name(dataset)}",
        snapshot=str(snapshot.snapshot_id),
        content=content,
        rows=rows,
    )


def snapshot_of(table: Table, environment: str, dataset: str, snapshot: str | None) -> Snapshot:
    """Return a snapshot of a table by its id; the current one for None.

    Raises:
        MlopsError: the table has no such snapshot, or no rows yet.
    """
    if snapshot is None:
        current = table.current_snapshot()
        if current is None:
            raise MlopsError(f"{dataset} has no rows yet", fix=f"mlops land {dataset} FILE --env {environment}")
        return current
    found = table.snapshot_by_id(int(snapshot)) if snapshot.isascii() and snapshot.isdigit() else None
    if found is None:
        known = ", ".join(str(entry.snapshot_id) for entry in table.snapshots()[-5:]) or "none"
        raise MlopsError(
            f"{dataset} has no snapshot {snapshot!r}",
            fix=f"use one of the latest ({known}); older snapshots may have expired",
        )
    return found


def primary_key_of(table: Table, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the key stored with a snapshot, or with its nearest ancestor if another engine wrote it (compaction)."""
    at: Snapshot | None = snapshot
    while at is not None:
        stored = at.summary.additional_properties.get(PRIMARY_KEY) if at.summary is not None else None
        if stored:
            return tuple(stored.split(","))
        at = table.snapshot_by_id(at.parent_snapshot_id) if at.parent_snapshot_id is not None else None
    return ()


def tag_of(batch: str) -> str:
    """Return the tag of the snapshot that added a batch: `batch-` and the first 12 digits of its digest."""
    return f"batch-{batch.removeprefix('sha256:')[:12]}"


def find_batch(table: Table, batch: str) -> Snapshot | None:
    """Find the snapshot that first added a batch to the current version of a table; None if it has none of its rows."""
    return next(iter(find_snapshots(table, batch)), None)


def replay_tag(table: Table, batch: str) -> str:
    """Return the tag of the next snapshot that adds rows of a batch that was ingested before."""
    return f"{tag_of(batch)}-{len(find_snapshots(table, batch)) + 1}"


def find_snapshots(table: Table, batch: str) -> list[Snapshot]:
    """Find the snapshots that added rows of a batch to the current version of a table, the oldest first."""
    return [
        snapshot
        for snapshot in history(table)
        if snapshot.summary is not None and snapshot.summary.additional_properties.get(BATCH) == batch
    ]


def history(table: Table) -> list[Snapshot]:
    """Return the snapshots whose rows the current version of a table holds, the oldest first.

    A snapshot that the table was rolled back from is not one of them. If older snapshots have expired, those before
    them count.
    """
    by_id = {snapshot.snapshot_id: snapshot for snapshot in table.snapshots()}
    found: dict[int, Snapshot] = {}
    at = table.current_snapshot()
    oldest = at
    while at is not None:
        found[at.snapshot_id] = oldest = at
        at = by_id.get(at.parent_snapshot_id) if at.parent_snapshot_id is not None else None
    if oldest is not None:
        before = oldest.sequence_number or 0
        earlier = {key: each for key, each in by_id.items() if (each.sequence_number or 0) < before}
        if oldest.parent_snapshot_id is not None:  # another engine has expired its parent
            found |= earlier
        else:
            found |= {key: each for key, each in earlier.items() if str(key) in kept_history(table)}
    return sorted(found.values(), key=lambda snapshot: snapshot.sequence_number or 0)


def kept_history(table: Table) -> frozenset[str]:
    """Return the ids of the snapshots that the last expiry has kept; none if nothing was expired."""
    return frozenset(filter(None, table.properties.get(KEPT_HISTORY, "").split(",")))


def has_expired_history(table: Table) -> bool:
    """Return True if snapshots whose rows the current version of a table holds have expired."""
    if kept_history(table):
        return True
    kept = history(table)
    known = {snapshot.snapshot_id for snapshot in kept}
    return any(each.parent_snapshot_id is not None and each.parent_snapshot_id not in known for each in kept)


def known_sources(table: Table) -> set[tuple[str, str]]:
    """Return the (key, ETag) of every landing file in the current version of a table."""
    summaries = [s.summary.additional_properties for s in history(table) if s.summary is not None]
    return {
        (properties[SOURCE], properties[ETAG])
        for properties in summaries
        if SOURCE in properties and ETAG in properties
    }


def existing_keys(table: Table, key: tuple[str, ...]) -> pa.RecordBatchReader | None:
    """Stream the primary keys in a table; None if it has no rows."""
    if table.current_snapshot() is None:
        return None
    return table.scan(selected_fields=key).to_arrow_batch_reader()


def read_columns(descriptor: TablePlace, dataset: str, columns: Sequence[str]) -> pa.RecordBatchReader:
    """Stream columns of the current version of a dataset, which may have no rows; all columns for ().

    Raises:
        MlopsError: the environment has no such table, or the table no such column.
    """
    import pyarrow as pa
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    table = open_table(descriptor, dataset)
    known = [field.name for field in table.schema().fields]
    if lacks := [name for name in columns if name not in known]:
        raise MlopsError(
            f"the table of {dataset} in {descriptor.name} has no column {lacks[0]!r}: expected one of "
            f"{', '.join(known)}",
            fix=f"ingest a file of {dataset} under its present contract first",
        )
    if table.current_snapshot() is None:
        schema = schema_to_pyarrow(
            table.schema().select(*columns) if columns else table.schema(), include_field_ids=False
        )
        return pa.RecordBatchReader.from_batches(schema, [])
    return table.scan(selected_fields=tuple(columns) or ("*",)).to_arrow_batch_reader()


def evolve(table: Table, contract: Contract) -> Table:
    """Update the schema of a table to a contract: add new columns, widen types and describe columns.

    Raises:
        MlopsError: the type of a column changed to one that cannot hold the existing values; or other writers keep
            changing the schema.
    """
    from pyiceberg.exceptions import CommitFailedException

    for _ in range(MOST_EVOLUTIONS):
        try:
            return _evolve(table, contract)
        except CommitFailedException:  # another job was faster, probably with the same change
            table.refresh()
    raise MlopsError(
        f"the schema of {contract.name} was changed by other writers {MOST_EVOLUTIONS} times in a row",
        fix="run the job again when fewer writers use the table",
    )


def _evolve(table: Table, contract: Contract) -> Table:
    has = {field.name: field.field_type for field in table.schema().fields}
    lacks = [column for name, column in contract.columns.items() if name not in has]
    wider = []
    for column in contract.columns.values():
        old, new = has.get(column.name), iceberg_type(column)
        if old is None or old == new or _holds(old, new):
            continue
        if not _holds(new, old):
            raise MlopsError(
                f"the table of {contract.name} cannot change the type of {column.name!r}: expected {old}, found {new}",
                fix="add a new column instead; types can only be widened (int to long, float to double)",
            )
        wider.append(column)
    docs = {column.name: column.description for column in contract.columns.values()}
    redescribed = [f for f in table.schema().fields if f.name in docs and (f.doc or None) != (docs[f.name] or None)]
    if lacks or wider or redescribed:
        with table.update_schema() as update:
            for column in lacks:
                update.add_column(column.name, iceberg_type(column), doc=column.description)
            for column in wider:
                update.update_column(column.name, field_type=iceberg_type(column))
            for field in redescribed:
                update.update_column(field.name, doc=docs[field.name] or "")
        table.refresh()
    return table


def _holds(stored: IcebergType, value: IcebergType) -> bool:
    """Return True if a column of type `stored` holds every value of type `value` unchanged."""
    from pyiceberg.exceptions import ResolveError
    from pyiceberg.schema import promote
    from pyiceberg.types import TimestampType, TimestamptzType

    if isinstance(stored, TimestamptzType) and isinstance(value, TimestampType):
        return True  # our timestamps are in UTC
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
    tag: str = "",
    described: Mapping[str, str] | None = None,
    expected: int | None = None,
) -> str:
    """Append rows to a table and tag the snapshot, in one atomic commit.

    A conflicting commit is not retried here: the checks against the table (duplicate batch, duplicate keys) must then
    run again.

    Args:
        descriptor: the environment.
        table: the table at the version that the rows were checked against.
        rows: stream of rows with columns of the table.
        batch: digest of the landing file.
        properties: further properties of the snapshot.
        tag: tag of the snapshot; `tag_of(batch)` by default.
        described: properties of the table to set in the same commit.
        expected: number of rows that must be written before anything is committed; None for any number.

    Returns:
        The id of the new snapshot.

    Raises:
        pyiceberg.exceptions.CommitFailedException: another commit came first.
        MlopsError: other rows than expected were written.
    """
    import pyarrow as pa

    from pipelines.data.data_files import write_data_files

    written = 0

    def counted_rows() -> Iterator[pa.RecordBatch]:
        nonlocal written
        for each in rows:
            written += each.num_rows
            yield each

    paths = write_data_files(descriptor, table, pa.RecordBatchReader.from_batches(rows.schema, counted_rows()))
    if expected is not None and written != expected:
        raise MlopsError(
            f"nothing was appended to {'.'.join(table.name())}: expected {expected} rows, found {written}",
            fix="report this as a bug with the file; table maintenance removes what was written",
        )
    return add_data_files(table, paths, batch, properties, tag, described)


def add_data_files(
    table: Table,
    paths: Sequence[str],
    batch: str,
    properties: Mapping[str, str],
    tag: str = "",
    described: Mapping[str, str] | None = None,
) -> str:
    """Add data files that are written already to a table; see `append`.

    Args:
        table: the table at the version that the commit must follow.
        paths: URLs of the files.
        batch, properties, tag, described: see `append`.

    Returns:
        The id of the new snapshot.

    Raises:
        pyiceberg.exceptions.CommitFailedException: another commit came first.
    """
    from pyiceberg.table.update.snapshot import ManageSnapshots

    with without_retries(table).transaction() as transaction:
        if described:
            transaction.set_properties(dict(described))
        transaction.add_files(list(paths), {BATCH: batch, **properties}, check_duplicate_files=False)
        added: Any = transaction.table_metadata.current_snapshot_id
        with ManageSnapshots(transaction) as manage:
            manage.create_tag(added, tag or tag_of(batch))
    return str(added)


def without_retries(table: Table) -> Table:
    """Return a table whose commits are not tried again. The setting is in memory only, so other writers keep theirs."""
    from pyiceberg.table import Table as IcebergTable
    from pyiceberg.table import TableProperties

    settings = {**table.metadata.properties, TableProperties.COMMIT_NUM_RETRIES: "0"}
    return IcebergTable(
        identifier=table.name(),
        metadata=table.metadata.model_copy(update={"properties": settings}),
        metadata_location=table.metadata_location,
        io=table.io,
        catalog=table.catalog,
    )
