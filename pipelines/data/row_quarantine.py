"""Quarantine: for each batch a JSON record of its outcome, and a Parquet file of the rows that broke the contract.

Both are stored in the lake bucket as `quarantine/<dataset>/<hex digits of the batch's digest>`. Ingesting a batch again
overwrites the same two objects, so ingestion is idempotent.

When quarantined rows are released, the states before and after are saved in the folder of that name: the first for a
rollback of the table, the second for a job that is killed after its commit.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from pipelines.data.batch import QualityWarning
from pipelines.data.glue_client import s3
from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import store

if TYPE_CHECKING:
    from pipelines.data.batch import ReasonCount

LARGEST_RECORD = 1 << 20
"""Size limit of a batch's record, in bytes."""


class BrokenRule(Declaration):
    """Number of rows that broke a rule.

    Attributes:
        column: name of the column; "" for the whole row; names separated by commas for several columns.
        rule: name of the rule, as the contract calls it.
        rows: number of rows.
    """

    column: str
    rule: str
    rows: int


class BatchRecord(Declaration):
    """Outcome of a batch.

    Attributes:
        dataset: name of the contract.
        file: name of the landing file.
        batch: digest of the landing file.
        contract: version of the contract that checked the batch.
        verdict: `checked`: the good rows are about to be appended; `ingested`: they are in the table; `quarantined`:
            there are no good rows; `refused`: the file was rejected as a whole; `dropped`: a person gave the file, or
            its quarantined rows, up.
        rows, good, quarantined: number of rows; `good + quarantined == rows`.
        reasons: quarantined rows by broken rule.
        warnings: rules that the batch breaks and that do not bind.
        snapshot: Iceberg snapshot that added the good rows.
        refused: why the file was rejected.
        etag: ETag of the landing file.
        dropped: why the file, or its quarantined rows, were given up.
    """

    format: Literal["mlops/batch/v1"] = "mlops/batch/v1"
    dataset: str
    file: str
    batch: Digest
    contract: str
    verdict: Literal["ingested", "checked", "quarantined", "refused", "dropped"]
    rows: int = 0
    good: int = 0
    quarantined: int = 0
    reasons: tuple[BrokenRule, ...] = Field(default=())
    warnings: tuple[QualityWarning, ...] = Field(default=())
    snapshot: str | None = None
    refused: str | None = None
    etag: str | None = None
    dropped: str | None = None


def reason_lines(reasons: Iterable[BrokenRule | ReasonCount]) -> list[str]:
    """Return a line for each broken rule: the number of rows, the column and the rule."""
    return [
        f"{reason.rows:>6} {'row' if reason.rows == 1 else 'rows'}: {reason.column or 'the row'}: {reason.rule}"
        for reason in reasons
    ]


def rows_url(descriptor: EnvironmentDescriptor, dataset: str, batch: str) -> str:
    """Return the URL of a batch's quarantined rows (`s3://…`, Parquet)."""
    return f"s3://{descriptor.lake_bucket}/{_key(dataset, batch, '.parquet')}"


def write_record(descriptor: EnvironmentDescriptor, record: BatchRecord) -> None:
    """Write or overwrite the record of a batch."""
    content = (json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()
    key = _key(record.dataset, record.batch, ".json")
    store.put(descriptor.lake_bucket, key, content, content_type="application/json", client=s3(descriptor))


def read_record(descriptor: EnvironmentDescriptor, dataset: str, batch: str) -> BatchRecord | None:
    """Read the record of a batch; None if there is none, or if it is not valid."""
    key = _key(dataset, batch, ".json")
    try:
        found = store.get(descriptor.lake_bucket, key, limit=LARGEST_RECORD, client=s3(descriptor))
        return BatchRecord.model_validate_json(found.content)
    except (store.NotFoundError, store.AccessDeniedError, ValidationError):
        # S3 answers 403 for an absent object if the role may not list the bucket.
        return None


def read_records(descriptor: EnvironmentDescriptor, dataset: str) -> list[BatchRecord]:
    """Read the records of all batches of a dataset, in the order of their files; invalid ones are left out.

    Raises:
        AccessDeniedError: the caller may not list or read them.
    """
    prefix, found = f"quarantine/{dataset}/", []
    for listed in store.listing(descriptor.lake_bucket, prefix, client=s3(descriptor)):
        if not listed.key.endswith(".json") or "/" in listed.key.removeprefix(prefix):
            continue  # deeper ones are earlier states
        content = store.get(descriptor.lake_bucket, listed.key, limit=LARGEST_RECORD, client=s3(descriptor)).content
        try:
            found.append(BatchRecord.model_validate_json(content))
        except ValidationError:
            continue
    return sorted(found, key=lambda record: (record.file, record.batch))


def download_rows(descriptor: EnvironmentDescriptor, dataset: str, batch: str, path: Path) -> bool:
    """Download the quarantined rows of a batch; return False if there are none."""
    try:
        store.download(descriptor.lake_bucket, _key(dataset, batch, ".parquet"), path, client=s3(descriptor))
    except (store.NotFoundError, store.AccessDeniedError):
        # S3 answers 403 for an absent object if the role may not list the bucket.
        return False
    return True


def upload_rows(descriptor: EnvironmentDescriptor, dataset: str, batch: str, path: Path) -> None:
    """Upload a Parquet file with the quarantined rows of a batch."""
    store.upload(descriptor.lake_bucket, _key(dataset, batch, ".parquet"), path, client=s3(descriptor))


def save_state(descriptor: EnvironmentDescriptor, name: str, record: BatchRecord, path: Path) -> None:
    """Save a state of a batch under a name: its record, and a Parquet file of its quarantined rows."""
    store.upload(descriptor.lake_bucket, _state_key(record, name, ".parquet"), path, client=s3(descriptor))
    content = record.model_dump_json().encode()
    key = _state_key(record, name, ".json")
    store.put(descriptor.lake_bucket, key, content, content_type="application/json", client=s3(descriptor))


def saved_states(descriptor: EnvironmentDescriptor, record: BatchRecord) -> dict[str, BatchRecord]:
    """Return the saved states of a batch by their names; invalid ones are left out."""
    prefix, found = _state_key(record, "", ""), {}
    for listed in store.listing(descriptor.lake_bucket, prefix, client=s3(descriptor)):
        name = listed.key.removeprefix(prefix)
        if not name.endswith(".json"):
            continue
        content = store.get(descriptor.lake_bucket, listed.key, limit=LARGEST_RECORD, client=s3(descriptor)).content
        with suppress(ValidationError):
            found[name.removesuffix(".json")] = BatchRecord.model_validate_json(content)
    return found


def restore_state(descriptor: EnvironmentDescriptor, name: str, record: BatchRecord) -> None:
    """Make a saved state of a batch the current one.

    Args:
        descriptor: the environment.
        name: name of the state.
        record: its record.
    """
    with tempfile.TemporaryDirectory(prefix="quarantine-") as folder:
        path = Path(folder) / "rows.parquet"
        client = s3(descriptor)
        store.download(descriptor.lake_bucket, _state_key(record, name, ".parquet"), path, client=client)
        upload_rows(descriptor, record.dataset, record.batch, path)
    write_record(descriptor, record)


def _state_key(record: BatchRecord, name: str, suffix: str) -> str:
    return _key(record.dataset, record.batch, f"/{name}{suffix}")


def _key(dataset: str, batch: str, suffix: str) -> str:
    return f"quarantine/{dataset}/{batch.removeprefix('sha256:')}{suffix}"
