"""Compaction of the inference log: each record counts once at every moment, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from pipelines.declarations.bundle import RequestSchema
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.inference_logging import LogPolicy
from pipelines.monitoring import log_compaction
from pipelines.monitoring.log_compaction import HourResult, LogCompaction, older_part
from pipelines.monitoring.log_records import ParquetPart, parquet_part
from pipelines.monitoring.request_log import LogTotals, RequestLog
from pipelines.registry import store
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.monitoring.served_model import DIGEST, NOW, OTHER, Traffic, declared, live_bundle
from tests.pipelines.serving.bundles import mixed_bundle
from tests.pipelines.serving.conftest import mixture, served

pytestmark = pytest.mark.slow

MODEL = "departures"
HOUR = NOW.replace(minute=0) - timedelta(hours=5)
LATER = NOW + timedelta(hours=2)
SCHEMA = live_bundle(declared(), rows=100).schema


def registered(*schemas: RequestSchema) -> Any:
    """Return a registry that has the schemas of the bundles; a replacement of `fetch`."""
    known = dict(zip((DIGEST, OTHER), schemas or (SCHEMA, SCHEMA), strict=False))

    def fetch(_: Any, model: str, digest: str, names: Any) -> Any:
        if digest not in known:
            raise MlopsError(f"{digest} is not registered")
        return SimpleNamespace(files={"schema.json": known[digest].model_dump_json().encode()})

    return fetch


@pytest.fixture
def traffic(account: EmulatedAccount, monkeypatch: pytest.MonkeyPatch) -> Traffic:
    monkeypatch.setattr(log_compaction, "fetch", registered())
    monkeypatch.setattr(log_compaction, "LOOK_BACK", timedelta(hours=9))
    return Traffic(make_environment("dev"))


def read(traffic: Traffic, bundle: str = DIGEST) -> tuple[list[Any], dict[str, Any]]:
    """Return the rows of a bundle as the monitor reads them, by id, and the counts of all bundles."""
    totals, rows = LogTotals(), []
    log = RequestLog(traffic.environment, MODEL, bundle, SCHEMA)
    for part in log.read(HOUR, NOW, totals, NOW - timedelta(days=9)):
        columns = part.features.to_pydict()
        for at, id_ in enumerate(part.ids.to_pylist()):
            row = [columns[name][at] for name in sorted(columns)]
            rows.append((id_, int(part.numbers[at]), int(part.times[at]), row, part.predicted[at].tolist()))
    return sorted(rows), {"requests": dict(totals.requests), "errors": dict(totals.errors), "lost": totals.unreadable}


def keys(traffic: Traffic) -> list[str]:
    return [each.key for each in store.listing(traffic.environment.logs_bucket, f"inference/{MODEL}/2")]


def compact(traffic: Traffic, now: datetime = NOW, **options: Any) -> list[HourResult]:
    return list(LogCompaction(traffic.environment, MODEL, **options).run(now))


def busy_hour(traffic: Traffic) -> None:
    """Write two objects of one bundle, one of another, and server errors."""
    traffic.send(40, at=HOUR, rows_each=2)
    traffic.send(30, at=HOUR + timedelta(minutes=30), missing=0.2)
    traffic.send(10, at=HOUR, bundle=OTHER)
    traffic.fail(3, at=HOUR + timedelta(minutes=10))


def test_a_finished_hour_becomes_one_parquet_file_for_each_bundle_and_reads_the_same(traffic: Traffic) -> None:
    busy_hour(traffic)
    before = [read(traffic, bundle) for bundle in (DIGEST, OTHER)]
    assert before[0][1] == {"requests": {DIGEST: 53, OTHER: 10}, "errors": {DIGEST: 3, OTHER: 0}, "lost": 0}
    (result,) = compact(traffic)
    assert (result.hour, result.compacted, result.files, result.removed, result.left) == (HOUR, 4, 2, 0, 0)
    assert [read(traffic, bundle) for bundle in (DIGEST, OTHER)] == before
    assert compact(traffic, NOW + timedelta(minutes=59)) == []
    (result,) = compact(traffic, LATER)
    assert (result.compacted, result.files, result.removed) == (0, 0, 4)
    assert {part.bundle for key in keys(traffic) if (part := parquet_part(key))} == {DIGEST, OTHER}
    assert len(keys(traffic)) == 2
    assert [read(traffic, bundle) for bundle in (DIGEST, OTHER)] == before
    assert compact(traffic, LATER) == []


def test_an_hour_that_servers_may_still_write_to_stays_as_it_is(traffic: Traffic) -> None:
    traffic.send(5, at=NOW.replace(minute=0) - timedelta(hours=1))
    assert compact(traffic, NOW + timedelta(minutes=59)) == []
    assert len(compact(traffic, NOW + timedelta(minutes=60))) == 1


def test_a_large_hour_becomes_several_files_and_late_objects_another(traffic: Traffic) -> None:
    for _ in range(4):
        traffic.send(20, at=HOUR)
    (result,) = compact(traffic, part_bytes=12_000)
    assert (result.compacted, result.files) == (4, 2)
    traffic.send(7, at=HOUR)
    before = read(traffic)
    assert len(before[0]) == 87
    assert [each.files for each in compact(traffic)] == [1]
    assert read(traffic) == before
    assert [parquet_part(key).number for key in keys(traffic) if parquet_part(key)] == [0, 1, 2]  # type: ignore[union-attr]
    compact(traffic, LATER)
    assert (len(keys(traffic)), read(traffic)) == (3, before)


def test_objects_that_are_not_all_records_of_a_known_bundle_stay(traffic: Traffic) -> None:
    traffic.send(5, at=HOUR)
    traffic.send(5, at=HOUR, bundle="sha256:" + "c" * 64)
    good = json.dumps({"time": f"{HOUR:%Y-%m-%dT%H:%M:%S}.000Z", "bundle": DIGEST, "rows": 0, "status": 500})
    for text in (
        "not a record\n",
        '{"bundle":' + "[" * 100_000 + "\n",
        f"{good}\n{{}}\n",
        f"{good}\n{good[:-1]}",
        f"{good[:-1]}, \"more\": 1}}\n",
        good.replace(DIGEST, OTHER) + f"\n{good}\n",
        good.replace("T0", "TT") + "\n",
        f"{good}\n\n",
    ):  # fmt: skip
        traffic.put(HOUR, text)
    before = read(traffic)
    (result,) = compact(traffic)
    assert (result.compacted, result.left) == (1, 9)
    assert read(traffic) == before
    (result,) = compact(traffic, LATER)
    assert (result.removed, result.left) == (1, 9)
    assert read(traffic) == before


def test_of_two_runs_at_once_one_writes(traffic: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    busy_hour(traffic)
    before = read(traffic)
    write, others = LogCompaction._write, [HourResult(HOUR)]

    def other_run_first(self: LogCompaction, *arguments: Any) -> bool:
        monkeypatch.setattr(LogCompaction, "_write", write)
        traffic.send(3, at=HOUR)  # which only the other run sees
        others[:] = compact(traffic)
        return write(self, *arguments)

    monkeypatch.setattr(LogCompaction, "_write", other_run_first)
    assert compact(traffic) == []
    assert (others[0].compacted, others[0].files) == (5, 2)
    rows, counts = read(traffic)
    assert len(rows) == len(before[0]) + 3
    assert counts["requests"] == {DIGEST: 56, OTHER: 10}
    compact(traffic, LATER)
    assert read(traffic) == (rows, counts)


def test_nothing_is_removed_if_the_parquet_file_lacks_a_record(traffic: Traffic) -> None:
    import io

    import pyarrow.parquet as pq

    traffic.send(20, at=HOUR)
    compact(traffic)
    bucket = traffic.environment.logs_bucket
    (key,) = [key for key in keys(traffic) if parquet_part(key)]
    table = pq.read_table(io.BytesIO(store.get(bucket, key, limit=1 << 20).content))
    buffer = io.BytesIO()
    pq.write_table(table.slice(1), buffer)
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())
    with pytest.raises(MlopsError, match=r"does not have the records of pod-1\.jsonl: expected those of its 20 lines"):
        compact(traffic, LATER)
    assert len(keys(traffic)) == 2


def test_every_field_of_a_record_is_in_the_parquet_file(account: EmulatedAccount, monkeypatch: Any) -> None:
    import io

    import pyarrow.parquet as pq

    environment, bundle = make_environment("dev"), mixed_bundle()
    server = served(bundle, policy=LogPolicy(sample=0.999, withheld=("town",), groups=("town",)))
    for changes in ({}, {"large": [2**62 + 1]}, {"town": ["Bonn"]}, {"wide": [1e-9, 0.1]}):
        server.infer(mixture(**changes) | {"id": f'"é{len(changes)}\u2028'})
    server.log.record_failure(503, b"f" * 32)
    records = server.logged()
    lines = next(content for key, content in server.written.items() if key.endswith(".jsonl"))
    hour = datetime.fromisoformat(records[0]["time"]).replace(minute=0, second=0, microsecond=0)
    folder = f"inference/progression/{hour:%Y/%m/%d/%H}/"
    boto3.client("s3").put_object(Bucket=environment.logs_bucket, Key=folder + "p-1.jsonl", Body=lines)
    schema = server.predictor.schema
    monkeypatch.setattr(
        log_compaction,
        "fetch",
        lambda *_: SimpleNamespace(files={"schema.json": schema.model_dump_json().encode()}),
    )
    compaction = LogCompaction(environment, "progression")
    assert compaction.compact_hour(hour, hour).compacted == 1
    name = ParquetPart(bundle.digest, 0).name
    stored = store.get(environment.logs_bucket, folder + name, limit=1 << 20).content
    found = pq.read_table(io.BytesIO(stored)).to_pylist()
    assert len(found) == len(records) == 5
    for one, record in zip(found, records, strict=True):
        assert one.pop("source") == "p-1.jsonl"
        assert one.pop("time") == datetime.fromisoformat(record.pop("time"))
        assert _without_nulls(one) == record
    older = pq.read_table(io.BytesIO(older_part(stored, 3)))
    assert older["time"][0].as_py() == pq.read_table(io.BytesIO(stored))["time"][0].as_py() - timedelta(days=3)
    assert older.drop_columns(["time"]).equals(pq.read_table(io.BytesIO(stored)).drop_columns(["time"]))


def _without_nulls(value: Any) -> Any:
    """Return a record without the columns that it does not have."""
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(each) for name, each in value.items() if each is not None}


def test_killed_after_each_write_nothing_is_lost_or_counted_twice(traffic: Traffic) -> None:
    busy_hour(traffic)
    before = [read(traffic, bundle) for bundle in (DIGEST, OTHER)]
    code = """
import os, signal
from datetime import timedelta
import botocore.client
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.monitoring import log_compaction
from tests.pipelines.monitoring.served_model import NOW
from tests.pipelines.monitoring.test_log_compaction import LATER, MODEL, registered
call = botocore.client.BaseClient._make_api_call
def killed_after_a_write(self, name, arguments):
    answer = call(self, name, arguments)
    if name in ("PutObject", "DeleteObject"):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
botocore.client.BaseClient._make_api_call = killed_after_a_write
log_compaction.fetch = registered()
for now in (NOW, LATER):
    list(log_compaction.LogCompaction(EnvironmentDescriptor.from_environ(), MODEL).run(now))
"""
    environ = {**os.environ, "MLOPS_ENVIRONMENT": traffic.environment.model_dump_json()}
    seen: list[int] = []
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False, timeout=300)
        assert [read(traffic, bundle) for bundle in (DIGEST, OTHER)] == before, seen
        seen.append(len(keys(traffic)))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert seen == [5, 6, 5, 4, 3, 2, 2]
