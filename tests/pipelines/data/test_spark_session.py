"""The Spark server of a command: it is found or missed with a reason, and ends with the command."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data import sail_process, spark_session
from pipelines.data.sail_process import addresses, endpoint_of_s3, sail_command
from pipelines.data.spark_rows import FileGroup, FileRows, group_files, read_files
from pipelines.data.spark_session import open_spark, run_sail
from pipelines.declarations.errors import MlopsError


def test_files_are_grouped_by_how_they_store_the_columns() -> None:
    schemas = {
        "old": pa.schema({"id": pa.int32(), "other": pa.binary()}),
        "new": pa.schema({"id": pa.int64(), "name": pa.large_string()}),
        "same": pa.schema({"name": pa.string(), "id": pa.int64()}),
    }
    assert group_files(list(schemas), schemas.__getitem__, ["id", "name"]) == [
        FileGroup(("old",), {"id": "int"}),
        FileGroup(("new", "same"), {"id": "bigint", "name": "string"}),
    ]


def test_files_that_lack_columns_are_in_the_group_of_those_that_have_them() -> None:
    schemas = {
        "first": pa.schema({"id": pa.int64()}),
        "none": pa.schema({"other": pa.binary()}),
        "more": pa.schema({"name": pa.string(), "id": pa.int64()}),
        "changed": pa.schema({"name": pa.int32()}),
    }
    assert group_files(list(schemas), schemas.__getitem__, ["id", "name"]) == [
        FileGroup(("first", "none", "more"), {"id": "bigint", "name": "string"}),
        FileGroup(("changed",), {"name": "int"}),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["local", "local-cluster"])
def test_a_column_that_a_file_lacks_is_null_there(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pysail", reason="requirements/spark.txt is not installed")
    tables = ({"id": [1], "name": ["a"]}, {"id": [2]}, {"other": [b"x"]}, {"name": ["d"], "id": [4]})
    paths = [str(tmp_path / f"{number}.parquet") for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(pa.table(table), path)
    types = {"id": "bigint", "name": "string"}
    rows = FileRows(group_files(paths, pq.read_schema, types), types, lambda: iter(()))
    with run_sail(SAIL_MODE=mode) as address:
        monkeypatch.setenv("SPARK_REMOTE", address)
        with open_spark() as spark:
            frame = read_files(spark, rows)
            assert frame is not None
            found = {tuple(row) for row in frame.collect()}
    assert found == {(1, "a"), (2, None), (None, None), (4, "d")}


def test_sail_becomes_a_server_or_a_worker_that_listens_at_its_own_address() -> None:
    assert sail_command("sail", ["10.0.0.7", "50051"]) == [
        "sail", "spark", "server", "--ip", "10.0.0.7", "--port", "50051",
    ]  # fmt: skip
    assert sail_command("sail", ["worker"]) == ["sail", "worker"]
    given = {"SAIL_CLUSTER__WORKER_EXTERNAL_HOST": "10.0.0.8", "SAIL_CLUSTER__WORKER_LISTEN_HOST": "::"}
    assert {**given, **addresses(given)}["SAIL_CLUSTER__WORKER_LISTEN_HOST"] == "10.0.0.8"
    assert addresses({}) == {}


def test_a_type_that_no_contract_has_is_refused() -> None:
    with pytest.raises(MlopsError, match=r"stores a column as list<.*>: expected a type of a contract, string, int"):
        group_files(["x"], lambda _: pa.schema({"id": pa.list_(pa.int64())}), ["id"])


def test_another_endpoint_of_s3_is_told_to_the_server() -> None:
    assert endpoint_of_s3({}) == {}
    laptop = {"AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}
    assert endpoint_of_s3(laptop) == {"AWS_ENDPOINT": "http://127.0.0.1:5000", "AWS_ALLOW_HTTP": "true"}
    own = {"AWS_ENDPOINT_URL": "https://a", "AWS_ENDPOINT_URL_S3": "https://b"}
    assert endpoint_of_s3(own) == {"AWS_ENDPOINT": "https://b", "AWS_ALLOW_HTTP": "false"}


def test_without_the_client_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyspark"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MlopsError, match="the distributed engine is not installed") as raised, open_spark():
        pass
    assert raised.value.fix == "install requirements/spark.txt: make spark"


def test_without_a_server_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_session, "find_sail", lambda: None)
    with pytest.raises(MlopsError, match="SPARK_REMOTE is not set, and no server is installed"), run_sail():
        pass


def test_a_pod_without_the_program_ends_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sail_process, "find_sail", lambda: None)
    monkeypatch.setattr(sys, "argv", ["sail_process", "127.0.0.1", "50051"])
    with pytest.raises(SystemExit) as raised:
        sail_process.main()
    assert raised.value.code == 1
    assert "error: the program sail is not installed" in capsys.readouterr().err


SLEEPER = """#!/bin/sh
echo $$ > {pids}
exec sleep 600
"""


@pytest.mark.slow
def test_the_server_ends_with_its_program_even_if_that_is_killed(tmp_path: Path) -> None:
    program, pids = tmp_path / "sail", tmp_path / "pid"
    program.write_text(SLEEPER.format(pids=pids))
    program.chmod(0o755)
    find = "from pipelines.data import sail_process; sail_process.find_sail = lambda: os.environ['SLEEPER']; "
    inner = f"import os; {find}sail_process.main()"
    outer = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"
    command = [sys.executable, "-c", outer, sys.executable, "-c", inner, "127.0.0.1", "1"]
    parent = subprocess.Popen(
        command, env={**os.environ, "SLEEPER": str(program), "PYTHONPATH": str(Path(__file__).parents[3])}
    )
    deadline = time.monotonic() + 60
    while not (pids.exists() and pids.read_text().strip()) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    child = int(pids.read_text())
    parent.kill()
    parent.wait()
    while Path(f"/proc/{child}").exists() and "Z" not in _state(child) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert not Path(f"/proc/{child}").exists() or "Z" in _state(child)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.slow
def test_a_program_without_a_file_can_use_the_client() -> None:
    """The client takes it for a run of its doctests, and ends it."""
    pytest.importorskip("pyspark", reason="requirements/spark.txt is not installed")
    program = (
        "import os; os.environ['SPARK_REMOTE'] = 'sc://127.0.0.1:1'\n"
        "from pipelines.data.spark_session import open_spark\n"
        "from pipelines.declarations.errors import MlopsError\n"
        "try:\n    open_spark().__enter__()\n"
        "except MlopsError as error:\n    print(error.what)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert "the Spark server sc://127.0.0.1:1 does not answer" in done.stdout, done.stderr
