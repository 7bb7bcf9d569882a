"""Ingest landing files: check them against their contract, quarantine bad rows, append good rows to the table.

A batch is a landing file, identified by the digest of its content. Its steps are ordered so that a killed job can run
again: quarantined rows, then the record, then one commit that appends the good rows and stores the digest with the
snapshot. Before the commit, the table has none of the rows and every step runs again. After it, the batch is found in
the table's history and skipped.
"""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.batch import Batch, LandingFileError, ReasonCount, TooManyBadRowsError
from pipelines.data.catalog import (
    BATCH,
    CONTRACT,
    ETAG,
    PRIMARY_KEY,
    RUN,
    SOURCE,
    append,
    evolve,
    existing_keys,
    find_batch,
    find_snapshots,
    has_expired_history,
    history,
    known_sources,
    open_table,
    read_columns,
    replay_tag,
    tag_of,
)
from pipelines.data.catalogue_properties import changed_properties
from pipelines.data.checks import contract_rules, unique_groups
from pipelines.data.delivery_history import summary_property
from pipelines.data.landing import LandingFile, download, landing_files
from pipelines.data.lineage import Assertion, Data, LineageRun, from_columns, landing_data, lineage, table_data
from pipelines.data.reading import LARGEST_FILE, check_size, read_batch
from pipelines.data.row_quarantine import (
    BatchRecord,
    BrokenRule,
    download_rows,
    read_record,
    read_records,
    reason_lines,
    restore_state,
    rows_url,
    save_state,
    saved_states,
    upload_rows,
    write_record,
)
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_file, digest_of_value
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.printable import shorten
from pipelines.registry.store import split_url

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from pipelines.data.validate import Validation

Log = Callable[[str], None]

MOST_ATTEMPTS = 5
"""Maximum number of attempts to commit a batch while other writers commit first. Each repeats the checks."""

LONGEST_PAUSE = 10.0
"""Seconds between two attempts."""

REPLAYED = "replayed.parquet"
"""Local file of the quarantined rows that are checked again."""

FIRST_STATE = "first"
"""Name of the state of a batch whose snapshot was not recorded."""


class AnotherReleaseError(MlopsError):
    """Another job has added quarantined rows of the same batch since this one read them."""


@dataclass(frozen=True)
class IngestedFile:
    """One landing file on its way into a table.

    Attributes:
        descriptor: the environment.
        contract: contract of the dataset.
        table: table of the dataset.
        file: the landing file.
        path: local copy of the file; None if the file is too large to download.
        digest: digest of the file's content, which identifies the batch; of its key and ETag if it is too large.
        scratch: folder for temporary files.
        replayed: the record of the batch if its good rows are in the table, and only its quarantined rows are checked.
        additions: number of times that rows of the batch had been added to the table when `replayed` was read.
        run: identifies the run of the job.
    """

    descriptor: EnvironmentDescriptor
    contract: Contract
    table: Table
    file: LandingFile
    path: Path | None
    digest: str
    scratch: Path
    replayed: BatchRecord | None = None
    additions: int = 0
    run: str = ""

    def record(self, **facts: Any) -> BatchRecord:
        """Make the record of the batch; `facts` are the fields of its outcome."""
        return BatchRecord(
            dataset=self.contract.name,
            file=self.file.name,
            batch=self.digest,
            contract=self.contract.version,
            etag=self.file.etag,
            **facts,
        )


def ingest(
    descriptor: EnvironmentDescriptor, contract: Contract, log: Log, *, only: str = "", replay: bool = False
) -> list[BatchRecord]:
    """Ingest every landing file of a dataset that is not in its table yet, in the order of their names.

    A rejected file stays in landing and does not stop the others. It is checked again under another version of the
    contract, or if it is asked for by name.

    Args:
        descriptor: the environment.
        contract: contract of the dataset.
        log: called with each line of progress.
        only: name of the only landing file to ingest; all by default.
        replay: True to check a dropped file, or the quarantined rows of an ingested one, again; needs `only`.

    Returns:
        A record for each file that was checked.

    Raises:
        MlopsError: the dataset has no table, or the table cannot hold the contract's types; `only` has not landed; or
            AWS denied a request.
    """
    files = landing_files(descriptor, contract.name)
    if only:
        files = [named_file(files, only, contract.name, descriptor)]
    if not files:
        log(f"no files in s3://{descriptor.landing_bucket}/{contract.name}/")
        return []
    table = evolve(open_table(descriptor, contract.name), contract)
    known = known_sources(table) | _expired_sources(descriptor, contract, table)
    run = uuid.uuid4().hex
    _finish_latest_record(descriptor, contract, table)
    records = []
    for file in files:
        if (file.key, file.etag) in known and not replay:
            log(f"{file.name}: already in the table")
            continue
        with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
            ingestion = replace(_download(descriptor, contract, table, file, Path(folder)), run=run)
            if replay:
                ingestion = _with_quarantine(ingestion)
            if ingestion.replayed is None and (done := _done(ingestion, again=bool(only), replay=replay)) is not None:
                log(f"{file.name}: {done}")
                continue
            record = _ingest_file(ingestion)
        _log_record(descriptor, record, log)
        records.append(record)
    return records


