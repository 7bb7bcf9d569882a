from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import __main__ as command
from pipelines.data import catalog, reading
from pipelines.data import data_files as files
from pipelines.data import ingest as job
from pipelines.data.catalog import evolve, find_batch, open_table, read_version, tag_of
from pipelines.data.ingest import AnotherReleaseError, drop, ingest
from pipelines.data.landing import upload
from pipelines.data.landing_status import (
    decisions_on,
    describe_rows,
    find_status,
    read_quarantined,
    read_status,
    save_rows,
)
from pipelines.data.row_quarantine import BatchRecord, read_record
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_file
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.registry.store import AccessDeniedError
from tests.aws import EmulatedAccount, make_environment, make_table
from tests.pipelines.data.contracts import column, contract
from tests.sample_project import PROJECT, ROOT, copy_as_forked, work_in_sample

pytestmark = pytest.mark.slow

CONTRACT = contract(column("age", "integer", required=True, minimum=0), column("name", "string"))
DECLARED = Project(PROJECT)


@pytest.fixture
def dev(account: EmulatedAccount) -> EnvironmentDescriptor:
    return make_environment("dev", CONTRACT)


def land(dev: EnvironmentDescriptor, folder: Path, name: str, *lines: str) -> str:
    """Upload a CSV file to landing; return the digest of its batch."""
    path = folder / name
    path.write_text("\n".join(("id,age,name", *lines)) + "\n")
    upload(dev, "visits", path)
    return digest_of_file(path)


def run(dev: EnvironmentDescriptor, declared: Contract = CONTRACT) -> list[BatchRecord]:
    return ingest(dev, declared, lambda _: None)


def ids(dev: EnvironmentDescriptor, snapshot: str | None = None) -> list[int]:
    found: list[int] = read_version(dev, "visits", snapshot)[0]["id"].to_pylist()
    return found


def quarantined(dev: EnvironmentDescriptor, batch: str) -> list[dict[str, Any]]:
    key = f"quarantine/visits/{batch.removeprefix('sha256:')}.parquet"
    body = boto3.client("s3").get_object(Bucket=dev.lake_bucket, Key=key)["Body"].read()
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(body)).to_pylist()
    return rows


def events(dev: EnvironmentDescriptor) -> list[dict[str, Any]]:
    s3 = boto3.client("s3")
    listed = s3.list_objects_v2(Bucket=dev.logs_bucket, Prefix="lineage/ingest-visits/").get("Contents", [])
    found = [json.loads(s3.get_object(Bucket=dev.logs_bucket, Key=o["Key"])["Body"].read()) for o in listed]
    return sorted(found, key=lambda event: event["eventTime"])


