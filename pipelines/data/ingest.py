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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.batch import Batch, LandingFileError
from pipelines.data.catalog import (
    BATCH,
    CONTRACT,
    ETAG,
    PRIMARY_KEY,
    SOURCE,
    append,
    evolve,
    existing_keys,
    find_batch,
    known_sources,
    open_table,
)
from pipelines.data.checks import contract_rules, unique_groups
from pipelines.data.landing import LandingFile, download, landing_files
from pipelines.data.lineage import Assertion, Data, LineageRun, landing_data, lineage, table_data
from pipelines.data.reading import LARGEST_FILE, check_size, read_batch
from pipelines.data.row_quarantine import (
    BatchRecord,
    BrokenRule,
    read_record,
    reason_lines,
    rows_url,
    upload_rows,
    write_record,
)
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_file, digest_of_value
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.registry.store import split_url

if TYPE_CHECKING:
    from pyiceberg.table import Table

Log = Callable[[str], None]

MOST_ATTEMPTS = 5
"""Maximum number of attempts to commit a batch while other writers commit first. Each repeats the checks."""

LONGEST_PAUSE = 10.0
"""Seconds between two attempts."""


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
    """

    descriptor: EnvironmentDescriptor
    contract: Contract
    table: Table
    file: LandingFile
    path: Path | None
    digest: str
    scratch: Path

    def record(self, **facts: Any) -> BatchRecord:
        """Make the record of the batch; `facts` are the fields of its outcome."""
        return BatchRecord(
            dataset=self.contract.name,
            file=self.file.name,
            batch=self.digest,
            contract=self.contract.version,
            **facts,
        )


def ingest(descriptor: EnvironmentDescriptor, contract: Contract, log: Log, *, only: str = "") -> list[BatchRecord]:
    """Ingest every landing file of a dataset that is not in its table yet, in the order of their names.

    A rejected file stays in landing and does not stop the others. It is checked again under another version of the
    contract, or if it is asked for by name.

    Args:
        descriptor: the environment.
        contract: contract of the dataset.
        log: called with each line of progress.
        only: name of the only landing file to ingest; all by default.

    Returns:
        A record for each file that was checked.

    Raises:
        MlopsError: the dataset has no table, or the table cannot hold the contract's types; `only` has not landed; or
            AWS denied a request.
    """
    files = landing_files(descriptor, contract.name)
    if only:
        files = _named(files, only, contract.name, descriptor)
    if not files:
        log(f"no files in s3://{descriptor.landing_bucket}/{contract.name}/")
        return []
    table = evolve(open_table(descriptor, contract.name), contract)
    known = known_sources(table)
    _finish_latest_record(descriptor, contract, table)
    records = []
    for file in files:
        if (file.key, file.etag) in known:
            log(f"{file.name}: already in the table")
            continue
        with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
            ingestion = _download(descriptor, contract, table, file, Path(folder))
            if (done := _done(ingestion, again=bool(only))) is not None:
                log(f"{file.name}: {done}")
                continue
            record = _ingest_file(ingestion)
        _log_record(descriptor, record, log)
        records.append(record)
    return records


def _named(files: list[LandingFile], name: str, dataset: str, descriptor: EnvironmentDescriptor) -> list[LandingFile]:
    """Return the landing file of a name, as a list.

    Raises:
        MlopsError: no such file has landed.
    """
    found = [file for file in files if file.name == name]
    if not found:
        latest = ", ".join(file.name for file in files[-5:]) or "none"
        raise MlopsError(
            f"{name!r} has not landed in {descriptor.name}: expected a landing file of {dataset}, found {latest}",
            fix=f"mlops land {dataset} {name} --env {descriptor.name}",
        )
    return found


def _finish_latest_record(descriptor: EnvironmentDescriptor, contract: Contract, table: Table) -> None:
    """Complete the record of the latest batch, in case the job was killed right after the commit."""
    snapshot = table.current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return
    digest = snapshot.summary.additional_properties.get(BATCH)
    record = read_record(descriptor, contract.name, digest) if digest else None
    if record is not None and record.verdict == "checked":
        outcome = {"verdict": "ingested", "snapshot": str(snapshot.snapshot_id)}
        write_record(descriptor, record.model_copy(update=outcome))


def _download(
    descriptor: EnvironmentDescriptor, contract: Contract, table: Table, file: LandingFile, scratch: Path
) -> IngestedFile:
    if file.size > LARGEST_FILE:
        return IngestedFile(descriptor, contract, table, file, None, digest_of_value([file.key, file.etag]), scratch)
    path = download(descriptor, file, scratch)
    return IngestedFile(descriptor, contract, table, file, path, digest_of_file(path), scratch)


def _done(ingestion: IngestedFile, *, again: bool) -> str | None:
    """Return why there is nothing to do for a file; None if it must be checked.

    Args:
        ingestion: the file.
        again: True to check a file again that this version of the contract has rejected.
    """
    if ingestion.path is not None and find_batch(ingestion.table.refresh(), ingestion.digest) is not None:
        return "already ingested"
    record = read_record(ingestion.descriptor, ingestion.contract.name, ingestion.digest)
    if record is None or record.contract != ingestion.contract.version:
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
            check_size(file.name, file.size)
            assert ingestion.path is not None
            batch = read_batch(ingestion.path, contract, ingestion.scratch, name=file.name)
            record = _commit_batch(ingestion, batch)
        except LandingFileError as error:
            record = ingestion.record(verdict="refused", refused=str(error))
            write_record(descriptor, record)
            run.failed = error.what
        else:
            _add_to_lineage(run, ingestion, record)
    return record


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

    descriptor, contract, file, digest = ingestion.descriptor, ingestion.contract, ingestion.file, ingestion.digest
    table = evolve(ingestion.table.refresh(), contract)
    added = find_batch(table, digest)
    keys = existing_keys(table, contract.primary_key)
    with validate(batch, contract, ingestion.scratch, existing_keys=keys) as checked:
        summary = checked.summary
        record = ingestion.record(
            verdict="checked" if summary.good else "quarantined",
            rows=summary.rows,
            good=summary.good,
            quarantined=summary.quarantined,
            reasons=tuple(BrokenRule(column=r.column, rule=r.rule, rows=r.rows) for r in summary.reasons),
        )
        if added is not None:  # by a concurrent job, which has also written the record
            return read_record(descriptor, contract.name, digest) or record
        if summary.quarantined:
            path = ingestion.scratch / "quarantine.parquet"
            checked.write_quarantine(path)
            upload_rows(descriptor, contract.name, digest, path)
        write_record(descriptor, record)
        if summary.good == 0:
            return record
        properties = {
            SOURCE: file.key,
            ETAG: file.etag,
            CONTRACT: contract.version,
            PRIMARY_KEY: ",".join(contract.primary_key),
        }
        snapshot = append(descriptor, table, checked.good_rows(), digest, properties)
    record = record.model_copy(update={"verdict": "ingested", "snapshot": snapshot})
    write_record(descriptor, record)
    return record


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
    run.inputs = [landing_data(descriptor, ingestion.file.key, **facts)]
    run.outputs = [table_data(descriptor, contract.name, columns=columns, version=record.snapshot, rows=record.good)]
    if record.quarantined:
        bucket, key = split_url(rows_url(descriptor, record.dataset, record.batch))
        run.outputs.append(Data(f"s3://{bucket}", key, version=record.batch, rows=record.quarantined))


def _log_record(descriptor: EnvironmentDescriptor, record: BatchRecord, log: Log) -> None:
    if record.refused is not None:
        log(record.refused)
        return
    snapshot = f", snapshot {record.snapshot}" if record.snapshot else ""
    log(f"{record.file}: {record.good} of {record.rows} rows are in the table{snapshot}")
    if record.quarantined:
        log(f"  {record.quarantined} in {rows_url(descriptor, record.dataset, record.batch)}")
        for line in reason_lines(record.reasons):
            log(f"  {line}")