def drop(descriptor: EnvironmentDescriptor, contract: Contract, name: str, reason: str) -> BatchRecord:
    """Give up a landing file, or the quarantined rows of an ingested one, so that nothing waits for it any more.

    Nothing is deleted: rows in the table stay there, and the file stays in landing.

    Args:
        descriptor: the environment.
        contract: contract of the dataset.
        name: name of the landing file.
        reason: why, for the record.

    Raises:
        MlopsError: the file has not landed, all of its rows are in the table, or AWS denied a request.
    """
    file = named_file(landing_files(descriptor, contract.name), name, contract.name, descriptor)
    table = open_table(descriptor, contract.name)
    with tempfile.TemporaryDirectory(prefix="drop-") as folder:
        ingestion = _download(descriptor, contract, table, file, Path(folder))
    record = read_record(descriptor, contract.name, ingestion.digest)
    if find_batch(table, ingestion.digest) is None:
        facts = record.model_dump(include={"rows", "good", "quarantined", "refused"}) if record is not None else {}
        record = ingestion.record(verdict="dropped", dropped=reason, **facts)
    elif record is not None and record.quarantined:
        record = record.model_copy(update={"dropped": reason})
    else:
        raise MlopsError(
            f"{name} cannot be dropped: expected a file with rows that are not in the table, found all of them there",
            fix="to remove rows from a table, land nothing here: roll the table back or write a correction",
        )
    write_record(descriptor, record)
    return record


def named_file(files: list[LandingFile], name: str, dataset: str, descriptor: EnvironmentDescriptor) -> LandingFile:
    """Return the landing file of a name.

    Raises:
        MlopsError: no such file has landed.
    """
    found = next((file for file in files if file.name == name), None)
    if found is None:
        latest = ", ".join(file.name for file in files[-5:]) or "none"
        raise MlopsError(
            f"{name!r} has not landed in {descriptor.name}: expected a landing file of {dataset}, found {latest}",
            fix=f"mlops land {dataset} {name} --env {descriptor.name}",
        )
    return found


def _finish_latest_record(descriptor: EnvironmentDescriptor, contract: Contract, table: Table) -> None:
    """Complete the record of the latest batch, in case the job was killed right after the commit.

    Rows that it released are in the table; their state in quarantine was saved before.
    """
    batches = [(digest, each) for each in history(table) if (digest := summary_property(each, BATCH))]
    if not batches:
        return
    digest, snapshot = batches[-1]  # a later version may be one of table maintenance
    _finish_record(descriptor, contract, digest, snapshot)


def _finish_record(descriptor: EnvironmentDescriptor, contract: Contract, digest: str, snapshot: Snapshot) -> None:
    """Complete the record of a batch whose newest rows a snapshot added. Idempotent.

    The job that added them writes the same, if it still runs.
    """
    record = read_record(descriptor, contract.name, digest)
    if record is None:
        return
    outcome = {"verdict": "ingested", "snapshot": str(snapshot.snapshot_id)}
    if record.verdict == "checked":
        write_record(descriptor, record.model_copy(update=outcome))
    elif record.verdict == "ingested" and record.snapshot != outcome["snapshot"]:
        run = summary_property(snapshot, RUN)
        if (released := saved_states(descriptor, record).get(run)) is not None:
            restore_state(descriptor, run, released.model_copy(update=outcome))


