from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import pipelines.data
from pipelines.cli.main import mlops
from pipelines.data import __main__ as job
from pipelines.data.catalog import open_table, read_version
from pipelines.data.ingest import ingest
from pipelines.data.landing import upload
from pipelines.data.landing_status import read_status
from pipelines.data.row_quarantine import BatchRecord
from pipelines.data.table_changes import TABLE_CHANGE, TableChange, make_change
from pipelines.data.version_details import details_lines, read_details
from pipelines.data.version_files import read_named, write_version
from pipelines.data.version_retention import plan_expiry
from pipelines.data.versions import TableVersion, check_tag, find_version, list_versions, version_lines
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import VARIABLE, EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract
from tests.sample_project import PROJECT, work_in_sample

CONTRACT = contract(column("age", "integer", required=True, minimum=0), column("name", "string"))


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("dev", CONTRACT)


def land(dev: EnvironmentDescriptor, folder: Path, name: str, *lines: str, declared: Contract = CONTRACT) -> None:
    path = folder / name
    path.write_text("\n".join(("id,age,name", *lines)) + "\n")
    upload(dev, declared.name, path)


def run(dev: EnvironmentDescriptor, **options: object) -> list[BatchRecord]:
    return ingest(dev, CONTRACT, lambda _: None, **options)  # type: ignore[arg-type]


def versions(dev: EnvironmentDescriptor) -> list[TableVersion]:
    return list_versions(open_table(dev, "visits"))


def ids(dev: EnvironmentDescriptor, snapshot: str | None = None) -> list[int]:
    found: list[int] = read_version(dev, "visits", snapshot)[0]["id"].to_pylist()
    return found


def change(dev: EnvironmentDescriptor, **fields: object) -> list[str]:
    lines: list[str] = []
    make_change(dev, CONTRACT, TableChange.model_validate_json(json.dumps(fields)), lines.append)
    return lines


def add(dev: EnvironmentDescriptor, folder: Path, *names: str) -> list[str]:
    """Ingest a file of one row for each name; return the snapshots."""
    for number, name in enumerate(names, len(versions(dev)) + 1):
        land(dev, folder, f"{name}.csv", f"{number},{20 + number},{name}")
        run(dev)
    return [version.snapshot for version in reversed(versions(dev))]


