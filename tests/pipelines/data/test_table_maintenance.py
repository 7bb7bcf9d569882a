from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from pydantic import ValidationError

from pipelines.data import __main__ as job
from pipelines.data import compaction, file_replacement, row_quarantine, table_maintenance
from pipelines.data import ingest as ingestion
from pipelines.data.catalog import open_table, read_version
from pipelines.data.compaction import FEWEST_FILES, GROUP_BYTES, SMALL_FILE, plan_compaction
from pipelines.data.file_replacement import CurrentFile, current_files, is_settled, stream_files
from pipelines.data.ingest import ingest
from pipelines.data.landing import upload
from pipelines.data.landing_status import read_status
from pipelines.data.orphan_files import ORPHAN_DAYS, plan_orphans
from pipelines.data.table_changes import TableChange, make_change
from pipelines.data.table_maintenance import kept_time, maintain_table, overdue_versions, plan_lines, plan_maintenance
from pipelines.data.version_retention import ExpiryPlan
from pipelines.data.versions import TableVersion, list_versions
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import VARIABLE, EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.model import BatchPrediction
from pipelines.declarations.project import Project
from pipelines.registry.store import Listed
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract
from tests.signing_environments import example_files, make_signing_environment, register

UNMONITORED = [
    {"property": "monitoring", "value": {"enabled": False}},
    {"property": "maximumQuarantinedPercent", "value": 100},
]
CONTRACT = contract(column("age", "integer", minimum=0), column("seen", "date"), customProperties=UNMONITORED)
LATER = timedelta(days=200)


def retained(days: int, status: str = "active") -> Contract:
    level = {"property": "retention", "value": days, "unit": "d", "element": "visits.seen"}
    return CONTRACT.model_validate_json(
        CONTRACT.model_copy(update={"status": status}).model_dump_json(by_alias=True, exclude_unset=True)
    ).model_copy(update={"service_levels": contract(column("seen", "date"), slaProperties=[level]).service_levels})


@pytest.fixture
def dev(account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch) -> EnvironmentDescriptor:
    """An environment in which two small files are enough to join them."""
    monkeypatch.setattr(compaction, "FEWEST_FILES", 2)
    return make_environment("dev", CONTRACT)


def add(dev: EnvironmentDescriptor, folder: Path, start: int, count: int, seen: str = "2026-11-01") -> None:
    for number in range(start, start + count):
        path = folder / f"{number}.csv"
        path.write_text(f"id,age,seen\n{number},30,{seen}\n")
        upload(dev, "visits", path)
        ingest(dev, CONTRACT, lambda _: None)


def maintain(
    dev: EnvironmentDescriptor, declared: Contract = CONTRACT, later: timedelta = timedelta()
) -> dict[str, float]:
    return maintain_table(dev, declared, (), datetime.now(UTC) + later, lambda _: None)


def versions(dev: EnvironmentDescriptor) -> list[TableVersion]:
    return list_versions(open_table(dev, "visits"))


def keys(dev: EnvironmentDescriptor) -> set[str]:
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=dev.lake_bucket)
    return {entry["Key"] for page in pages for entry in page.get("Contents", ())}


def ids(dev: EnvironmentDescriptor, snapshot: str | None = None) -> list[int]:
    found: list[int] = read_version(dev, "visits", snapshot)[0]["id"].to_pylist()
    return found


# Decisions


def file(number: int, size: int = 1000, rows: int = 10) -> CurrentFile:
    return CurrentFile(f"s3://lake/t/{number}.parquet", size, rows, number, number, task=_Task())  # type: ignore[arg-type]


class _Task:
    delete_files: frozenset[str] = frozenset()


def test_enough_small_files_become_one() -> None:
    plan = plan_compaction([file(n) for n in range(FEWEST_FILES)], before=100)
    assert [len(group) for group in plan.groups] == [FEWEST_FILES] and plan.small == 0


def test_few_small_files_and_large_ones_stay() -> None:
    few = [file(n) for n in range(FEWEST_FILES - 1)]
    assert plan_compaction([*few, *(file(n, SMALL_FILE) for n in range(50))], before=100).groups == ()


def test_the_files_of_the_newest_deliveries_stay() -> None:
    plan = plan_compaction([file(n) for n in range(20)], before=12)
    assert {each.sequence for group in plan.groups for each in group} == set(range(12)) and plan.small == 8