def _download(
    descriptor: EnvironmentDescriptor, contract: Contract, table: Table, file: LandingFile, scratch: Path
) -> IngestedFile:
    if file.size > LARGEST_FILE:
        return IngestedFile(descriptor, contract, table, file, None, digest_of_value([file.key, file.etag]), scratch)
    path = download(descriptor, file, scratch)
    return IngestedFile(descriptor, contract, table, file, path, digest_of_file(path), scratch)


def _with_quarantine(ingestion: IngestedFile) -> IngestedFile:
    """Add the record of a batch whose good rows are in the table and whose quarantined rows can be checked again."""
    if ingestion.path is None:
        return ingestion
    table = ingestion.table.refresh()
    added = find_snapshots(table, ingestion.digest)
    if added:
        _finish_record(ingestion.descriptor, ingestion.contract, ingestion.digest, added[-1])
    record = read_record(ingestion.descriptor, ingestion.contract.name, ingestion.digest)
    if not added and not _has_expired(table, record):
        return ingestion
    if record is None or not record.quarantined:
        return ingestion
    return replace(ingestion, replayed=record, additions=len(added))


def _has_expired(table: Table, record: BatchRecord | None) -> bool:
    """Return True if a batch's rows are in the table, but the snapshot that added them has expired."""
    if record is None or record.verdict != "ingested" or record.snapshot is None:
        return False
    return table.snapshot_by_id(int(record.snapshot)) is None and has_expired_history(table)


def _expired_sources(descriptor: EnvironmentDescriptor, contract: Contract, table: Table) -> set[tuple[str, str]]:
    """Return the (key, ETag) of the landing files whose rows are in the table, but whose snapshots have expired."""
    if not has_expired_history(table):
        return set()
    records = [record for record in read_records(descriptor, contract.name) if _has_expired(table, record)]
    return {(f"{contract.name}/{record.file}", record.etag) for record in records if record.etag is not None}


def _done(ingestion: IngestedFile, *, again: bool, replay: bool) -> str | None:
    """Return why there is nothing to do for a file; None if it must be checked.

    Args:
        ingestion: the file.
        again: True to check a file again that this version of the contract has rejected.
        replay: True to check a file again that was dropped or has no good rows.
    """
    record = read_record(ingestion.descriptor, ingestion.contract.name, ingestion.digest)
    table = ingestion.table.refresh()
    if ingestion.path is not None and (find_batch(table, ingestion.digest) is not None or _has_expired(table, record)):
        return "all rows are in the table" if replay else "already ingested"
    if record is None or replay:
        return None
    if record.verdict == "dropped":
        return f"dropped: {record.dropped}"
    if record.contract != ingestion.contract.version:
        return None
    if record.verdict == "quarantined":
        return "already ingested"
    if record.verdict == "refused" and not again:
        return f"already rejected under version {record.contract} of the contract"
    return None


def _ingest_file(ingestion: IngestedFile) -> BatchRecord:
    """Ingest one file, and record its outcome and lineage."""
    descriptor, contract, file = ingestion.descriptor, ingestion.contract, ingestion.file
    source, target = landing_data(descriptor, file.key, version=file.etag), table_data(descriptor, contract.name)
    with lineage(descriptor, f"ingest-{contract.name}", [source], [target]) as run:
        try:
            record = _check_and_commit(ingestion)
        except LandingFileError as error:
            record = _refused(ingestion, error)
            run.failed = error.what
        else:
            _add_to_lineage(run, ingestion, record)
    return record


def _check_and_commit(ingestion: IngestedFile) -> BatchRecord:
    """Check one file and append its good rows.

    Raises:
        LandingFileError: the file is rejected. So is one whose content makes a library fail: it would fail again.
        MlopsError, OSError, botocore.exceptions.ClientError: the environment is at fault.
    """
    import duckdb
    import pyarrow as pa

    file = ingestion.file
    try:
        check_size(file.name, file.size)
        assert ingestion.path is not None
        batch = read_batch(ingestion.path, ingestion.contract, ingestion.scratch, name=file.name)
        return _commit_batch(ingestion, _only_quarantined(ingestion, batch))
    except (
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
        pa.ArrowException,
        duckdb.Error,
    ) as error:
        if isinstance(error, OSError) or find_batch(ingestion.table.refresh(), ingestion.digest) is not None:
            raise
        found = f"{type(error).__name__}: {shorten((str(error).splitlines() or [''])[0], 200)}"
        fix = "report this as a bug with the file, or land its rows in another format"
        raise LandingFileError(file.name, "rows that can be checked and written", found, fix) from error