@pytest.mark.slow
def test_the_log_names_rows_files_contracts_and_tags(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first, second = add(dev, tmp_path, "a", "b")
    change(dev, action="tag", snapshots=[first], tag="audited")
    newest, oldest = versions(dev)
    assert (newest.snapshot, newest.rows, newest.added, newest.file) == (second, 2, 1, "b.csv")
    assert (oldest.snapshot, oldest.rows, oldest.contract, oldest.tags) == (first, 1, "1.0.0", ("audited",))
    assert newest.is_current and not oldest.is_current and oldest.is_included
    assert "(audited)" in version_lines([oldest])[0]
    for name, expected in (("latest", second), (first, first), ("audited", first), ("b.csv", second)):
        assert find_version(versions(dev), name, "visits").snapshot == expected
    with pytest.raises(MlopsError, match=r"visits has no version 'c\.csv': expected a snapshot, a tag"):
        find_version(versions(dev), "c.csv", "visits")


@pytest.mark.slow
def test_a_tag_is_written_once_and_never_moved(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first, second = add(dev, tmp_path, "a", "b")
    change(dev, action="tag", snapshots=[first], tag="audited")
    assert change(dev, action="tag", snapshots=[first], tag="audited") == [
        f"visits: audited is version {first} already"
    ]
    with pytest.raises(MlopsError, match=f"exists: expected version {second}, found {first}"):
        change(dev, action="tag", snapshots=[second], tag="audited")
    change(dev, action="untag", tag="audited")
    assert change(dev, action="untag", tag="audited") == ["visits has no tag audited"]
    change(dev, action="tag", snapshots=[second], tag="audited")
    assert versions(dev)[0].tags == ("audited",)


@pytest.mark.parametrize("name", ["main", "latest", "batch-1", "Big", "", "a b", "x" * 64, "-a"])
def test_a_reserved_or_malformed_tag_is_refused(name: str) -> None:
    with pytest.raises(MlopsError, match="cannot be a tag: expected"):
        check_tag(name)


@pytest.mark.slow
def test_a_rollback_lasts_and_a_released_file_comes_back(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first, _, third = add(dev, tmp_path, "a", "b", "c")
    change(dev, action="rollback", snapshots=[first], reason="wrong units")
    assert ids(dev) == [1]
    assert run(dev) == []  # the next ingestion does not undo it
    assert ids(dev) == [1] and ids(dev, third) == [1, 2, 3]
    states = {status.file: status.description for status in read_status(dev, "visits")}
    assert states["b.csv"] == f"dropped: rolled back to {first}: wrong units"
    assert [version.is_included for version in versions(dev)] == [False, False, True]
    assert change(dev, action="rollback", snapshots=[first]) == [f"visits: {first} is already the current version"]
    with pytest.raises(MlopsError, match=r"cannot be rolled back to \d+: expected an earlier state"):
        change(dev, action="rollback", snapshots=[third])
    (record,) = run(dev, only="b.csv", replay=True)
    assert (record.verdict, record.good) == ("ingested", 1)
    assert ids(dev) == [1, 2]


@pytest.mark.slow
def test_a_rollback_that_was_killed_before_its_commit_is_finished_by_the_next(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyiceberg.table.update.snapshot import ManageSnapshots

    first, second = add(dev, tmp_path, "a", "b")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ManageSnapshots, "set_current_snapshot", die)
        with pytest.raises(KeyboardInterrupt):
            change(dev, action="rollback", snapshots=[first])
    assert ids(dev) == [1, 2] and run(dev) == [] and versions(dev)[0].snapshot == second
    change(dev, action="rollback", snapshots=[first])
    assert ids(dev) == [1] and run(dev) == []


@pytest.mark.slow
def test_files_of_expired_versions_are_not_ingested_again(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first, second, third = add(dev, tmp_path, "a", "b", "c")
    assert change(dev, action="expire", snapshots=[first, second]) == ["visits: 2 versions expired"]
    assert change(dev, action="expire", snapshots=[first, second]) == ["visits: these versions have expired already"]
    assert [version.snapshot for version in versions(dev)] == [third]
    assert run(dev) == [] and run(dev, only="a.csv") == [] and run(dev, only="a.csv", replay=True) == []
    assert ids(dev) == [1, 2, 3]
    assert [status.state for status in read_status(dev, "visits")] == ["ingested"] * 3
    land(dev, tmp_path, "d.csv", "4,20,d")
    run(dev)
    assert ids(dev) == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_kept_version_stays_in_the_history_when_those_after_it_expire(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    first, second, third = add(dev, tmp_path, "a", "b", "c")
    change(dev, action="rollback", snapshots=[second])
    fourth = add(dev, tmp_path, "d")[-1]
    change(dev, action="expire", snapshots=[second])
    included = {version.snapshot: version.is_included for version in versions(dev)}
    assert included == {first: True, third: False, fourth: True}
    assert run(dev) == []
    change(dev, action="rollback", snapshots=[first])
    assert ids(dev) == [1] and run(dev) == []
    assert [version.is_included for version in versions(dev)] == [False, False, True]


@pytest.mark.slow
def test_quarantined_rows_of_an_expired_version_can_be_released(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a", "2,-1,b")
    run(dev)
    first = versions(dev)[0].snapshot
    land(dev, tmp_path, "c.csv", "3,30,c")
    run(dev)
    change(dev, action="expire", snapshots=[first])
    lenient = contract(column("age", "integer", required=True), column("name", "string"))
    (record,) = ingest(dev, lenient, lambda _: None, only="a.csv", replay=True)
    assert (record.good, record.quarantined) == (2, 0)
    assert ids(dev) == [1, 2, 3]


@pytest.mark.slow
def test_the_current_and_a_tagged_version_never_expire(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first, second = add(dev, tmp_path, "a", "b")
    with pytest.raises(MlopsError, match="found the current one"):
        change(dev, action="expire", snapshots=[second])
    change(dev, action="tag", snapshots=[first], tag="audited")
    with pytest.raises(MlopsError, match="found tagged audited"):
        change(dev, action="expire", snapshots=[first])
    assert len(versions(dev)) == 2


NOW = datetime(2026, 11, 30, tzinfo=UTC)


def version(snapshot: str, age: int, **fields: object) -> TableVersion:
    made = TableVersion(
        snapshot,
        None,
        NOW - timedelta(days=age),
        1,
        1,
        "append",
        None,
        None,
        None,
        (),
        is_current=False,
        is_included=True,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def test_only_old_versions_that_nothing_names_expire() -> None:
    every = [
        version("5", 0, is_current=True),
        version("4", 10),
        version("3", 200, tags=("audited",)),
        version("2", 300),
        version("1", 400),
    ]
    plan = plan_expiry(every, {"2": "price is live in prod"}, NOW, keep=timedelta(days=90))
    assert [each.snapshot for each in plan.expired] == ["1"]
    assert plan.kept == {
        "5": "it is the current version",
        "4": "it is younger than 90 days",
        "3": "it is tagged audited",
        "2": "price is live in prod",
    }


@pytest.mark.slow
def test_the_job_makes_the_change_that_its_environment_names(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = add(dev, tmp_path, "a", "b")
    monkeypatch.setenv(VARIABLE, dev.model_dump_json())
    monkeypatch.setattr(Project, "find", lambda: _Declared())
    asked = TableChange(action="rollback", snapshots=(first,), reason="test")
    monkeypatch.setenv(TABLE_CHANGE, asked.model_dump_json())
    assert job.main(["ingest", "visits"]) == 0
    assert f"visits: {first} is the current version" in capsys.readouterr().out
    monkeypatch.setenv(TABLE_CHANGE, '{"action": "erase"}')
    assert job.main(["ingest", "visits"]) == 1
    assert f"${TABLE_CHANGE}:1: action: expected" in capsys.readouterr().err


class _Declared:
    def contract(self, _: str) -> Contract:
        return CONTRACT


@pytest.mark.slow
def test_a_checkout_is_sorted_identified_and_reproducible(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    add(dev, tmp_path, "b", "a")
    written = []
    for name in ("one.parquet", "two.parquet"):
        write_version(*read_named(dev, "visits", "a.csv"), tmp_path / name)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    found = pq.read_table(tmp_path / "one.parquet")
    assert found["id"].to_pylist() == [1, 2]
    metadata = found.schema.metadata
    assert metadata[b"mlops.content"].decode() == read_version(dev, "visits")[1].content
    with pytest.raises(MlopsError, match=r"expected a name that ends in \.parquet"):
        write_version(pa.table({"id": [1]}), read_version(dev, "visits")[1], tmp_path / "rows.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(MlopsError, match="cannot be written"):
        write_version(found, read_version(dev, "visits")[1], tmp_path / "file" / "rows.parquet")


@pytest.mark.slow
def test_a_notebook_loads_a_version_by_the_declared_names(
    account: EmulatedAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_as_declared: Callable[[], str]
) -> None:
    work_in_sample(monkeypatch, tmp_path)
    dataset = made_as_declared()
    frame = pipelines.data.load(dataset)
    assert len(frame) == 442 and frame["patient_id"].is_monotonic_increasing
    assert frame.attrs["version"]["dataset"] == dataset
    with pytest.raises(MlopsError, match="has no version 'nowhere'"):
        pipelines.data.load(dataset, "nowhere")


@pytest.fixture
def made_as_declared(account: EmulatedAccount) -> Callable[[], str]:
    """Return a function that makes dev of the sample project under its declared names, with data."""
    import boto3

    from pipelines.declarations.names import bucket_name, database_name
    from pipelines.declarations.project import Project
    from tests.aws import ACCOUNT, REGION, make_table

    def make() -> str:
        project = Project(PROJECT)
        dataset = project.dataset_names[0]
        declared = project.contract(dataset)
        names = {kind: bucket_name(project.name, "dev", kind, ACCOUNT) for kind in ("landing", "lake", "logs")}
        for name in names.values():
            boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        database = database_name(project.name, "dev")
        region = project.stack("dev").config.region
        boto3.client("glue", region_name=region).create_database(DatabaseInput={"Name": database})
        dev = make_environment("dev").model_copy(
            update={"region": region, "catalog_database": database}
            | {f"{kind}_bucket": name for kind, name in names.items()}
        )
        make_table(dev, declared)
        upload(dev, dataset, PROJECT / "data-contracts" / "samples" / f"{dataset}.csv")
        ingest(dev, declared, lambda _: None)
        return dataset

    return make


@pytest.mark.slow
def test_a_version_is_shown_with_its_columns_and_some_rows(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first, _ = add(dev, tmp_path, "a", "b")
    declared = contract(
        column("age", "integer", description="In years."), column("name", "string", classification="confidential")
    )
    details = read_details(dev, declared, first, 5)
    assert details.columns == {"id": "long", "age": "long", "name": "string"}
    assert (details.rows, details.hidden) == ([{"id": 1, "age": 21}], ("name",))
    lines = details_lines(details, declared)
    assert lines[0] == version_lines([details.version])[0]
    assert "  age  long: In years." in lines and "  name  string (not shown)" in lines
    assert lines[-1] == "  id=1, age=21"
    assert len(read_details(dev, declared, "latest", 1).rows) == 1
    json.dumps(details.to_json())


@pytest.mark.slow
def test_the_command_shows_a_version_or_the_quarantine_of_a_file(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(dev, tmp_path, "a.csv", "1,20,ann", "2,x,bob")
    run(dev)
    monkeypatch.setattr("pipelines.cli.data.open_target", lambda _: OpenedTarget(dev))

    def printed(*arguments: str) -> str:
        return CliRunner().invoke(mlops, ["data", "show", "visits", *arguments, "--env", "dev"]).output

    assert "id=1, age=20, name=ann" in printed()
    assert json.loads(printed("latest", "--json"))["rows"] == [{"id": 1, "age": 20, "name": "ann"}]
    assert "row 2: age: type: expected an integer, of 64 bits, found x" in printed("a.csv")
    refused = CliRunner().invoke(mlops, ["data", "show", "visits", "latest", "--output", "a.parquet", "--env", "dev"])
    assert "mlops data checkout visits latest --env dev --output a.parquet" in str(refused.exception)


class OpenedTarget:
    """A target with one environment and one dataset."""

    def __init__(self, dev: EnvironmentDescriptor) -> None:
        self.dev, self.project = dev, self

    def descriptor(self, _: str) -> EnvironmentDescriptor:
        return self.dev

    def contract(self, _: str) -> Contract:
        return CONTRACT

    dataset_contract = contract