def test_a_file_from_which_another_engine_deleted_rows_stays() -> None:
    class Deleted(_Task):
        delete_files = frozenset({"deletes"})

    touched = replace(file(3), task=Deleted())  # type: ignore[arg-type]
    plan = plan_compaction([file(n) for n in range(3)] + [touched] + [file(n) for n in range(4, 12)], before=100)
    assert touched not in [each for group in plan.groups for each in group]


def test_groups_are_bounded_in_bytes_and_rows() -> None:
    by_bytes = plan_compaction([file(n, SMALL_FILE - 1) for n in range(20)], before=100)
    assert max(sum(each.size for each in group) for group in by_bytes.groups) <= GROUP_BYTES
    by_rows = plan_compaction([file(n, 1000, 900_000) for n in range(20)], before=100)
    assert {len(group) for group in by_rows.groups} == {2}


def test_only_old_files_that_nothing_names_are_orphans() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    stored = [
        Listed("t/data/named", 1, "", now - timedelta(days=90)),
        Listed("t/data/young", 1, "", now - timedelta(days=6)),
        Listed("t/data/orphan", 1, "", now - timedelta(days=7)),
    ]
    assert [each.key for each in plan_orphans(stored, frozenset({"t/data/named"}), now)] == ["t/data/orphan"]


def test_no_batch_prediction_runs_for_so_long_that_its_files_look_unused() -> None:
    longest = BatchPrediction(deadline_seconds=5 * 86_400).deadline_seconds
    assert timedelta(seconds=longest) < timedelta(days=ORPHAN_DAYS) - timedelta(days=1)
    with pytest.raises(ValidationError):
        BatchPrediction(deadline_seconds=longest + 1)


def test_versions_stay_for_90_days_or_the_shorter_retention() -> None:
    assert [kept_time(each).days for each in (CONTRACT, retained(30), retained(400))] == [90, 30, 90]


def test_a_version_past_the_retention_that_a_bundle_names_is_reported() -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    facts: dict[str, Any] = dict.fromkeys(("parent", "rows", "added", "file", "batch", "contract"))
    known = [
        TableVersion(str(age), at=now - timedelta(days=age), operation="append", tags=(), is_current=age == 0,
                     is_included=True, **facts)
        for age in (0, 20, 40)
    ]  # fmt: skip
    expiry = ExpiryPlan((), {each.snapshot: "m names it" for each in known})
    assert [each.snapshot for each in overdue_versions(known, expiry, timedelta(days=30), now)] == ["40"]
    assert overdue_versions(known, expiry, None, now) == ()


# Tables


@pytest.mark.slow
def test_an_empty_table_needs_nothing(dev: EnvironmentDescriptor) -> None:
    before = keys(dev)
    plan = plan_maintenance(dev, retained(30), (), datetime.now(UTC) + LATER)
    assert plan.is_empty
    assert not any(maintain(dev, retained(30), LATER).values())
    assert keys(dev) == before


