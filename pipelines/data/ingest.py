"""Take in what has landed: check it against its contract, put what breaks it into quarantine, append the rest.

A batch is a landing file, named by the digest of its content. Its order of steps makes a job that is killed at any
point safe to run again: rows to quarantine, then the record, then one commit that adds the good rows and notes the
batch with the snapshot. Before the commit nothing of it is in the table, and all is done again; after it, the batch is
found in the table's history and left alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from pipelines.data.columns import stored_as
from pipelines.data.landing import LandingFile, download, landing_files
from pipelines.data.lineage import Assertion, Data, LineageRun, landing_data, lineage, table_data
from pipelines.data.quarantine import BatchRecord, BrokenRule, place_of, read_record, upload_rows, write_record
from pipelines.data.reading import LARGEST_FILE, Batch, Refused, read_batch
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_file, digest_of_value
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError

if TYPE_CHECKING:
    from pyiceberg.table import Table

Say = Callable[[str], None]

MOST_ATTEMPTS = 5
"""How often a commit that lost against another one is tried again, each time with the checks against the table."""


def ingest(descriptor: EnvironmentDescriptor, contract: Contract, say: Say) -> list[BatchRecord]:
    """Take in every file of a dataset's landing prefix that is not in the table yet, in the order of names.

    A file that is refused stays where it is, is refused again by the next run, and does not keep the others from being
    taken in.

    Args:
        descriptor: the environment.
        contract: of the dataset.
        say: told what became of each file, a line at a time.

    Returns:
        A record for each file that was looked at.

    Raises:
        MlopsError: there is no table for the dataset, or it cannot hold what the contract says.
    """
    files = landing_files(descriptor, contract.name)
    if not files:
        say(f"nothing has landed in s3://{descriptor.landing_bucket}/{contract.name}/")
        return []
    table = evolve(open_table(descriptor, contract.name), contract)
    known = known_sources(table)
    _finish_latest(descriptor, contract, table)
    records = []
    for file in files:
        if (file.key, file.etag) in known:
            say(f"{file.name}: in the table already")
            continue
        with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
            record = _ingest_file(descriptor, contract, table, file, Path(folder), say)
        if record is not None:
            records.append(record)
    return records


def _ingest_file(
    descriptor: EnvironmentDescriptor, contract: Contract, table: Table, file: LandingFile, folder: Path, say: Say
) -> BatchRecord | None:
    source, target = landing_data(descriptor, file.key, version=file.etag), table_data(descriptor, contract.name)
    path: Path | None = None
    batch = digest_of_value([file.key, file.etag])  # only for a file that is too large to be downloaded
    if file.size <= LARGEST_FILE:
        path = download(descriptor, file, folder)
        batch = digest_of_file(path)
        if _is_done(descriptor, contract, table.refresh(), batch):
            say(f"{file.name}: taken in before")
            return None
    with lineage(descriptor, f"ingest-{contract.name}", [source], [target]) as run:
        try:
            if path is None:
                most, found = f"at most {LARGEST_FILE} bytes", f"{file.size} bytes"
                raise Refused(file.name, most, found, "cut it into several files")
            rows = read_batch(path, contract, folder, name=file.name)
            record = _take_in(descriptor, contract, table, file, rows, batch, folder)
            _tell_lineage(run, descriptor, contract, file, record)
        except Refused as refusal:
            record = _record(contract, file, batch, verdict="refused", refused=refusal.what)
            write_record(descriptor, record)
            run.failed = refusal.what
            say(str(refusal))
            return record
    _tell(descriptor, record, say)
    return record


def _is_done(descriptor: EnvironmentDescriptor, contract: Contract, table: Table, batch: str) -> bool:
    """Whether a batch is in the table or, for want of one good row, wholly in quarantine by the same contract."""
    if find_batch(table, batch) is not None:
        return True
    record = read_record(descriptor, contract.name, batch)
    return record is not None and record.verdict == "quarantined" and record.contract == contract.version


def _finish_latest(descriptor: EnvironmentDescriptor, contract: Contract, table: Table) -> None:
    """Complete the record of the latest batch: the job may have been killed just after its commit."""
    snapshot = table.current_snapshot()
    if snapshot is None or snapshot.summary is None:
        return
    batch = snapshot.summary.additional_properties.get(BATCH)
    record = read_record(descriptor, contract.name, batch) if batch else None
    if record is not None and record.verdict == "checked":
        done = {"verdict": "ingested", "snapshot": str(snapshot.snapshot_id)}
        write_record(descriptor, record.model_copy(update=done))


def _take_in(
    descriptor: EnvironmentDescriptor,
    contract: Contract,
    table: Table,
    file: LandingFile,
    rows: Batch,
    batch: str,
    folder: Path,
) -> BatchRecord:
    from pyiceberg.exceptions import CommitFailedException
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    attempts = Retrying(
        retry=retry_if_exception_type(CommitFailedException),
        stop=stop_after_attempt(MOST_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.1, max=10),
        reraise=True,
    )
    try:
        return attempts(_attempt, descriptor, contract, table, file, rows, batch, folder)
    except CommitFailedException as error:
        raise MlopsError(
            f"{file.name}: {MOST_ATTEMPTS} commits to the table of {contract.name} lost against others: {error}",
            fix="run the job again when fewer others write to the table",
        ) from None


def _attempt(
    descriptor: EnvironmentDescriptor,
    contract: Contract,
    table: Table,
    file: LandingFile,
    rows: Batch,
    batch: str,
    folder: Path,
) -> BatchRecord:
    from pipelines.data.validate import validate

    evolve(table.refresh(), contract)
    other = find_batch(table, batch)
    with validate(rows, contract, folder, existing_keys=existing_keys(table, contract.primary_key)) as checked:
        summary = checked.summary
        record = _record(
            contract,
            file,
            batch,
            verdict="checked" if summary.good else "quarantined",
            rows=summary.rows,
            good=summary.good,
            quarantined=summary.quarantined,
            reasons=tuple(BrokenRule(column=r.column, rule=r.rule, rows=r.rows) for r in summary.reasons),
        )
        if other is not None:  # a job at the same time took it in, and wrote down what it found
            return read_record(descriptor, contract.name, batch) or record
        if summary.quarantined:
            path = folder / "quarantine.parquet"
            checked.write_quarantine(path)
            upload_rows(descriptor, contract.name, batch, path)
        write_record(descriptor, record)
        if summary.good == 0:
            return record
        properties = {
            SOURCE: file.key,
            ETAG: file.etag,
            CONTRACT: contract.version,
            PRIMARY_KEY: ",".join(contract.primary_key),
        }
        snapshot = append(descriptor, table, checked.good_rows(), batch, properties)
    record = record.model_copy(update={"verdict": "ingested", "snapshot": snapshot})
    write_record(descriptor, record)
    return record


def _record(contract: Contract, file: LandingFile, batch: str, **facts: Any) -> BatchRecord:
    return BatchRecord(dataset=contract.name, file=file.name, batch=batch, contract=contract.version, **facts)


def _tell_lineage(
    run: LineageRun, descriptor: EnvironmentDescriptor, contract: Contract, file: LandingFile, record: BatchRecord
) -> None:
    columns = {name: stored_as(column) for name, column in contract.columns.items()}
    broken = {(reason.column, reason.rule) for reason in record.reasons}
    held = [(rule.column, rule.name) for rule in contract_rules(contract)]
    held += [(", ".join(group.columns), group.name) for group in unique_groups(contract)]
    held += sorted(broken - set(held))
    assertions = [Assertion(rule, column or None, (column, rule) not in broken) for column, rule in held]
    facts = {"columns": columns, "version": record.batch, "rows": record.rows, "assertions": assertions}
    run.inputs = [landing_data(descriptor, file.key, **facts)]
    run.outputs = [
        table_data(descriptor, contract.name, columns=columns, version=record.snapshot, rows=record.good),
    ]
    if record.quarantined:
        place = place_of(descriptor, record.dataset, record.batch, ".parquet")
        bucket, _, key = place.removeprefix("s3://").partition("/")
        run.outputs.append(Data(f"s3://{bucket}", key, version=record.batch, rows=record.quarantined))


def _tell(descriptor: EnvironmentDescriptor, record: BatchRecord, say: Say) -> None:
    added = f", snapshot {record.snapshot}" if record.snapshot else ""
    say(f"{record.file}: {record.good} of {record.rows} rows are in the table{added}")
    if record.quarantined:
        say(f"  {record.quarantined} in {place_of(descriptor, record.dataset, record.batch, '.parquet')}")
        for reason in record.reasons:
            rows = f"{reason.rows:>6} {'row' if reason.rows == 1 else 'rows'}"
            say(f"  {rows}: {reason.column or 'the row'}: {reason.rule}")
