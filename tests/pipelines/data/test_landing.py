"""Landing files: checked before they are uploaded, and never replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ProfileNotFound
from click.testing import CliRunner

from pipelines.cli.main import mlops
from pipelines.data.landing import check_file, landing_bucket, landing_files, upload
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.aws import ACCOUNT, EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract
from tests.sample_project import PROJECT, ROOT, copy_as_forked, work_in_sample

pytestmark = pytest.mark.slow

CONTRACT = contract(column("age", "integer", required=True, minimum=0))
DATASET = "diabetes-patients"
SAMPLE = PROJECT / "data-contracts" / "samples" / f"{DATASET}.csv"


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("dev", CONTRACT)


def test_a_landing_file_is_never_replaced(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,age\n1,20\n")
    url = upload(dev, "visits", file)
    assert url == f"s3://{dev.landing_bucket}/visits/a.csv"
    file.write_text("id,age\n1,30\n")
    with pytest.raises(MlopsError, match=r"a\.csv already exists: landing files are never replaced") as caught:
        upload(dev, "visits", file)
    assert "rename the file" in caught.value.fix
    (found,) = landing_files(dev, "visits")
    body = boto3.client("s3").get_object(Bucket=dev.landing_bucket, Key=found.key)["Body"].read()
    assert body == b"id,age\n1,20\n"


def test_a_check_counts_the_rows_that_will_go_to_quarantine(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,age\n1,20\n2,-1\n3,x\n")
    summary = check_file(CONTRACT, file)
    assert (summary.rows, summary.good, summary.quarantined) == (3, 1, 2)
    assert {(reason.column, reason.rule, reason.rows) for reason in summary.reasons} == {
        ("age", "minimum", 1),
        ("age", "type", 1),
    }


def test_a_file_that_the_job_would_reject_is_rejected_by_the_check(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,weight\n1,20\n")
    with pytest.raises(MlopsError, match=r"a\.csv is rejected: .* no 'age'; also 'weight'"):
        check_file(CONTRACT, file)


def test_the_landing_bucket_is_known_from_the_declarations_and_the_account(account: EmulatedAccount) -> None:
    place = landing_bucket(Project(PROJECT), "dev")
    assert (place.landing_bucket, place.region) == (f"mlops-dev-landing-{ACCOUNT}", "eu-west-1")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (
            ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRole"),
            "ask an administrator to name your IAM role or user in landing_principals, for dev, in "
            "infra/bootstrap/Pulumi.account.yaml and to run the bootstrap again: docs/bootstrap.md",
        ),
        (
            ProfileNotFound(profile="land-dev"),
            'write the profile into ~/.aws/config: docs/data-scientist.md, "Land data"',
        ),
        (NoCredentialsError(), "sign in to AWS, for example with `aws sso login`"),
    ],
)
def test_a_caller_who_may_not_land_files_gets_to_know_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, fix: str
) -> None:
    def refuse(*arguments: object) -> object:
        raise error

    monkeypatch.setattr("pipelines.data.landing.clients.client", refuse)
    with pytest.raises(MlopsError, match="the caller's AWS account is unknown") as caught:
        landing_bucket(Project(PROJECT), "dev")
    assert caught.value.fix == fix


def test_files_land_only_where_data_is_ingested() -> None:
    with pytest.raises(MlopsError, match="prod ingests no data and trains no model: expected dev") as caught:
        landing_bucket(Project(PROJECT), "prod")
    assert caught.value.fix == "--env dev"


def land(*arguments: str) -> tuple[str, BaseException | None]:
    done = CliRunner().invoke(mlops, ["land", DATASET, *arguments, "--env", "dev", "--target", "aws"])
    return done.output, done.exception


def test_the_command_checks_uploads_and_says_what_comes_next(
    account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work_in_sample(monkeypatch, tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no Pulumi CLI: people who deliver data do not need it
    s3, bucket = boto3.client("s3"), f"mlops-dev-landing-{ACCOUNT}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    output, problem = land(str(SAMPLE), "--check")
    assert problem is None
    assert "442 of 447 rows keep version 1.0.0 of the contract" in output
    assert "5 will go to quarantine:" in output
    assert "1 row: sex: invalidValues" in output
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)

    output, problem = land(str(SAMPLE))
    assert problem is None
    assert f"landed s3://{bucket}/{DATASET}/{DATASET}.csv" in output
    assert f"Next: the job ingest-{DATASET} reads it on its schedule (" in output
    assert f"mlops ingest {DATASET} --env dev" in output

    _, problem = land(str(SAMPLE))
    assert "already exists" in str(problem)


def test_the_command_prints_nothing_to_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "land", DATASET, str(SAMPLE), "--env", "dev", "--check"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=copy_as_forked(tmp_path / "fork"), env=environ, capture_output=True, text=True, check=True
    )
    assert (done.stderr, "442 of 447 rows" in done.stdout) == ("", True)


def test_a_file_with_too_many_bad_rows_is_not_uploaded(
    account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work_in_sample(monkeypatch, tmp_path)
    header, first, *_ = SAMPLE.read_text().splitlines()
    file = tmp_path / "bad.csv"
    file.write_text(f"{header}\n{first.replace(first.split(',')[0], '-1', 1)}\n")
    output, problem = land(str(file))
    assert output == ""
    assert "bad.csv is rejected: expected at most 20 percent of 1 rows to break the contract" in str(problem)
    assert "mlops data release" not in str(problem), "the file has not landed"