@pytest.mark.slow
def test_maintenance_joins_files_and_every_version_keeps_its_rows(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    add(dev, tmp_path, 1, 4)
    before = {each.snapshot: read_version(dev, "visits", each.snapshot)[1].content for each in versions(dev)}
    newest = versions(dev)[0].snapshot
    assert len(current_files(open_table(dev, "visits"))) == 4
    assert plan_lines(plan_maintenance(dev, CONTRACT, (), datetime.now(UTC)))[-1] == "join   3 small files into 1"
    assert maintain(dev)["JoinedFiles"] == 3
    files = current_files(open_table(dev, "visits"))
    assert [is_settled(each.path) for each in files] == [False, True] and [each.rows for each in files] == [1, 3]
    after = {each.snapshot: read_version(dev, "visits", each.snapshot)[1].content for each in versions(dev)}
    assert {key: after[key] for key in before} == before
    assert after[versions(dev)[0].snapshot] == before[newest]
    assert maintain(dev)["JoinedFiles"] == 0
    assert ingest(dev, CONTRACT, lambda _: None) == []
    assert {each.state for each in read_status(dev, "visits")} == {"ingested"}


@pytest.mark.slow
def test_joining_files_holds_few_rows_in_memory_however_small_the_files_are(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of a few kilobytes can hold gigabytes of equal texts, and a killed job would expire no versions."""
    add(dev, tmp_path, 1, 6)
    table = open_table(dev, "visits")
    (first, *_) = current_files(table)
    size = sum(batch.nbytes for batch in stream_files(table, [first]))
    before = read_version(dev, "visits", None)[1].content
    monkeypatch.setattr(compaction, "HELD_BYTES", size - 1)
    done = maintain(dev)
    assert (done["JoinedFiles"], done["SmallFiles"]) == (0, 6) and len(versions(dev)) == 6
    monkeypatch.setattr(compaction, "HELD_BYTES", 2 * size)
    done = maintain(dev)
    assert (done["JoinedFiles"], done["SmallFiles"]) == (4, 4)
    assert sorted(each.rows for each in current_files(open_table(dev, "visits"))) == [1, 1, 2, 2]
    assert read_version(dev, "visits", None)[1].content == before


@pytest.mark.slow
def test_maintenance_expires_old_versions_but_none_that_a_tag_or_a_bundle_names(
    account: EmulatedAccount, tmp_path: Path
) -> None:
    dev = make_signing_environment("dev", None, CONTRACT)
    add(dev, tmp_path, 1, 4)
    first, second, third, fourth = (each.snapshot for each in reversed(versions(dev)))
    register(dev, example_files(), dataset=read_version(dev, "visits", second)[1])
    make_change(dev, CONTRACT, TableChange(action="tag", snapshots=(third,), tag="audited"), lambda _: None)
    assert maintain(dev)["ExpiredVersions"] == 0
    assert maintain(dev, later=LATER)["ExpiredVersions"] == 1
    assert {each.snapshot for each in versions(dev)} == {second, third, fourth}
    assert ids(dev, second) == [1, 2] and ids(dev) == [1, 2, 3, 4]
    assert ingest(dev, CONTRACT, lambda _: None) == [] and first not in {each.snapshot for each in versions(dev)}


@pytest.mark.slow
def test_versions_expire_also_if_files_cannot_be_joined(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(dev, tmp_path, 1, 3)
    monkeypatch.setattr(
        "pipelines.data.table_maintenance.compact", mock.Mock(side_effect=MlopsError("cannot be joined"))
    )
    with pytest.raises(MlopsError, match="cannot be joined"):
        maintain(dev, later=LATER)
    assert len(versions(dev)) == 1


@pytest.mark.slow
def test_maintenance_keeps_every_version_if_the_registry_cannot_be_read(
    account: EmulatedAccount, dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    add(dev, tmp_path, 1, 2)
    account.denied.add(dev.registry_bucket)
    try:
        with pytest.raises(MlopsError, match="s3:ListBucket"):
            maintain(dev, later=LATER)
    finally:
        account.denied.clear()
    assert len(versions(dev)) == 2


@pytest.mark.slow
def test_unused_files_go_when_they_are_old_and_no_version_names_them(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    add(dev, tmp_path, 1, 4)
    prefix = f"{dev.catalog_database}/visits/"
    s3 = boto3.client("s3")
    others = {f"{prefix}data/left-over.parquet", f"{dev.catalog_database}/visits_2/data/a.parquet", "quarantine/x"}
    for key in others:
        s3.put_object(Bucket=dev.lake_bucket, Key=key, Body=b"x")
    maintain(dev)  # joins files; nothing is old
    assert others <= keys(dev)
    assert maintain(dev, later=timedelta(days=8))["RemovedFiles"] >= 1
    assert others - keys(dev) == {f"{prefix}data/left-over.parquet"}
    for version in versions(dev):
        assert len(ids(dev, version.snapshot)) == version.rows
    assert maintain(dev, later=LATER)["ExpiredVersions"] > 0  # their files are named until now
    assert maintain(dev, later=LATER + timedelta(days=8))["RemovedFiles"] >= 3
    assert ids(dev) == [1, 2, 3, 4]


@pytest.mark.slow
def test_rows_past_the_retention_leave_the_table_and_stay_in_young_versions(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text("id,age,seen\n1,30,2020-01-01\n2,30,2026-11-29\n3,30,\n")
    upload(dev, "visits", path)
    ingest(dev, CONTRACT, lambda _: None)
    add(dev, tmp_path, 4, 1, seen="2019-05-05")
    before = versions(dev)[0].snapshot
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    for draft in (retained(365, "draft"), CONTRACT):
        assert maintain_table(dev, draft, (), now, lambda _: None)["RemovedRows"] == 0
    assert any(
        "remove rows with seen before" in line for line in plan_lines(plan_maintenance(dev, retained(365), (), now))
    )
    assert maintain_table(dev, retained(365), (), now, lambda _: None)["RemovedRows"] == 2
    assert ids(dev) == [2, 3] and ids(dev, before) == [1, 2, 3, 4]
    assert maintain_table(dev, retained(365), (), now, lambda _: None)["RemovedRows"] == 0
    assert ingest(dev, CONTRACT, lambda _: None) == []


@pytest.mark.slow
def test_an_ingestion_during_the_compaction_loses_no_rows(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(dev, tmp_path, 1, 4)
    commit, races = file_replacement._commit, iter((5, 6))

    def late(*arguments: Any) -> str:
        if (number := next(races, None)) is not None:
            add(dev, tmp_path, number, 1)
        return commit(*arguments)

    monkeypatch.setattr(file_replacement, "_commit", late)
    assert maintain(dev)["JoinedFiles"] == 3
    assert next(races, None) is None
    assert ids(dev) == [1, 2, 3, 4, 5, 6]
    assert len(current_files(open_table(dev, "visits"))) == 4


@pytest.mark.slow
def test_two_jobs_at_once_and_an_ingestion_lose_nothing(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    add(dev, tmp_path, 1, 4)
    failures: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    work = [lambda: maintain(dev, later=LATER), lambda: maintain(dev, later=LATER), lambda: add(dev, tmp_path, 5, 2)]
    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ids(dev) == [1, 2, 3, 4, 5, 6]
    assert sum(each.rows for each in current_files(open_table(dev, "visits"))) == 6


@pytest.mark.slow
@pytest.mark.parametrize("step", ["remove_orphans", "replace_files", "make_change"])
def test_a_job_that_is_killed_is_finished_by_the_next(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    add(dev, tmp_path, 1, 4)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(compaction if step == "replace_files" else table_maintenance, step, die)
        with pytest.raises(KeyboardInterrupt):
            maintain(dev, later=LATER)
    assert ids(dev) == [1, 2, 3, 4]
    done = maintain(dev, later=LATER)
    # Versions expire before files are joined.
    assert (done["ExpiredVersions"] >= 3) == (step != "replace_files")
    assert ids(dev) == [1, 2, 3, 4] and len(current_files(open_table(dev, "visits"))) == 2
    maintain(dev, later=LATER + timedelta(days=8))
    assert ids(dev) == [1, 2, 3, 4]


@pytest.mark.slow
def test_an_ingestion_that_was_killed_before_its_record_is_recorded_after_the_maintenance_of_the_table(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(dev, tmp_path, 1, 3)
    write = row_quarantine.write_record

    def die(descriptor: Any, record: Any) -> None:
        if record.verdict == "ingested":
            raise KeyboardInterrupt
        write(descriptor, record)

    with monkeypatch.context() as patched:
        patched.setattr(ingestion, "write_record", die)
        with pytest.raises(KeyboardInterrupt):
            add(dev, tmp_path, 4, 1)
    assert maintain(dev)["JoinedFiles"] == 3
    ingest(dev, CONTRACT, lambda _: None)
    assert [each.state for each in read_status(dev, "visits")] == ["ingested"] * 4
    assert ids(dev) == [1, 2, 3, 4]


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pipelines.data import compaction, file_replacement
from pipelines.data.table_maintenance import maintain_table
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor

commit = file_replacement._commit

def killed(*arguments):
    if sys.argv[1] == "after":
        commit(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

compaction.FEWEST_FILES, file_replacement._commit = 2, killed
contract = Contract.model_validate_json(sys.argv[2])
maintain_table(EnvironmentDescriptor.from_environ(), contract, (), datetime.now(UTC), print)
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_9_at_the_commit_leaves_the_rows_and_no_work_undone(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    add(dev, tmp_path, 1, 4)
    monkeypatch.setenv(VARIABLE, dev.model_dump_json())
    declared = CONTRACT.model_dump_json(by_alias=True, exclude_unset=True)
    done = subprocess.run([sys.executable, "-c", KILLED, when, declared], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ids(dev) == [1, 2, 3, 4]
    assert maintain(dev)["JoinedFiles"] == (3 if when == "before" else 0)
    assert ids(dev) == [1, 2, 3, 4] and len(current_files(open_table(dev, "visits"))) == 2
    left_over = 1 if when == "before" else 0
    assert maintain(dev, later=timedelta(days=8))["RemovedFiles"] >= left_over
    assert ids(dev) == [1, 2, 3, 4]


@pytest.mark.slow
def test_files_with_other_rows_are_never_committed(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.data import data_files

    add(dev, tmp_path, 1, 4)
    write = data_files.write_data_files

    def lossy(descriptor: Any, table: Any, rows: Any, **options: Any) -> list[str]:
        import pyarrow as pa

        kept = rows.read_all().slice(1)
        return write(descriptor, table, pa.RecordBatchReader.from_batches(kept.schema, kept.to_batches()), **options)

    monkeypatch.setattr(data_files, "write_data_files", lossy)
    with pytest.raises(MlopsError, match="given up before its commit: expected rows with the digest sha256"):
        maintain(dev)
    assert ids(dev) == [1, 2, 3, 4] and len(versions(dev)) == 4


def test_the_job_names_the_models_whose_predictions_have_read_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "find", lambda: _Declared())
    monkeypatch.setattr(EnvironmentDescriptor, "from_environ", mock.Mock())
    done = mock.Mock(return_value=dict.fromkeys(("RemovedFiles", "RemovedRows", "JoinedFiles", "ExpiredVersions"), 1))
    monkeypatch.setattr("pipelines.data.table_maintenance.maintain_table", done)
    assert job.main(["maintain", "visits", "--predicting=price", "--predicting=churn"]) == 0
    assert done.call_args.args[2] == ["price", "churn"]


@pytest.mark.slow
def test_the_job_prints_what_it_did_and_publishes_that_it_ran(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add(dev, tmp_path, 1, 4)
    monkeypatch.setenv(VARIABLE, dev.model_dump_json())
    monkeypatch.setattr(Project, "find", lambda: _Declared())
    namespace = f"mlops-{dev.catalog_database}"
    assert job.main(["maintain", "visits", "--namespace", namespace]) == 0
    assert "compaction: 3 files of 3 rows became 1, snapshot" in capsys.readouterr().out
    assert job.main(["maintain", "visits"]) == 0
    assert capsys.readouterr().out == "visits: nothing to do\n"
    listed = boto3.client("cloudwatch").list_metrics(Namespace=namespace)["Metrics"]
    assert {each["MetricName"] for each in listed} >= {"Runs", "JoinedFiles", "SmallFiles", "RemovedFiles"}
    assert listed[0]["Dimensions"] == [{"Name": "Table", "Value": "visits"}]


@pytest.mark.slow
def test_a_job_that_may_not_delete_says_so(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.registry import store

    add(dev, tmp_path, 1, 1)
    key = f"{dev.catalog_database}/visits/data/left-over.parquet"
    boto3.client("s3").put_object(Bucket=dev.lake_bucket, Key=key, Body=b"x")

    class Refusing:
        def delete_objects(self, **_: Any) -> dict[str, Any]:
            return {"Errors": [{"Code": "AccessDenied", "Message": "no", "Key": key}]}

    real = store.delete_many
    monkeypatch.setattr(store, "delete_many", lambda bucket, keys, client: real(bucket, keys, client=Refusing()))
    with pytest.raises(MlopsError, match="s3:DeleteObject"):
        maintain(dev, later=LATER)
    assert key in keys(dev)


class _Declared:
    def dataset_contract(self, _: str) -> Contract:
        return CONTRACT


@pytest.mark.slow
def test_a_timestamp_gives_the_age_of_a_row_to_the_second(account: EmulatedAccount, tmp_path: Path) -> None:
    level = {"property": "retention", "value": 1, "unit": "d", "element": "seen"}
    declared = contract(column("seen", "timestamp"), slaProperties=[level])
    dev = make_environment("dev", declared)
    path = tmp_path / "a.csv"
    path.write_text("id,seen\n1,2026-11-29T11:59:59Z\n2,2026-11-29T12:00:00Z\n3,2026-11-29T13:30:00+02:00\n")
    upload(dev, "visits", path)
    ingest(dev, declared, lambda _: None)
    now = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert maintain_table(dev, declared, (), now, lambda _: None)["RemovedRows"] == 2
    assert ids(dev) == [2]
    assert maintain_table(dev, declared, (), now + timedelta(days=9), lambda _: None)["RemovedRows"] == 1
    assert open_table(dev, "visits").scan().to_arrow().num_rows == 0
