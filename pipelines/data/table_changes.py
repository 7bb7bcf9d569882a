"""Changes of a table that a person asks for: tag a version, roll back, expire versions. The ingest job makes them.

The job's role may commit to the table and write the records of batches; people need neither right.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from pipelines.data.catalog import KEPT_HISTORY, open_table, without_retries
from pipelines.data.expired_versions import record_expiry
from pipelines.data.row_quarantine import BatchRecord, read_record, restore_state, saved_states, write_record
from pipelines.data.versions import BATCH_TAG, TableVersion, check_tag, find_version, list_versions
from pipelines.declarations.contract import Contract
from pipelines.declarations.documents import Declaration, parse
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.plurals import counted

if TYPE_CHECKING:
    from pyiceberg.table import Table

TABLE_CHANGE = "TABLE_CHANGE"
"""Environment variable of the ingest job: a `TableChange` as JSON, to make instead of ingesting files."""

MOST_EXPIRED = 400
"""Maximum number of versions that one job expires, so that their ids fit into its environment variable."""


class TableConflictError(MlopsError):
    """Another writer committed to the table at the same time; nothing was changed."""


SnapshotId = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]


class TableChange(Declaration):
    """A change of a table.

    Attributes:
        action: `tag` gives a version a name, `untag` removes the name, `rollback` makes an earlier version the current
            one, and `expire` removes versions.
        snapshots: the version to tag or to return to, or the versions to expire; none for `untag`.
        tag: the name, for `tag` and `untag`.
        reason: why, for `rollback`.
    """

    action: Literal["tag", "untag", "rollback", "expire"]
    snapshots: Annotated[tuple[SnapshotId, ...], Field(max_length=MOST_EXPIRED)] = ()
    tag: str = ""
    reason: Annotated[str, StringConstraints(max_length=400)] = ""


def requested_change() -> TableChange | None:
    """Return the change that the job's environment asks for; None if it shall ingest.

    Raises:
        DeclarationError: the variable is not a change.
    """
    text = os.environ.get(TABLE_CHANGE)
    return parse(text, TableChange, Path(f"${TABLE_CHANGE}")) if text else None


def make_change(
    descriptor: EnvironmentDescriptor, contract: Contract, change: TableChange, log: Callable[[str], None]
) -> None:
    """Make a change of a dataset's table. Making it again changes nothing.

    Raises:
        TableConflictError: another writer committed at the same time.
        MlopsError: the change does not fit the table.
    """
    from pyiceberg.exceptions import CommitFailedException

    table = open_table(descriptor, contract.name)
    try:
        match change.action:
            case "tag":
                log(_tag(table, contract.name, change.snapshots[0] if change.snapshots else "", change.tag))
            case "untag":
                log(_untag(table, contract.name, change.tag))
            case "rollback":
                target = change.snapshots[0] if change.snapshots else ""
                _roll_back(descriptor, table, contract, target, change.reason, log)
            case "expire":
                log(_expire(descriptor, table, contract.name, change.snapshots))
    except CommitFailedException as error:
        raise TableConflictError(
            f"the table of {contract.name} was changed by another writer at the same time: {error}",
            fix="run the command again",
        ) from None


def _tag(table: Table, dataset: str, snapshot: str, name: str) -> str:
    check_tag(name)
    version = find_version(list_versions(table), snapshot, dataset)
    existing = table.refs().get(name)
    if existing is not None:
        if str(existing.snapshot_id) == version.snapshot:
            return f"{dataset}: {name} is version {version.snapshot} already"
        raise MlopsError(
            f"the tag {name!r} of {dataset} exists: expected version {version.snapshot}, found {existing.snapshot_id}",
            fix=f"choose another name, or remove it first: mlops data tag {dataset} {name} --delete",
        )
    with table.manage_snapshots() as manage:
        manage.create_tag(int(version.snapshot), name)
    return f"{dataset}: {name} is version {version.snapshot}"


def _untag(table: Table, dataset: str, name: str) -> str:
    check_tag(name)
    if name not in table.refs():
        return f"{dataset} has no tag {name}"
    with table.manage_snapshots() as manage:
        manage.remove_tag(name)
    return f"{dataset}: removed the tag {name}"


def undone_versions(versions: Sequence[TableVersion], target: TableVersion, dataset: str) -> list[TableVersion]:
    """Return the versions whose rows leave the table if it is rolled back to `target`.

    Args:
        versions: all versions, the newest first.
        target: one of them.
        dataset: name of the dataset, for messages.

    Raises:
        MlopsError: the current version does not have the rows of `target`.
    """
    if not target.is_included:
        fixes = f"; to bring a file back: mlops data release {dataset} {target.file}" if target.file else ""
        raise MlopsError(
            f"{dataset} cannot be rolled back to {target.snapshot}: expected an earlier state of the current version, "
            "found one that the table was rolled back from",
            fix=f"choose a version without the mark `rolled back` in mlops data log {dataset}{fixes}",
        )
    return [version for version in versions if version.is_included and version.at > target.at]


def _roll_back(
    descriptor: EnvironmentDescriptor,
    table: Table,
    contract: Contract,
    snapshot: str,
    reason: str,
    log: Callable[[str], None],
) -> None:
    """Return to an earlier version, and give up the batches that were added after it.

    The records come first: a job that is killed in between leaves the rows in the table, where they count, and the
    next attempt finishes. In the other order, the next ingestion would append the rows again.
    """
    versions = list_versions(table)
    target = find_version(versions, snapshot, contract.name)
    undone = undone_versions(versions, target, contract.name)
    if not undone:
        log(f"{contract.name}: {target.snapshot} is already the current version")
        return
    why = f"rolled back to {target.snapshot}: {reason}" if reason else f"rolled back to {target.snapshot}"
    remaining = {version.batch for version in versions if version.is_included and version not in undone}
    for version in undone:
        # A batch may have added rows before and after the target (a replay); then the earlier rows stay.
        record = read_record(descriptor, contract.name, version.batch) if version.batch else None
        if record is not None and record.batch not in remaining:
            write_record(descriptor, record.model_copy(update={"verdict": "dropped", "dropped": why}))
        elif record is not None:
            _withdraw_release(descriptor, record, {each.snapshot for each in undone}, log)
        log(f"{contract.name}: the rows of {version.file or version.snapshot} leave the table")
    with table.manage_snapshots() as manage:
        manage.set_current_snapshot(int(target.snapshot))
    log(f"{contract.name}: {target.snapshot} is the current version")


def _withdraw_release(
    descriptor: EnvironmentDescriptor, record: BatchRecord, undone: Set[str], log: Callable[[str], None]
) -> None:
    """Return rows to quarantine that were released from it after the target of a rollback."""
    if record.snapshot not in undone:
        return
    states = saved_states(descriptor, record)
    before = {name: each for name, each in states.items() if each.snapshot and each.snapshot not in undone}
    if not before:
        log(f"{record.file}: rows that were released from quarantine leave the table, and are not kept elsewhere")
        return
    name = max(before, key=lambda each: before[each].good)
    restore_state(descriptor, name, before[name])
    log(f"{record.file}: {counted(record.good - before[name].good, 'row')} return to quarantine")


def _expire(descriptor: EnvironmentDescriptor, table: Table, dataset: str, snapshots: Sequence[str]) -> str:
    """Remove versions from the table's history, and the tags of their batches.

    Raises:
        MlopsError: a version is the current one, or a person tagged it.
    """
    known = {version.snapshot: version for version in list_versions(table)}
    chosen = [known[snapshot] for snapshot in snapshots if snapshot in known]
    for version in chosen:
        if version.is_current or version.tags:
            found = "the current one" if version.is_current else f"tagged {', '.join(version.tags)}"
            raise MlopsError(
                f"version {version.snapshot} of {dataset} cannot expire: expected an untagged former one, found {found}"
            )
    if not chosen:
        return f"{dataset}: these versions have expired already"
    record_expiry(descriptor, dataset, chosen)
    ids = {int(version.snapshot) for version in chosen}
    kept = [each.snapshot for each in known.values() if each.is_included and int(each.snapshot) not in ids]
    with without_retries(table).transaction() as transaction:
        transaction.set_properties({KEPT_HISTORY: ",".join(kept)})
        from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots

        with ManageSnapshots(transaction) as manage:
            for name, ref in table.refs().items():
                if ref.snapshot_id in ids and name.startswith(BATCH_TAG):
                    manage.remove_tag(name)
        with ExpireSnapshots(transaction) as expiry:
            expiry.by_ids(sorted(ids))
    return f"{dataset}: {counted(len(ids), 'version')} expired"
