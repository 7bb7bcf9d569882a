"""What became of each batch: a summary as JSON and, beside it, the rows that broke the contract, with the reasons.

Both lie in the lake bucket under `quarantine/<dataset>/<hex digits of the batch's digest>`. The same batch writes the
same two objects, so a job that was killed and runs again leaves nothing twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipelines.data.clients import s3
from pipelines.declarations.digests import Digest
from pipelines.declarations.documents import Declaration
from pipelines.declarations.environment import EnvironmentDescriptor


class BrokenRule(Declaration):
    """How many rows broke a rule.

    Attributes:
        column: the column's name; several with commas; "" for the row as such.
        rule: the rule, as the contract calls it.
        rows: how many rows.
    """

    column: str
    rule: str
    rows: int


class BatchRecord(Declaration):
    """What became of a batch.

    Attributes:
        dataset: the contract's name.
        file: the landing file's name.
        batch: the digest of its content.
        contract: version of the contract that it was checked against.
        verdict: `ingested`: its good rows are in the table; `checked`: they are about to be; `quarantined`: there was
            no good row; `refused`: the file as a whole was not readable as what it should be.
        rows, good, quarantined: how many rows; `good + quarantined == rows`.
        reasons: by rule, for the rows in quarantine.
        snapshot: the Iceberg snapshot that added the good rows.
        refused: why the file was refused.
    """

    format: Literal["mlops/batch/v1"] = "mlops/batch/v1"
    dataset: str
    file: str
    batch: Digest
    contract: str
    verdict: Literal["ingested", "checked", "quarantined", "refused"]
    rows: int = 0
    good: int = 0
    quarantined: int = 0
    reasons: tuple[BrokenRule, ...] = Field(default=())
    snapshot: str | None = None
    refused: str | None = None


def place_of(descriptor: EnvironmentDescriptor, dataset: str, batch: str, suffix: str) -> str:
    """The URL of a batch's rows in quarantine (`.parquet`) or of its record (`.json`)."""
    return f"s3://{descriptor.lake_bucket}/{_key(dataset, batch, suffix)}"


def write_record(descriptor: EnvironmentDescriptor, record: BatchRecord) -> None:
    """Write down what became of a batch."""
    s3(descriptor).put_object(
        Bucket=descriptor.lake_bucket,
        Key=_key(record.dataset, record.batch, ".json"),
        Body=(json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode(),
        ContentType="application/json",
    )


def read_record(descriptor: EnvironmentDescriptor, dataset: str, batch: str) -> BatchRecord | None:
    """What was written down of a batch, or None."""
    from botocore.exceptions import ClientError
    from pydantic import ValidationError

    try:
        found = s3(descriptor).get_object(Bucket=descriptor.lake_bucket, Key=_key(dataset, batch, ".json"))
        return BatchRecord.model_validate_json(found["Body"].read())
    except ClientError as error:
        # 403 is S3's answer, too, for an object that is not there, to who may not list the whole bucket.
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404", "AccessDenied", "403"):
            return None
        raise
    except ValidationError:
        return None


def upload_rows(descriptor: EnvironmentDescriptor, dataset: str, batch: str, path: Path) -> None:
    """Put the rows of a batch that broke the contract (a Parquet file) into quarantine."""
    s3(descriptor).upload_file(str(path), descriptor.lake_bucket, _key(dataset, batch, ".parquet"))


def _key(dataset: str, batch: str, suffix: str) -> str:
    return f"quarantine/{dataset}/{batch.removeprefix('sha256:')}{suffix}"