def _only_quarantined(ingestion: IngestedFile, batch: Batch) -> Batch:
    """Reduce a batch that is replayed to the rows that were quarantined."""
    import pyarrow.parquet as pq

    record = ingestion.replayed
    if record is None:
        return batch
    path = ingestion.scratch / REPLAYED
    if not download_rows(ingestion.descriptor, record.dataset, record.batch, path):
        raise MlopsError(
            f"the quarantined rows of {record.file} cannot be read: expected {record.quarantined} rows in "
            f"{rows_url(ingestion.descriptor, record.dataset, record.batch)}, found none",
            fix="land the corrected rows as a new file",
        )
    with pq.ParquetFile(path) as rows:
        return replace(batch, replayed=path, rows=rows.metadata.num_rows)


def _refused(ingestion: IngestedFile, error: LandingFileError) -> BatchRecord:
    """Record a rejected file, with some of its bad rows if there are too many."""
    facts: dict[str, Any] = {}
    if isinstance(error, TooManyBadRowsError):
        facts = {"rows": error.rows, "quarantined": error.bad, "reasons": _broken_rules(error.reasons)}
        if error.sample is not None:
            upload_rows(ingestion.descriptor, ingestion.contract.name, ingestion.digest, error.sample)
    record = ingestion.record(verdict="refused", refused=str(error), **facts)
    if ingestion.replayed is None:  # else the good rows are in the table, and their record stays
        write_record(ingestion.descriptor, record)
    return record


def _broken_rules(reasons: tuple[ReasonCount, ...]) -> tuple[BrokenRule, ...]:
    return tuple(BrokenRule(column=r.column, rule=r.rule, rows=r.rows) for r in reasons)


def _commit_batch(ingestion: IngestedFile, batch: Batch) -> BatchRecord:
    """Check a batch and append its good rows; try again while other writers commit first."""
    from pyiceberg.exceptions import CommitFailedException

    for attempt in range(1, MOST_ATTEMPTS + 1):
        try:
            return _try_commit(ingestion, batch)
        except CommitFailedException as error:
            if attempt == MOST_ATTEMPTS:
                raise MlopsError(
                    f"{batch.file}: {MOST_ATTEMPTS} commits to the table of {ingestion.contract.name} conflicted with "
                    f"other writers: {error}",
                    fix="run the job again when fewer writers use the table",
                ) from None
        time.sleep(random.uniform(0, min(LONGEST_PAUSE, 0.1 * 2**attempt)))  # noqa: S311 - not for security
    raise AssertionError("unreachable")


def _try_commit(ingestion: IngestedFile, batch: Batch) -> BatchRecord:
    from pipelines.data.validate import validate

    descriptor, contract, digest = ingestion.descriptor, ingestion.contract, ingestion.digest
    table = evolve(ingestion.table.refresh(), contract)
    _finish_latest_record(descriptor, contract, table)  # of a job that was killed while this one ran
    added = find_snapshots(table, digest)
    if ingestion.replayed is not None and len(added) != ingestion.additions:
        raise AnotherReleaseError(
            f"{ingestion.file.name}: another job released rows of it at the same time",
            fix="run the command again when that job has ended",
        )
    keys = existing_keys(table, contract.primary_key)
    read_table = partial(read_columns, descriptor)
    with validate(batch, contract, ingestion.scratch, existing_keys=keys, read_table=read_table) as checked:
        summary = checked.summary
        record = ingestion.record(
            verdict="checked" if summary.good else "quarantined",
            rows=summary.rows,
            good=summary.good,
            quarantined=summary.quarantined,
            reasons=_broken_rules(summary.reasons),
            warnings=summary.warnings,
        )
        if ingestion.replayed is not None:
            return _replay(ingestion, ingestion.replayed, record, table, checked)
        if added:  # by a concurrent job, whose record this job may have replaced by its own
            _finish_record(descriptor, contract, digest, added[-1])
            return read_record(descriptor, contract.name, digest) or record
        if summary.quarantined:
            _upload_quarantined(ingestion, checked)
        write_record(descriptor, record)
        if summary.good == 0:
            return record
        described = changed_properties(table, contract)
        rows, properties = checked.good_rows(), _properties(ingestion)
        snapshot = append(descriptor, table, rows, digest, properties, tag_of(digest), described, summary.good)
    record = record.model_copy(update={"verdict": "ingested", "snapshot": snapshot})
    write_record(descriptor, record)
    return record


