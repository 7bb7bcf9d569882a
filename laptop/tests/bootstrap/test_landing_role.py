"""The role that lands data files: who may assume it, and what it can do, by real calls to the laptop's account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner

from laptop.tests.bootstrap.conftest import STEWARD, Caller, Ready
from laptop.tests.bootstrap.test_permissions import bucket, key, refused
from pipelines.cli.main import mlops
from tests.sample_project import PROJECT, work_in_sample

pytestmark = pytest.mark.slow

DATASET = "diabetes-patients"
SAMPLE = PROJECT / "data-contracts" / "samples" / f"{DATASET}.csv"
LANDING = bucket("dev", "landing")
COMMAND = ["land", DATASET, str(SAMPLE), "--env", "dev", "--target", "aws"]


def person(ready: Ready, name: str, path: str = "/") -> Caller:
    """Return a caller with a new role that has no permissions, like that of a person who signs in."""
    operator = ready.operator["sts"].get_caller_identity()["Arn"]
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"AWS": operator}, "Action": "sts:AssumeRole"}]}
    made = ready.operator["iam"].create_role(
        RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", **trust})
    )
    return assume(ready, ready.operator, made["Role"]["Arn"])


def assume(ready: Ready, who: Caller, role: str) -> Caller:
    return ready.caller(**who["sts"].assume_role(RoleArn=role, RoleSessionName="ada")["Credentials"])


@pytest.fixture(scope="module")
def land_role(ready: Ready) -> str:
    return str(ready.outputs["land_roles"]["dev"])


@pytest.fixture(scope="module")
def steward(provisioned: Ready, land_role: str) -> Caller:
    """A data steward who has assumed the landing role of dev."""
    path, _, name = STEWARD.partition(":role")[2].rpartition("/")
    return assume(provisioned, person(provisioned, name, f"{path}/"), land_role)


def test_only_a_named_caller_can_assume_the_role(ready: Ready, land_role: str) -> None:
    for who in (person(ready, "data-steward-2"), person(ready, "somebody"), ready.operator, ready.as_job("dev")):
        with pytest.raises(ClientError, match=r"\(AccessDenied\)"):
            assume(ready, who, land_role)


def test_it_adds_a_landing_file_and_cannot_replace_read_list_or_delete_one(steward: Caller) -> None:
    s3, name = steward["s3"], f"{DATASET}/a.csv"
    s3.put_object(Bucket=LANDING, Key=name, Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=LANDING, Key=name, Body=b"2", IfNoneMatch="*")
    with refused("s3:PutObject"):
        s3.put_object(Bucket=LANDING, Key=name, Body=b"2")
    with refused("s3:PutObject"):
        s3.create_multipart_upload(Bucket=LANDING, Key=f"{DATASET}/b.csv")
    with refused("s3:GetObject"):
        s3.get_object(Bucket=LANDING, Key=name)
    with refused("s3:ListBucket"):
        s3.list_objects_v2(Bucket=LANDING)
    with refused("s3:DeleteObject"):
        s3.delete_object(Bucket=LANDING, Key=name)


@pytest.mark.parametrize(
    ("environment", "purpose"),
    [("dev", "lake"), ("dev", "logs"), ("dev", "registry"), ("staging", "landing"), ("staging", "registry")],
)
def test_it_writes_nowhere_else(steward: Caller, environment: str, purpose: str) -> None:
    with refused("s3:PutObject"):
        steward["s3"].put_object(Bucket=bucket(environment, purpose), Key="x", Body=b"1", IfNoneMatch="*")


def test_it_uses_the_key_only_through_s3_for_the_landing_bucket(provisioned: Ready, steward: Caller) -> None:
    data = key(provisioned, "dev", "data")
    landing = {"aws:s3:arn": f"arn:aws:s3:::{LANDING}"}
    with refused("kms:GenerateDataKey"):
        steward["kms"].generate_data_key(KeyId=data, KeySpec="AES_256", EncryptionContext=landing)
    with refused("kms:Encrypt"):
        steward["kms"].encrypt(KeyId=data, Plaintext=b"1")


@pytest.mark.parametrize(
    ("action", "service", "call"),
    [
        ("iam:ListRoles", "iam", lambda client: client.list_roles()),
        ("glue:GetTable", "glue", lambda client: client.get_table(DatabaseName="mlops_dev", Name="diabetes_patients")),
        ("sts:AssumeRole", "sts", lambda client: client.assume_role(RoleArn=STEWARD, RoleSessionName="ada")),
    ],
)
def test_it_can_do_nothing_but_land_files(steward: Caller, action: str, service: str, call: Any) -> None:
    with refused(action):
        call(steward[service])


def test_a_person_lands_a_file_by_one_command(
    provisioned: Ready,
    steward: Caller,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in steward.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    work_in_sample(monkeypatch, tmp_path)
    done = CliRunner().invoke(mlops, COMMAND)
    assert done.exception is None, done.output
    assert f"landed s3://{LANDING}/{DATASET}/{SAMPLE.name}" in done.output
    again = CliRunner().invoke(mlops, COMMAND)
    assert "already exists: landing files are never replaced" in str(again.exception)


def test_another_caller_learns_which_role_to_use(
    provisioned: Ready, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in provisioned.as_job("dev").environ().items():
        monkeypatch.setenv(name, value)
    work_in_sample(monkeypatch, tmp_path)
    problem = str(CliRunner().invoke(mlops, COMMAND).exception)
    assert "s3:PutObject on s3://mlops-dev-landing-123456789012" in problem
    assert "fix: sign in with the environment's landing role" in problem
