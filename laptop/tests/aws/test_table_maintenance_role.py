"""Table maintenance under the policy and the boundary that the programs give its role, enforced by the account."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from laptop.aws.account import Account
from pipelines.data import compaction
from pipelines.data.catalog import open_table, read_version
from pipelines.data.file_replacement import current_files
from pipelines.data.ingest import ingest
from pipelines.data.landing import upload
from pipelines.data.table_maintenance import maintain_table, publish_figures
from pipelines.declarations.environment import EnvironmentDescriptor
from tests import aws
from tests.infra.recording import ACCOUNT, REGION, Recording
from tests.pipelines.data.contracts import column, contract
from tests.pipelines.registry.chains import offline_environment

pytestmark = pytest.mark.slow

DATASET = "diabetes-patients"
CONTRACT = contract(
    column("age", "integer"),
    name=DATASET,
    customProperties=[{"property": "monitoring", "value": {"enabled": False}}],
)


@pytest.fixture
def dev(
    account: Account, client: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> EnvironmentDescriptor:
    """The buckets, the table and four small files of dev, made by the operator."""
    number = client("sts").get_caller_identity()["Account"]
    buckets = {kind: f"mlops-dev-{kind}-{number}" for kind in ("landing", "lake", "logs", "registry")}
    for bucket in buckets.values():
        client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": account.region})
    client("glue").create_database(DatabaseInput={"Name": "mlops_dev"})
    names = {f"{kind}_bucket": bucket for kind, bucket in buckets.items()}
    places = {"region": account.region, "account": number, "catalog_database": "mlops_dev"}
    made = offline_environment().model_copy(update={**names, **places})
    for name, value in account.environ().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compaction, "FEWEST_FILES", 2)
    aws.make_table(made, CONTRACT)
    for key in range(1, 5):
        path = tmp_path / f"{key}.csv"
        path.write_text(f"id,age\n{key},30\n")
        upload(made, DATASET, path)
        ingest(made, CONTRACT, lambda _: None)
    return made


def test_a_role_cares_for_its_table_and_can_delete_nothing_else(
    dev: EnvironmentDescriptor,
    graphs: dict[str, Recording],
    bootstrap: Recording,
    client: Callable[[str], Any],
    pod: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def here(document: str) -> Any:
        return json.loads(document.replace(ACCOUNT, dev.account).replace(REGION, dev.region))

    table = f"{dev.catalog_database}/diabetes_patients"
    others = ("mlops_dev/diabetes_patients_2/data/a.parquet", f"quarantine/{DATASET}/a.json")
    for key in (f"{table}/data/left-over.parquet", *others):
        client("s3").put_object(Bucket=dev.lake_bucket, Key=key, Body=b"x")
    policy = bootstrap.one("aws:iam/policy:Policy", "dev-boundary").at("policy")
    boundary = client("iam").create_policy(PolicyName="maintenance-boundary", PolicyDocument=json.dumps(here(policy)))
    statements = here(json.dumps(graphs["dev"].policy(f"maintain-{DATASET}")))
    role = pod(*statements, boundary=boundary["Policy"]["Arn"])
    for name, part in (
        ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
        ("AWS_SESSION_TOKEN", "SessionToken"),
    ):
        monkeypatch.setenv(name, role.credentials[part])
    later = datetime.now(UTC) + timedelta(days=200)
    done = maintain_table(dev, CONTRACT, (), later, lambda _: None)
    publish_figures(dev, DATASET, "mlops-dev", done, later)
    assert (done["RemovedFiles"], done["JoinedFiles"], done["ExpiredVersions"]) == (1, 3, 3)
    # A version expires in the run after the one that replaced it, and its files go a week later.
    weeks = [maintain_table(dev, CONTRACT, (), later + timedelta(days=8 * week), lambda _: None) for week in (1, 2)]
    assert [done["ExpiredVersions"] for done in weeks] == [1, 0]
    assert sum(done["RemovedFiles"] for done in weeks) > 4, "the files of the versions that expired"
    assert len(current_files(open_table(dev, DATASET))) == 2
    assert read_version(dev, DATASET)[0]["id"].to_pylist() == [1, 2, 3, 4]
    for key in others:
        with pytest.raises(ClientError, match="AccessDenied"):
            role["s3"].delete_object(Bucket=dev.lake_bucket, Key=key)
    with pytest.raises(ClientError, match="AccessDenied"):
        role["s3"].delete_object(Bucket=dev.lake_bucket, Key=f"{table}/data/x", VersionId="null")
    logged = client("s3").list_objects_v2(Bucket=dev.logs_bucket, Prefix=f"lineage/maintain-{DATASET}/")
    assert logged["KeyCount"] == 6, "start and end of three runs"