def _replay(
    ingestion: IngestedFile, before: BatchRecord, found: BatchRecord, table: Table, checked: Validation
) -> BatchRecord:
    """Append the rows of a batch that the contract allows now, then reduce its quarantine to the others.

    In this order, so that a killed job loses no rows. The states before and after the commit are saved before it.
    """
    descriptor = ingestion.descriptor
    left = ingestion.scratch / "quarantine.parquet"
    checked.write_quarantine(left)
    facts = {"verdict": "ingested", "rows": before.rows, "good": before.good + found.good, "snapshot": before.snapshot}
    record = found.model_copy(update=facts)
    if found.good:
        save_state(descriptor, before.snapshot or FIRST_STATE, before, ingestion.scratch / REPLAYED)
        save_state(descriptor, ingestion.run, record.model_copy(update={"snapshot": None}), left)
        tag = replay_tag(table, ingestion.digest)
        properties = _properties(ingestion)
        described = changed_properties(table, ingestion.contract)
        rows = checked.good_rows()
        snapshot = append(descriptor, table, rows, ingestion.digest, properties, tag, described, found.good)
        record = record.model_copy(update={"snapshot": snapshot})
    upload_rows(descriptor, ingestion.contract.name, ingestion.digest, left)
    write_record(descriptor, record)
    return record


def _upload_quarantined(ingestion: IngestedFile, checked: Validation) -> None:
    path = ingestion.scratch / "quarantine.parquet"
    checked.write_quarantine(path)
    upload_rows(ingestion.descriptor, ingestion.contract.name, ingestion.digest, path)


def _properties(ingestion: IngestedFile) -> dict[str, str]:
    return {
        SOURCE: ingestion.file.key,
        ETAG: ingestion.file.etag,
        CONTRACT: ingestion.contract.version,
        PRIMARY_KEY: ",".join(ingestion.contract.primary_key),
        RUN: ingestion.run,
    }


def _add_to_lineage(run: LineageRun, ingestion: IngestedFile, record: BatchRecord) -> None:
    """Set the inputs and outputs of a lineage run: columns, versions, row counts and the result of each rule."""
    descriptor, contract = ingestion.descriptor, ingestion.contract
    columns = {name: column.stored_as for name, column in contract.columns.items()}
    broken = {(reason.column, reason.rule) for reason in record.reasons}
    rules = [(rule.column, rule.name) for rule in contract_rules(contract)]
    rules += [(", ".join(group.columns), group.name) for group in unique_groups(contract)]
    rules += sorted(broken - set(rules))
    assertions = [Assertion(rule, column or None, (column, rule) not in broken) for column, rule in rules]
    facts = {"columns": columns, "version": record.batch, "rows": record.rows, "assertions": assertions}
    facts["contract"] = contract
    source = landing_data(descriptor, ingestion.file.key, **facts)
    run.inputs = [source]
    facts = {"columns": columns, "version": record.snapshot, "rows": record.good, "contract": contract}
    derived = {name: from_columns(source, [name]) for name in columns}
    run.outputs = [table_data(descriptor, contract.name, derived=derived, **facts)]
    if record.quarantined:
        bucket, key = split_url(rows_url(descriptor, record.dataset, record.batch))
        run.outputs.append(Data(f"s3://{bucket}", key, version=record.batch, rows=record.quarantined))


def _log_record(descriptor: EnvironmentDescriptor, record: BatchRecord, log: Log) -> None:
    if record.refused is not None:
        log(record.refused)
        for line in reason_lines(record.reasons):
            log(f"  {line}")
        return
    for warning in record.warnings:
        log(f"{record.file}: warning: {warning}")
    snapshot = f", snapshot {record.snapshot}" if record.snapshot else ""
    log(f"{record.file}: {record.good} of {record.rows} rows are in the table{snapshot}")
    if record.quarantined:
        log(f"  {record.quarantined} in {rows_url(descriptor, record.dataset, record.batch)}")
        for line in reason_lines(record.reasons):
            log(f"  {line}")
