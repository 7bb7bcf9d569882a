"""Remove files under a table's prefix that no version of the table names."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pipelines.data.glue_client import s3
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry import store

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata

ORPHAN_DAYS = 7
"""Age in days from which a file that nothing names is removed. No ingestion runs for longer than an hour."""


def plan_orphans(
    stored: Iterable[store.Listed], named: frozenset[str], now: datetime, age: timedelta = timedelta(days=ORPHAN_DAYS)
) -> list[store.Listed]:
    """Decide which files nothing needs.

    Args:
        stored: the files under the table's prefix.
        named: keys that the table's metadata names. It must have been read after the files were listed: then no later
            commit can name an old file that it does not name.
        now: the current time.
        age: age of the youngest file that may be removed; younger ones may belong to a running job.
    """
    return [file for file in stored if file.key not in named and now - file.modified >= age]


def find_orphans(descriptor: EnvironmentDescriptor, table: Table, now: datetime) -> list[store.Listed]:
    """List the files of a table that nothing needs. Files that versions of the last days name still count as needed.

    Raises:
        MlopsError: the table is not under its prefix, or a file of its metadata cannot be read.
    """
    prefix = table_prefix(descriptor, table)
    stored = list(store.listing(descriptor.lake_bucket, prefix, client=s3(descriptor)))
    table.refresh()
    named = named_keys(descriptor, table, now - timedelta(days=ORPHAN_DAYS))
    return plan_orphans(stored, named, now)


def table_prefix(descriptor: EnvironmentDescriptor, table: Table) -> str:
    """Return the key prefix of a table's files, with a slash at its end.

    Raises:
        MlopsError: the table is somewhere else.
    """
    prefix = f"{descriptor.catalog_database}/{table.name()[-1]}/"
    expected, found = f"s3://{descriptor.lake_bucket}/{prefix}", table.location().rstrip("/") + "/"
    if found != expected:
        raise MlopsError(
            f"the files of {'.'.join(table.name())} are not cleaned up: expected them in {expected}, found {found}",
            fix="move the table back, or remove its unused files with the engine that moved it",
        )
    return prefix


def named_keys(descriptor: EnvironmentDescriptor, table: Table, since: datetime) -> frozenset[str]:
    """Return the keys in the lake bucket that the table names now, or named at any time since then.

    The table's log of metadata files has at least the last 100 commits; a version that expired before them does not
    count.

    Raises:
        OSError: a file of the current metadata cannot be read.
    """
    from pyiceberg.serializers import FromInputFile

    reader = _NamedFiles(table)
    reader.add(table.metadata)
    log = sorted(table.metadata.metadata_log, key=lambda entry: entry.timestamp_ms)
    reader.named |= {table.metadata_location, *(entry.metadata_file for entry in log)}
    limit = since.timestamp() * 1000
    times = [*(entry.timestamp_ms for entry in log), table.metadata.last_updated_ms]
    current_then = max((each for each in times if each < limit), default=0)  # when what was current then began
    for entry in reversed(log):
        if entry.timestamp_ms >= current_then:
            try:
                reader.add(FromInputFile.table_metadata(table.io.new_input(entry.metadata_file)))
            except FileNotFoundError:  # another engine has removed what the current version does not need
                continue
    start = f"s3://{descriptor.lake_bucket}/"
    return frozenset(url.removeprefix(start) for url in reader.named)


class _NamedFiles:
    """Files that metadata names. Manifests are read once, however many versions name them."""

    def __init__(self, table: Table) -> None:
        self.io = table.io
        self.named: set[str] = set()

    def add(self, metadata: TableMetadata) -> None:
        """Add the files that all versions of a table's metadata name."""
        self.named |= {file.statistics_path for file in (*metadata.statistics, *metadata.partition_statistics)}
        for snapshot in metadata.snapshots:
            if snapshot.manifest_list in self.named:
                continue
            for manifest in snapshot.manifests(self.io):
                if manifest.manifest_path not in self.named:
                    entries = manifest.fetch_manifest_entry(self.io, discard_deleted=True)
                    self.named |= {manifest.manifest_path, *(entry.data_file.file_path for entry in entries)}
            self.named.add(snapshot.manifest_list)


def remove_orphans(descriptor: EnvironmentDescriptor, orphans: Iterable[store.Listed]) -> None:
    """Delete files. The bucket keeps them as former versions for as long as it keeps those.

    Raises:
        AccessDeniedError: the role may not delete one of them.
    """
    keys = [file.key for file in orphans]
    if keys:
        store.delete_many(descriptor.lake_bucket, keys, client=s3(descriptor))
