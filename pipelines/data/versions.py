"""Versions of a dataset: the snapshots of its table, and the tags that name them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.data.catalog import BATCH, BUNDLE, CONTRACT, INPUT, SOURCE, history
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.printable import printable

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

LATEST = "latest"
"""Name of the current version."""

BATCH_TAG = "batch-"
"""Prefix of the tags that ingestion writes, one per batch."""

_TAG = re.compile(r"[a-z][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class TableVersion:
    """A version of a dataset.

    Attributes:
        snapshot: id of the Iceberg snapshot.
        parent: id of the snapshot before it; None for the first, or if that has expired.
        at: when it was committed.
        rows: number of rows in this version; None if the writer did not record it.
        added: number of rows that it added; None if the writer did not record it.
        operation: Iceberg's name of the change: append, overwrite, delete or replace.
        file: name of the landing file that it added; None if another engine wrote it.
        batch: digest of the landing file.
        contract: version of the contract that checked the rows.
        tags: names of the version, without those that ingestion writes.
        bundle: digest of the bundle that predicted the rows that it added; None for other datasets.
        read: what was predicted: `<dataset>@<snapshot>`, or the digest of a file; None for other datasets.
        is_current: True for the version that readers get by default.
        is_included: True if the current version has its rows; False if the table was rolled back from it.
    """

    snapshot: str
    parent: str | None
    at: datetime
    rows: int | None
    added: int | None
    operation: str
    file: str | None
    batch: str | None
    contract: str | None
    tags: tuple[str, ...]
    is_current: bool
    is_included: bool
    bundle: str | None = None
    read: str | None = None

    @property
    def read_version(self) -> tuple[str, str] | None:
        """The dataset and the snapshot that were predicted; None if it was a file, or for other datasets."""
        return read_version_of(self.read, self.file)


def read_version_of(read: str | None, file: str | None) -> tuple[str, str] | None:
    """Return the dataset and the snapshot that were predicted; None if it was a file, or nothing was.

    Args:
        read: value of the snapshot property `mlops.input`.
        file: name of the landing file.
    """
    dataset, found, snapshot = (read or "").partition("@")
    return (dataset, snapshot) if found and file is None else None


def list_versions(table: Table) -> list[TableVersion]:
    """List the versions of a table, the newest first."""
    included = {snapshot.snapshot_id for snapshot in history(table)}
    current = table.current_snapshot()
    tags: dict[int, list[str]] = {}
    for name, ref in sorted(table.refs().items()):
        if ref.snapshot_ref_type == "tag" and not name.startswith(BATCH_TAG):
            tags.setdefault(ref.snapshot_id, []).append(name)
    found = [
        _described(snapshot, tuple(tags.get(snapshot.snapshot_id, ())), current, included)
        for snapshot in table.snapshots()
    ]
    return sorted(found, key=lambda version: version.at, reverse=True)


def _described(snapshot: Snapshot, tags: tuple[str, ...], current: Snapshot | None, included: set[int]) -> TableVersion:
    summary = snapshot.summary
    properties = dict(summary.additional_properties) if summary is not None else {}
    source = properties.get(SOURCE)
    return TableVersion(
        snapshot=str(snapshot.snapshot_id),
        parent=str(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id is not None else None,
        at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
        rows=_number(properties.get("total-records")),
        added=_number(properties.get("added-records")),
        operation=summary.operation.value if summary is not None else "unknown",
        file=printable(source.partition("/")[2]) if source else None,  # named as in the landing bucket
        batch=properties.get(BATCH),
        contract=properties.get(CONTRACT),
        tags=tags,
        is_current=current is not None and current.snapshot_id == snapshot.snapshot_id,
        is_included=snapshot.snapshot_id in included,
        bundle=properties.get(BUNDLE),
        read=properties.get(INPUT),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def find_version(versions: Iterable[TableVersion], name: str, dataset: str) -> TableVersion:
    """Find a version by its name.

    Args:
        versions: all versions of the dataset, the newest first.
        name: id of the snapshot, tag, name of a landing file (the newest version that added it), or `latest`.
        dataset: name of the dataset, for messages.

    Raises:
        MlopsError: there is no such version.
    """
    known = list(versions)
    for version in known:
        matches = (
            version.is_current if name == LATEST else name in (version.snapshot, *version.tags) or name == version.file
        )
        if matches:
            return version
    if not known:
        raise MlopsError(f"{dataset} has no versions yet", fix="ingest data first: mlops ingest")
    names = ", ".join(", ".join((version.snapshot, *version.tags)) for version in known[:5])
    raise MlopsError(
        f"{dataset} has no version {name!r}: expected a snapshot, a tag, a landing file or {LATEST}, found {names}",
        fix=f"mlops data log {dataset} lists all versions; older ones may have expired",
    )


def check_tag(name: str) -> None:
    """Check that a person may use a name as a tag.

    Raises:
        MlopsError: the name is malformed or reserved.
    """
    if not _TAG.fullmatch(name) or name.startswith(BATCH_TAG) or name in (LATEST, "main"):
        raise MlopsError(
            f"{name!r} cannot be a tag: expected a lower-case letter, then up to 62 letters, digits, '.', '_' or '-'",
            fix=f"choose another name; {LATEST}, main and names that start with {BATCH_TAG} are reserved",
        )


def version_lines(versions: Iterable[TableVersion]) -> list[str]:
    """Return the lines that list versions for people."""
    lines = []
    for version in versions:
        marks = [mark for mark, shown in (("current", version.is_current),) if shown]
        marks += version.tags
        if not version.is_included:
            marks.append("rolled back")
        shown = f" ({', '.join(marks)})" if marks else ""
        rows = f"{version.rows} rows" if version.rows is not None else "rows unknown"
        added = f", {version.added} added" if version.added is not None else ""
        source = f" from {version.file}" if version.file else f" by {version.operation}"
        if version.bundle is not None:
            source = f" predicted from {version.file or version.read} by {version.bundle[:19]}…"
        checked = f", contract {version.contract}" if version.contract else ""
        lines.append(f"{version.snapshot}  {version.at:%Y-%m-%d %H:%M:%S} UTC  {rows}{added}{source}{checked}{shown}")
    return lines
