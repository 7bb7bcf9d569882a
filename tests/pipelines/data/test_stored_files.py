"""Contract checks of the files under an S3 prefix."""

from __future__ import annotations

import uuid
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli.contracts import contract as command
from pipelines.data.contract_check import check_stored_files
from pipelines.data.stored_files import stored_files
from pipelines.declarations.errors import MlopsError
from tests.aws import REGION, EmulatedAccount
from tests.pipelines.data.contracts import column, contract
from tests.sample_project import copy_as_forked

pytestmark = pytest.mark.slow

VISITS = contract(column("age", "integer", minimum=0))


@pytest.fixture
def bucket(account: EmulatedAccount, tmp_path: Path) -> str:
    name, s3 = f"deliveries-{uuid.uuid4().hex[:12]}", boto3.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    table = tmp_path / "b.parquet"
    pq.write_table(pa.table({"id": [1, 2], "age": [3, -4]}), table)
    for key, content in {
        "day-1/a.csv": b"id,age\n1,20\n",
        "day-1/deep/b.PARQUET": table.read_bytes(),
        "day-1/broken.csv": b"id\n1\n",
        "day-1/notes.txt": b"hello",
        "day-10/c.csv": b"id,age\n1,20\n",
    }.items():
        s3.put_object(Bucket=name, Key=key, Body=content)
    return name


def test_every_data_file_under_a_prefix_is_checked_and_no_other(bucket: str) -> None:
    reports = list(check_stored_files(VISITS, f"s3://{bucket}/day-1", REGION))
    found = {report.name.removeprefix(f"s3://{bucket}/"): (report.rows, len(report.broken)) for report in reports}
    assert found == {"day-1/a.csv": (1, 0), "day-1/broken.csv": (None, 0), "day-1/deep/b.PARQUET": (2, 1)}
    assert "no 'age'" in next(report.rejected for report in reports if report.rejected)


def test_a_prefix_may_be_one_file_or_the_whole_bucket(bucket: str) -> None:
    assert [name for name, _ in stored_files(f"s3://{bucket}/day-10/c.csv", REGION)] == [f"s3://{bucket}/day-10/c.csv"]
    assert len(stored_files(f"s3://{bucket}", REGION)) == 4


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://{bucket}/day-2/", "has no data files"),
        ("s3://{bucket}/day-1/notes.txt", "has no data files"),
        ("s3://", "found no bucket"),
        ("s3://no-such-bucket-of-ours/x", "no-such-bucket-of-ours"),
    ],
)
def test_a_wrong_prefix_is_a_clear_error(bucket: str, url: str, words: str) -> None:
    with pytest.raises(MlopsError, match=words):
        stored_files(url.format(bucket=bucket), REGION)


def test_the_command_checks_files_folders_and_prefixes_together(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_as_forked(tmp_path / "project")
    monkeypatch.chdir(root)
    sample = root / "data-contracts" / "samples" / "diabetes-patients.csv"
    boto3.client("s3").upload_file(str(sample), bucket, "patients/sample.csv")
    arguments = ["test", "diabetes-patients", str(sample), f"s3://{bucket}/patients/"]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 1, done.output  # the sample has five bad rows
    assert f"s3://{bucket}/patients/sample.csv: 447 rows, 5 of " in done.output
    assert "0 of 2 keep version" in done.output