def test_good_rows_reach_the_table_and_bad_rows_quarantine_with_their_reasons(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    batch = land(dev, tmp_path, "a.csv", "2,30,b", "1,x,a", "1,20,a", "3,-1,c")
    (record,) = run(dev)
    rows, version = read_version(dev, "visits")
    assert rows.to_pylist() == [{"id": 2, "age": 30, "name": "b"}]
    assert (version.snapshot, version.rows) == (record.snapshot, 1)
    assert (record.verdict, record.rows, record.good, record.quarantined) == ("ingested", 4, 1, 3)
    assert read_record(dev, "visits", batch) == record
    assert [(row["_row"], row["id"], row["age"], row["name"]) for row in quarantined(dev, batch)] == [
        (2, "1", "x", "a"),
        (3, "1", "20", "a"),
        (4, "3", "-1", "c"),
    ]
    assert quarantined(dev, batch)[2]["_reasons"] == [
        {"column": "age", "rule": "minimum", "expected": "at least 0", "found": "-1"}
    ]


def test_a_batch_is_ingested_once_even_under_another_file_name(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    run(dev)
    land(dev, tmp_path, "again.csv", "1,20,a")
    assert run(dev) == []
    assert ids(dev) == [1]
    assert len(open_table(dev, "visits").snapshots()) == 1


def test_each_batch_is_a_tagged_snapshot_that_stays_readable(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    first = land(dev, tmp_path, "a.csv", "1,20,a")
    land(dev, tmp_path, "b.csv", "3,20,a", "2,20,a")
    a, b = run(dev)
    assert a.snapshot is not None
    assert ids(dev) == [1, 2, 3]
    assert ids(dev, a.snapshot) == [1]
    tags = open_table(dev, "visits").refs()
    assert str(tags[tag_of(first)].snapshot_id) == a.snapshot
    assert read_version(dev, "visits", b.snapshot)[1] == read_version(dev, "visits")[1]


def test_the_content_digest_does_not_depend_on_files_or_formats(account: EmulatedAccount, tmp_path: Path) -> None:
    at_once, in_parts = make_environment("dev", CONTRACT), make_environment("dev", CONTRACT)
    land(at_once, tmp_path, "a.csv", "1,20,a", "2,30,", "3,40,c")
    land(in_parts, tmp_path, "a.csv", "3,40,c")
    rows = pa.table({"name": [None, "a"], "id": pa.array([2, 1], pa.int8()), "age": [30.0, 20.0]})
    pq.write_table(rows, tmp_path / "b.parquet")
    upload(in_parts, "visits", tmp_path / "b.parquet")
    run(at_once)
    run(in_parts)
    (_, one), (_, other) = read_version(at_once, "visits"), read_version(in_parts, "visits")
    assert (one.content, one.rows) == (other.content, other.rows)
    assert one.snapshot != other.snapshot


def test_a_stream_is_written_to_several_files_without_being_held_in_memory(
    dev: EnvironmentDescriptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_BYTES", 2_000)
    monkeypatch.setattr(files, "DATA_FILE_BYTES", 3_000)
    given, most_ahead, seen = 0, 0, 0

    def stream() -> Iterator[pa.RecordBatch]:
        nonlocal given, most_ahead
        for start in range(0, 1000, 100):
            most_ahead = max(most_ahead, given - seen)
            given += 1
            numbers = list(range(start, start + 100))
            yield pa.record_batch({"id": numbers, "age": numbers, "name": [str(number) for number in numbers]})

    write_table = pq.ParquetWriter.write_table

    def written(writer: pq.ParquetWriter, table: pa.Table, *rest: Any, **keys: Any) -> None:
        nonlocal seen
        seen += len(table) // 100
        write_table(writer, table, *rest, **keys)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", written)
    rows = pa.RecordBatchReader.from_batches(next(stream()).schema, stream())
    places = files.write_data_files(dev, open_table(dev, "visits"), rows)
    assert len(places) > 1
    assert seen == 10
    assert most_ahead <= 2


def test_a_later_row_with_a_key_in_the_table_is_quarantined(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    run(dev)
    batch = land(dev, tmp_path, "b.csv", "1,21,a", "2,30,b")
    run(dev)
    assert ids(dev) == [1, 2]
    (row,) = quarantined(dev, batch)
    assert row["_reasons"][0]["expected"] == "a key that is not in the table yet"


def test_a_rejected_file_is_recorded_and_does_not_stop_the_others(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    picture = tmp_path / "a.parquet"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    upload(dev, "visits", picture)
    land(dev, tmp_path, "b.csv", "1,20,a")
    rejected, ingested = run(dev)
    assert (rejected.file, rejected.verdict, ingested.verdict) == ("a.parquet", "refused", "ingested")
    assert read_record(dev, "visits", digest_of_file(picture)) == rejected
    assert "a.parquet is rejected: expected a Parquet file" in str(rejected.refused)
    boto3.client("s3").head_object(Bucket=dev.landing_bucket, Key="visits/a.parquet")


def test_a_rejected_file_is_checked_again_only_by_name_or_under_another_contract(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("id,age,name,ward\n1,20,a,east\n")
    upload(dev, "visits", tmp_path / "a.csv")
    assert [record.verdict for record in run(dev)] == ["refused"]
    lines: list[str] = []
    assert ingest(dev, CONTRACT, lines.append) == []
    assert lines == ["a.csv: already rejected under version 1.0.0 of the contract"]
    assert [record.verdict for record in ingest(dev, CONTRACT, lines.append, only="a.csv")] == ["refused"]
    columns = [column(name, "string") for name in ("name", "ward")]
    grown = contract(column("age", "integer", required=True, minimum=0), *columns)
    grown = grown.model_copy(update={"version": "1.1.0"})
    assert [record.verdict for record in run(dev, grown)] == ["ingested"]


def test_a_date_that_the_table_cannot_hold_does_not_stop_the_files_behind_it(
    account: EmulatedAccount, tmp_path: Path
) -> None:
    declared = contract(column("day", "date"))
    dev = make_environment("dev", declared)
    for name, rows in (("a.csv", "1,2026-01-01"), ("b.csv", "2,2026-01-01\n3,0000-01-01"), ("c.csv", "4,9999-12-31")):
        (tmp_path / name).write_text(f"id,day\n{rows}\n")
        upload(dev, "visits", tmp_path / name)
    assert [record.good for record in run(dev, declared)] == [1, 1, 1]
    assert ids(dev) == [1, 2, 4]


@pytest.mark.parametrize("error", [OverflowError("date value out of range"), pa.ArrowInvalid("no")])
def test_a_file_on_which_a_library_fails_is_rejected_and_does_not_stop_the_others(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    land(dev, tmp_path, "b.csv", "2,20,b")
    real, calls = catalog.append, 0

    def failing(*arguments: Any) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise error
        return real(*arguments)

    monkeypatch.setattr(job, "append", failing)
    first, second = run(dev)
    assert (first.verdict, second.verdict) == ("refused", "ingested")
    assert f"found {type(error).__name__}: {error}" in str(first.refused)
    assert run(dev) == [], "it would fail again"
    assert ids(dev) == [2]


STRICT = contract(column("age", "integer", required=True, minimum=0), column("name", "string"), most_bad=20)


def test_a_file_with_too_many_bad_rows_adds_nothing_and_keeps_a_sample(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    batch = land(dev, tmp_path, "a.csv", "1,20,a", "2,x,b", "3,-1,c", "4,40,d")
    (record,) = run(dev, STRICT)
    assert (record.verdict, record.rows, record.good, record.quarantined) == ("refused", 4, 0, 2)
    assert {(reason.column, reason.rule) for reason in record.reasons} == {("age", "type"), ("age", "minimum")}
    assert [row["_row"] for row in quarantined(dev, batch)] == [2]
    assert open_table(dev, "visits").snapshots() == []
    assert run(dev, STRICT) == []
    assert [record.verdict for record in ingest(dev, CONTRACT, lambda _: None, only="a.csv", replay=True)] == [
        "ingested"
    ]
    assert ids(dev) == [1, 4]


RELAXED = contract(column("age", "integer", required=True), column("name", "string"))


def test_quarantined_rows_are_released_once_the_contract_allows_them(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    batch = land(dev, tmp_path, "a.csv", "1,20,a", "2,-5,b", "3,x,c")
    (before,) = run(dev)
    (record,) = ingest(dev, RELAXED, lambda _: None, only="a.csv", replay=True)
    assert (record.verdict, record.rows, record.good, record.quarantined) == ("ingested", 3, 2, 1)
    assert ids(dev) == [1, 2]
    assert ids(dev, before.snapshot) == [1]
    assert [row["_row"] for row in quarantined(dev, batch)] == [3]
    tags = open_table(dev, "visits").refs()
    assert str(tags[tag_of(batch)].snapshot_id) == before.snapshot
    assert str(tags[f"{tag_of(batch)}-2"].snapshot_id) == record.snapshot
    (again,) = ingest(dev, RELAXED, lambda _: None, only="a.csv", replay=True)
    assert (again.good, again.quarantined, again.snapshot) == (2, 1, record.snapshot)
    assert ids(dev) == [1, 2]


def test_a_release_that_is_killed_after_its_commit_loses_and_repeats_no_row(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a", "2,-5,b", "3,x,c")
    run(dev)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "upload_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(dev, RELAXED, lambda _: None, only="a.csv", replay=True)
    ingest(dev, RELAXED, lambda _: None, only="a.csv", replay=True)
    assert ids(dev) == [1, 2]


def test_a_dropped_file_is_not_ingested_until_it_is_released(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    assert drop(dev, CONTRACT, "a.csv", "a test").verdict == "dropped"
    lines: list[str] = []
    assert ingest(dev, CONTRACT, lines.append) == []
    assert lines == ["a.csv: dropped: a test"]
    assert [record.verdict for record in ingest(dev, CONTRACT, lambda _: None, only="a.csv", replay=True)] == [
        "ingested"
    ]
    with pytest.raises(MlopsError, match="expected a file with rows that are not in the table"):
        drop(dev, CONTRACT, "a.csv", "too late")


def test_every_landing_file_has_a_state(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a", "2,x,b")
    land(dev, tmp_path, "b.csv", "1,20,a,b,c", "1")
    (tmp_path / "c.csv").write_text("id\n1\n")
    upload(dev, "visits", tmp_path / "c.csv")
    land(dev, tmp_path, "d.csv", "9,20,d", "8,x,d")
    run(dev)
    drop(dev, CONTRACT, "d.csv", "not wanted")
    land(dev, tmp_path, "e.csv", "5,50,e")
    found = {status.file: status for status in read_status(dev, "visits")}
    assert {name: status.state for name, status in found.items()} == {
        "a.csv": "ingested",
        "b.csv": "quarantined",
        "c.csv": "refused",
        "d.csv": "ingested",
        "e.csv": "waiting",
    }
    assert [name for name, status in found.items() if status.needs_attention] == ["a.csv", "b.csv", "c.csv"]
    ways = {name: decisions_on(status, "visits", "dev") for name, status in found.items()}
    assert [name for name, lines in ways.items() if lines] == ["a.csv", "b.csv", "c.csv"]
    assert ways["a.csv"][0] == "look at the rows: mlops data show visits a.csv --env dev"
    assert [line.partition("mlops ")[2] for line in ways["c.csv"]] == [
        "data release visits c.csv --env dev",
        "data drop visits c.csv --env dev --reason TEXT",
    ]
    assert found["a.csv"].description == "1 of 2 rows in the table, 1 in quarantine"
    assert found["d.csv"].description == "1 of 2 rows in the table, 1 in quarantine (dropped: not wanted)"
    assert "refused under version 1.0.0 of the contract: c.csv is rejected" in found["c.csv"].description
    record = find_status(dev, "visits", "a.csv").record
    assert record is not None
    rows = read_quarantined(dev, record)
    assert rows is not None
    assert describe_rows(rows, 20) == ["row 2: age: type: expected an integer, of 64 bits, found x"]
    assert describe_rows(rows, 20, {"age"}) == [
        "row 2: age: type: expected an integer, of 64 bits, found a value that is not shown"
    ]
    assert "found x" in describe_rows(rows, 20, {"name"})[0]
    save_rows(rows, tmp_path / "bad.csv")
    assert (tmp_path / "bad.csv").read_text().splitlines()[1] == '2,"2","x","b","age: type"'
    with pytest.raises(MlopsError, match="expected a name that ends in"):
        save_rows(rows, tmp_path / "bad.xlsx")


def test_a_malformed_row_is_not_shown_if_a_column_is_personal() -> None:
    reasons = [{"column": "", "rule": "format", "expected": "3 fields", "found": "2 fields: ann@example.org,7"}]
    reasons.append({"column": "id, name", "rule": "unique", "expected": "a new value", "found": "7, Ann"})
    rows = pa.table({"_row": [4], "_reasons": [reasons]})
    shown = "\n".join(describe_rows(rows, 20, {"name"}))
    assert "ann@" not in shown and "Ann" not in shown and shown.count("a value that is not shown") == 2


def test_a_batch_that_the_table_was_rolled_back_from_is_ingested_again(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    (first,) = run(dev)
    land(dev, tmp_path, "b.csv", "2,20,b")
    run(dev)
    with open_table(dev, "visits").manage_snapshots() as manage:
        manage.rollback_to_snapshot(int(str(first.snapshot)))
    assert ids(dev) == [1]
    assert [record.file for record in run(dev)] == ["b.csv"]
    assert ids(dev) == [1, 2]


def test_one_landing_file_can_be_ingested_by_name(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    land(dev, tmp_path, "b.csv", "2,20,b")
    assert [record.file for record in ingest(dev, CONTRACT, lambda _: None, only="b.csv")] == ["b.csv"]
    assert ids(dev) == [2]
    with pytest.raises(MlopsError, match=r"'c\.csv' has not landed in dev: .* found a\.csv, b\.csv") as caught:
        ingest(dev, CONTRACT, lambda _: None, only="c.csv")
    assert caught.value.fix == "mlops land visits c.csv --env dev"


def test_a_batch_without_good_rows_adds_no_snapshot_and_is_not_checked_again(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    land(dev, tmp_path, "a.csv", "1,x,a")
    (record,) = run(dev)
    assert (record.verdict, record.snapshot) == ("quarantined", None)
    assert run(dev) == []
    with pytest.raises(MlopsError, match="visits has no rows yet"):
        read_version(dev, "visits")


def test_a_new_column_of_the_contract_is_added_to_the_table(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    (before,) = run(dev)
    grown = contract(
        column("age", "integer", required=True, minimum=0), column("name", "string"), column("ward", "string")
    )
    (tmp_path / "b.csv").write_text("id,age,name,ward\n2,30,b,east\n")
    upload(dev, "visits", tmp_path / "b.csv")
    run(dev, grown)
    rows, _ = read_version(dev, "visits")
    assert rows.select(["id", "ward"]).to_pylist() == [{"id": 1, "ward": None}, {"id": 2, "ward": "east"}]
    assert read_version(dev, "visits", before.snapshot)[0].column_names == ["id", "age", "name"]


def test_an_incompatible_type_change_is_rejected_before_anything_is_written(
    dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    with pytest.raises(MlopsError, match="cannot change the type of 'age': expected long, found string"):
        run(dev, contract(column("age", "string"), column("name", "string")))
    assert open_table(dev, "visits").snapshots() == []


def test_a_conflicting_commit_is_retried_with_new_checks(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = land(dev, tmp_path, "a.csv", "1,20,mine", "2,30,mine")
    real, calls = catalog.append, 0

    def overtaken(*arguments: Any) -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            other = open_table(dev, "visits")
            theirs = pa.table({"id": [1], "age": [99], "name": ["theirs"]})
            real(dev, other, theirs.to_reader(), "sha256:" + "0" * 64, {})
        return real(*arguments)

    monkeypatch.setattr(job, "append", overtaken)
    run(dev)
    rows, _ = read_version(dev, "visits")
    assert rows.select(["id", "name"]).to_pylist() == [{"id": 1, "name": "theirs"}, {"id": 2, "name": "mine"}]
    assert [row["id"] for row in quarantined(dev, batch)] == ["1"]


def during(patch: pytest.MonkeyPatch, name: str, other: Callable[[], object]) -> None:
    """Let another job run before a step of the next one, once."""
    real = getattr(job, name)

    def overtaken(*arguments: Any, **named: Any) -> Any:
        patch.setattr(job, name, real)
        other()
        return real(*arguments, **named)

    patch.setattr(job, name, overtaken)


STEPS = ["read_record", "write_record", "upload_rows", "append", "read_batch", "evolve"]


@pytest.mark.parametrize("step", STEPS)
def test_a_batch_that_two_jobs_ingest_at_once_is_in_the_table_once_and_its_record_says_so(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A scheduled job and one that a person starts. The record decides what happens once its version has expired."""
    batch = land(dev, tmp_path, "a.csv", "1,20,a", "2,x,b")
    land(dev, tmp_path, "b.csv", "3,30,c")
    during(monkeypatch, step, lambda: run(dev))
    run(dev)
    assert sorted(ids(dev)) == [1, 3]
    record, table = read_record(dev, "visits", batch), open_table(dev, "visits")
    assert record is not None
    added = find_batch(table, batch)
    assert added is not None
    assert (record.verdict, record.snapshot) == ("ingested", str(added.snapshot_id))
    assert len(table.snapshots()) == 2


def test_the_record_of_a_job_that_was_killed_is_completed_by_one_that_runs_already(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = land(dev, tmp_path, "a.csv", "1,20,a")

    def append_and_die(*given: Any) -> None:
        append(*given)
        raise KeyboardInterrupt

    def other() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(job, "append", append_and_die)
            with pytest.raises(KeyboardInterrupt):
                ingest(dev, CONTRACT, lambda _: None, only="a.csv")
        found = read_record(dev, "visits", batch)
        assert found is not None and found.verdict == "checked"

    append = getattr(job, "append")  # noqa: B009
    land(dev, tmp_path, "b.csv", "3,30,c")
    during(monkeypatch, "append", other)
    ingest(dev, CONTRACT, lambda _: None, only="b.csv")
    assert sorted(ids(dev)) == [1, 3]
    record = read_record(dev, "visits", batch)
    assert record is not None and record.verdict == "ingested" and record.snapshot


@pytest.mark.parametrize("step", ["read_record", "save_state", "append", "upload_rows", "download_rows", "evolve"])
def test_rows_that_two_jobs_release_at_once_are_added_once(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    batch = land(dev, tmp_path, "a.csv", "1,20,a", "2,-5,b", "3,x,c")
    run(dev)

    def release() -> list[BatchRecord]:
        return ingest(dev, RELAXED, lambda _: None, only="a.csv", replay=True)

    during(monkeypatch, step, release)
    with suppress(AnotherReleaseError):
        release()
    assert sorted(ids(dev)) == [1, 2]
    assert [row["_row"] for row in quarantined(dev, batch)] == [3]
    record = read_record(dev, "visits", batch)
    assert record is not None
    assert (record.rows, record.good, record.quarantined) == (3, 2, 1)


KILLED = """
import os, signal, sys
from pipelines.data import data_files as files
from pipelines.data import ingest as job
from pipelines.declarations.environment import EnvironmentDescriptor
from tests.pipelines.data.test_ingest import CONTRACT

name, when, occurrence = sys.argv[1], sys.argv[2], int(sys.argv[3])
real, calls = getattr(job, name), 0

def killed(*arguments, **keys):
    global calls
    calls += 1
    if calls == occurrence and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **keys)
    if calls == occurrence:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(job, name, killed)
job.ingest(EnvironmentDescriptor.from_environ(), CONTRACT, print)
"""


@pytest.mark.parametrize(
    ("name", "when", "occurrence", "committed"),
    [
        ("upload_rows", "after", 1, False),
        ("append", "before", 1, False),
        ("append", "after", 1, True),
    ],
    ids=["after the quarantine is written", "before the commit", "after the commit"],
)
def test_a_job_that_is_killed_and_run_again_neither_loses_nor_repeats_rows(
    dev: EnvironmentDescriptor, tmp_path: Path, name: str, when: str, occurrence: int, committed: bool
) -> None:
    batch = land(dev, tmp_path, "a.csv", "1,20,a", "2,x,b", "3,30,c")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MLOPS_ENVIRONMENT": dev.model_dump_json()}
    arguments = [sys.executable, "-c", KILLED, name, when, str(occurrence)]
    done = subprocess.run(
        arguments, cwd=copy_as_forked(tmp_path / "fork"), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (find_batch(open_table(dev, "visits"), batch) is not None) == committed
    run(dev)
    assert ids(dev) == [1, 3]
    assert [row["id"] for row in quarantined(dev, batch)] == ["2"]
    record = read_record(dev, "visits", batch)
    assert record is not None
    assert (record.verdict, record.good, record.quarantined) == ("ingested", 2, 1)
    assert record.snapshot == read_version(dev, "visits")[1].snapshot


def test_lineage_events_have_inputs_assertions_and_outputs(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    batch = land(dev, tmp_path, "a.csv", "1,20,a", "2,-5,b")
    (record,) = run(dev)
    start, complete = events(dev)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    (source,), (table, quarantine) = complete["inputs"], complete["outputs"]
    assert (source["namespace"], source["name"]) == (f"s3://{dev.landing_bucket}", "visits/a.csv")
    held = {
        (a["column"], a["assertion"]): a["success"]
        for a in source["inputFacets"]["dataQualityAssertions"]["assertions"]
    }
    assert held[("age", "minimum")] is False
    assert held[("id", "primaryKey")] is True
    assert source["facets"]["version"]["datasetVersion"] == batch
    assert table["name"] == f"table/{dev.catalog_database}/visits"
    assert table["facets"]["version"]["datasetVersion"] == record.snapshot
    assert [field["name"] for field in table["facets"]["schema"]["fields"]] == ["id", "age", "name"]
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == 1
    (origin,) = table["facets"]["columnLineage"]["fields"]["age"]["inputFields"]
    assert (origin["namespace"], origin["name"], origin["field"]) == (source["namespace"], "visits/a.csv", "age")
    assert quarantine["namespace"] == f"s3://{dev.lake_bucket}"
    for data in (source, table):
        tags = {tag["key"]: tag["value"] for tag in data["facets"]["tags"]["tags"]}
        assert tags == {"dataContract": "visits", "dataContractVersion": "1.0.0", "status": "active"}


def test_the_files_of_one_job_have_the_same_parent_run(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTNAME", "ingest-visits-29400000-abcde")
    for name in ("a.csv", "b.csv"):
        land(dev, tmp_path, name, f"{ord(name[0])},20,a")
    run(dev)
    parents = [event["run"]["facets"]["parent"] for event in events(dev)]
    assert {parent["job"]["name"] for parent in parents} == {"ingest-visits"}
    assert len(parents) == 4 and len({parent["run"]["runId"] for parent in parents}) == 1


def test_a_rejected_file_is_a_failed_lineage_run_with_the_reason(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,age\n1,2\n")
    upload(dev, "visits", tmp_path / "a.csv")
    run(dev)
    start, fail = events(dev)
    assert (start["eventType"], fail["eventType"]) == ("START", "FAIL")
    assert "no 'name'" in fail["run"]["facets"]["errorMessage"]["message"]


def test_lineage_events_also_go_to_the_configured_openlineage_transport(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "events.jsonl"
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(log))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    land(dev, tmp_path, "a.csv", "1,20,a")
    run(dev)
    sent = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["eventType"] for event in sent] == ["START", "COMPLETE"]
    assert events(dev) == sent


def test_an_endpoint_that_does_not_answer_loses_no_event_of_the_bucket(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__LOG_FILE_PATH", str(tmp_path / "missing" / "events.jsonl"))
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__APPEND", "true")
    land(dev, tmp_path, "a.csv", "1,20,a")
    assert [record.verdict for record in run(dev)] == ["ingested"]
    assert [event["eventType"] for event in events(dev)] == ["START", "COMPLETE"]


def test_a_lineage_failure_does_not_fail_the_job(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    unwritable = dev.model_copy(update={"logs_bucket": "no-such-bucket"})
    assert [record.verdict for record in run(unwritable)] == ["ingested"]


def test_the_job_prints_each_outcome_and_fails_only_if_a_file_is_rejected(
    account: EmulatedAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declared = DECLARED.contract("diabetes-patients")
    dev = make_environment("dev", declared)
    monkeypatch.setenv("MLOPS_ENVIRONMENT", dev.model_dump_json())
    work_in_sample(monkeypatch, tmp_path)
    upload(dev, declared.name, DECLARED.contracts_folder / "samples" / "diabetes-patients.csv")
    assert command.main(["ingest", declared.name]) == 0
    output = capsys.readouterr().out
    assert "diabetes-patients.csv: 442 of 447 rows are in the table" in output
    assert "1 row: sex: invalidValues" in output
    (tmp_path / "z.csv").write_bytes(b"\x89PNG")
    upload(dev, declared.name, tmp_path / "z.csv")
    assert command.main(["ingest", declared.name]) == command.REFUSED
    captured = capsys.readouterr()
    assert "diabetes-patients.csv: already in the table" in captured.out
    assert captured.err.startswith("error: 1 of 1 files rejected: z.csv")
    assert command.main(["ingest", declared.name]) == 0, "a schedule must not report the same file forever"
    monkeypatch.setenv("LANDING_FILE", "z.csv")
    assert command.main(["ingest", declared.name]) == command.REFUSED
    monkeypatch.setenv("LANDING_ACTION", "drop")
    monkeypatch.setenv("DROP_REASON", "a picture")
    assert command.main(["ingest", declared.name]) == 0
    assert capsys.readouterr().out.endswith("z.csv: dropped: a picture\n")


@pytest.mark.parametrize(
    ("dataset", "environment", "says"),
    [
        ("no-such", "{}", "unknown dataset 'no-such'"),
        ("diabetes-patients", "", "MLOPS_ENVIRONMENT is not set"),
        ("diabetes-patients", "{}", "expected this key"),
    ],
)
def test_a_user_error_is_printed_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    dataset: str,
    environment: str,
    says: str,
) -> None:
    work_in_sample(monkeypatch, tmp_path)
    monkeypatch.setenv("MLOPS_ENVIRONMENT", environment)
    assert command.main(["ingest", dataset]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_a_missing_table_is_an_error_with_a_fix(account: EmulatedAccount, tmp_path: Path) -> None:
    dev = make_environment("dev")
    land(dev, tmp_path, "a.csv", "1,20,a")
    with pytest.raises(MlopsError, match="has no Iceberg table") as caught:
        run(dev)
    assert "mlops up --env dev" in caught.value.fix


@pytest.mark.parametrize("name", ["a.txt", "a b.csv", ".csv"])
def test_a_file_that_the_job_would_ignore_is_not_uploaded(
    dev: EnvironmentDescriptor, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("id\n1\n")
    with pytest.raises(MlopsError, match="cannot be uploaded"):
        upload(dev, "visits", tmp_path / name)


def test_an_unknown_snapshot_is_an_error_that_lists_the_latest_ones(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    land(dev, tmp_path, "a.csv", "1,20,a")
    (record,) = run(dev)
    with pytest.raises(MlopsError, match="no snapshot '12'") as caught:
        read_version(dev, "visits", "12")
    assert str(record.snapshot) in caught.value.fix


def run_process(dev: EnvironmentDescriptor, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Ingest the sample with `python -m pipelines.data`, as the CronJob does."""
    declared = DECLARED.contract("diabetes-patients")
    make_table(dev, declared)
    upload(dev, declared.name, DECLARED.contracts_folder / "samples" / "diabetes-patients.csv")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MLOPS_ENVIRONMENT": dev.model_dump_json()}
    arguments = [sys.executable, *options, "-m", "pipelines.data", "ingest", declared.name]
    done = subprocess.run(
        arguments, cwd=copy_as_forked(tmp_path / "fork"), env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "442 of 447 rows" in done.stdout
    return done


def test_the_job_prints_nothing_to_stderr(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    assert run_process(dev, tmp_path).stderr == ""


def test_the_job_does_not_import_pandas(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    loaded = {
        line.rpartition("|")[2].strip() for line in run_process(dev, tmp_path, "-X", "importtime").stderr.splitlines()
    }
    assert "duckdb" in loaded
    assert "pandas.core" not in loaded


def test_a_denied_bucket_is_an_error_that_names_the_permission(
    account: EmulatedAccount, dev: EnvironmentDescriptor, tmp_path: Path
) -> None:
    account.denied.add(dev.landing_bucket)
    with pytest.raises(AccessDeniedError, match=f"s3:PutObject on s3://{dev.landing_bucket}/visits/a.csv was denied"):
        land(dev, tmp_path, "a.csv", "1,20,a")
    with pytest.raises(AccessDeniedError, match=f"s3:ListBucket on s3://{dev.landing_bucket}/visits/ was denied"):
        run(dev)


def test_a_file_that_is_too_large_is_rejected_without_being_downloaded(
    dev: EnvironmentDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "LARGEST_FILE", 10)
    monkeypatch.setattr(reading, "LARGEST_FILE", 10)
    monkeypatch.delattr(job, "download")
    land(dev, tmp_path, "a.csv", "1,20,a")
    (record,) = run(dev)
    assert record.verdict == "refused"
    assert "expected at most 10 bytes" in str(record.refused)


def test_the_glue_table_says_what_the_contract_says(dev: EnvironmentDescriptor, tmp_path: Path) -> None:
    def declared(purpose: str, **keys: Any) -> Contract:
        age = column("age", "integer", description=f"Age for {purpose}.", classification="restricted")
        return contract(age, column("name", "string", tags=["pii"]), description={"purpose": purpose}, **keys)

    def described() -> tuple[str, dict[str, str], dict[str, str | None]]:
        table = boto3.client("glue").get_table(DatabaseName=dev.catalog_database, Name="visits")["Table"]
        columns = {each["Name"]: each.get("Comment") for each in table["StorageDescriptor"]["Columns"]}
        return table.get("Description", ""), table["Parameters"], columns

    land(dev, tmp_path, "a.csv", "1,20,a")
    run(dev, declared("research", team={"name": "clinic"}, domain="health"))
    description, parameters, columns = described()
    assert (description, columns["age"], columns["name"]) == ("research", "Age for research.", None)
    assert {key: value for key, value in parameters.items() if key.startswith("mlops.")} == {
        "mlops.contract-id": "urn:test:visits",
        "mlops.contract-version": "1.0.0",
        "mlops.contract-status": "active",
        "mlops.owner": "clinic",
        "mlops.domain": "health",
        "mlops.tags": "",
        "mlops.classifications": "age=restricted",
        "mlops.personal-columns": "age,name",
    }
    land(dev, tmp_path, "b.csv", "2,20,a")
    run(dev, declared("billing", version="1.1.0"))
    description, parameters, columns = described()
    assert (description, columns["age"]) == ("billing", "Age for billing.")
    assert (parameters["mlops.contract-version"], parameters["mlops.owner"]) == ("1.1.0", "")
    assert ids(dev) == [1, 2]


def test_two_jobs_that_update_the_same_schema_end_with_one(dev: EnvironmentDescriptor) -> None:
    first, second = open_table(dev, "visits"), open_table(dev, "visits")
    newer = contract(column("age", "integer", description="Years."), column("name", "string"), column("more", "date"))
    evolve(first, newer)
    evolve(second, newer)  # at the version before the first
    found = open_table(dev, "visits").schema()
    assert [field.name for field in found.fields] == ["id", "age", "name", "more"]
    assert found.find_field("age").doc == "Years."


WARDS = contract(column("name", "string"), name="wards")


def test_a_row_waits_in_quarantine_until_the_table_that_it_refers_to_has_its_value(
    account: EmulatedAccount, tmp_path: Path
) -> None:
    query = "SELECT count(*) FROM {object} JOIN {wards} AS w ON ward = w.id WHERE w.name IS NULL"
    declared = contract(
        column("age", "integer", required=True, minimum=0),
        column("name", "string"),
        column("ward", "integer", relationships=[{"to": "wards.id"}]),
        quality=(
            {"type": "sql", "name": "named", "query": query, "mustBe": 0},
            {"type": "sql", "name": "old", "query": "SELECT max(age) FROM {object}", "mustBe": 0, "severity": "info"},
        ),
    )
    dev = make_environment("dev", declared, WARDS)
    (tmp_path / "a.csv").write_text("id,age,name,ward\n1,20,a,\n2,30,b,7\n")
    upload(dev, "visits", tmp_path / "a.csv")
    (record,) = run(dev, declared)
    assert (record.verdict, record.good, record.quarantined) == ("ingested", 1, 1)
    assert [(each.column, each.rule) for each in record.reasons] == [("ward", "foreignKey wards")]
    assert [str(each) for each in record.warnings] == ["the batch: old: expected exactly 0, found 20"]
    (tmp_path / "w.csv").write_text("id,name\n7,east\n8,\n")
    upload(dev, "wards", tmp_path / "w.csv")
    ingest(dev, WARDS, lambda _: None)
    (again,) = ingest(dev, declared, lambda _: None, only="a.csv", replay=True)
    assert (again.good, again.quarantined, ids(dev)) == (2, 0, [1, 2])
    lines: list[str] = []
    (tmp_path / "b.csv").write_text("id,age,name,ward\n3,20,a,8\n")
    upload(dev, "visits", tmp_path / "b.csv")
    (held,) = ingest(dev, declared, lines.append)
    assert (held.verdict, ids(dev)) == ("refused", [1, 2])
    assert "expected named: exactly 0, found 1" in lines[-1]
