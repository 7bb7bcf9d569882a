"""The process that writes the inference log may die at any time, and ends with its server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.declarations.inference_logging import LogPolicy
from pipelines.serving.request_counts import count_of
from tests.pipelines.serving.bundles import NAME
from tests.pipelines.serving.conftest import features, row
from tests.pipelines.serving.server_process import PATIENCE, ROOT, ServerProcess, client, get

pytestmark = pytest.mark.slow

INFER = f"/v2/models/{NAME}/infer"
HEADERS = {"Content-Type": "application/json"}
MARK = 59.0625
"""Value of the column `age` that nothing else has."""


def run(folder: Path, kind: str = "good", **environ: str) -> ServerProcess:
    """Start a server with a bundle in memory; its inference log goes to `folder`."""
    return ServerProcess(["tests.pipelines.serving.in_memory_server", str(folder), kind], environ)


def writer_of(server: ServerProcess) -> psutil.Process:
    """Return the writer of a server, which is its only child."""
    (writer,) = psutil.Process(server.process.pid).children(recursive=True)
    return writer


def has_ended(process: psutil.Process) -> bool:
    """Return True if a process has ended. One whose parent has died stays a zombie if nothing reaps it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; fail after a while."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def send(url: str, *names: str, age: float = 59.0) -> None:
    """Send a request for each id."""
    for name in names:
        body = json.dumps(features(row(age=age)) | {"id": name})
        assert client.post(url + INFER, content=body, headers=HEADERS).status_code == 200


def logged(folder: Path) -> list[dict[str, Any]]:
    """Return the records of the inference log."""
    lines = [line for path in folder.rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    return sorted((json.loads(line) for line in lines), key=lambda record: str(record["time"]))


def counted(folder: Path) -> tuple[int, int]:
    """Return the number of requests, and of lost records, in the counts of the log."""
    found = [
        (count, json.loads(path.read_bytes())) for path in folder.rglob("*.json") if (count := count_of(str(path)))
    ]
    return sum(count.requests for count, _ in found), sum(content["lost"] for _, content in found)


def lost(url: str) -> float:
    """Return the number of lost records in the metrics."""
    found = re.findall(r"^inference_log_dropped_records_total\{.*\} (\S+)$", get(f"{url}/metrics").text, re.MULTILINE)
    return sum(map(float, found))


def test_a_killed_writer_is_replaced_and_what_it_had_not_written_is_counted_as_lost(tmp_path: Path) -> None:
    with run(tmp_path, "stuck-once") as server:
        url = server.url()
        server.wait_for("ready")
        send(url, "one", "two", "three")
        wait_until(lambda: (tmp_path / "stuck").exists())
        first = writer_of(server)
        first.kill()
        ended = server.wait_for("the writer of the inference log has ended")
        assert 1 <= ended["records"] <= 3
        assert lost(url) == ended["records"]
        wait_until(lambda: bool(psutil.Process(server.process.pid).children()))
        second = writer_of(server)
        send(url, "four", "five")
        server.terminate()
        assert server.status() == 0
    assert has_ended(first)
    assert has_ended(second)
    names = ["one", "two", "three", "four", "five"]
    assert [record["id"] for record in logged(tmp_path)] == names[ended["records"] :]
    assert counted(tmp_path) == (5 - ended["records"], ended["records"])


def test_objects_of_a_later_writer_replace_none_of_an_earlier_one(tmp_path: Path) -> None:
    with run(tmp_path) as server:
        url = server.url()
        server.wait_for("ready")
        send(url, "one")
        wait_until(lambda: len(logged(tmp_path)) == 1)
        wait_until(lambda: "inference_log_written_records_total 1.0" in get(f"{url}/metrics").text)
        writer_of(server).kill()
        assert server.wait_for("the writer of the inference log has ended")["records"] == 0
        send(url, "two")
        server.terminate()
        assert server.status() == 0
    assert [record["id"] for record in logged(tmp_path)] == ["one", "two"]
    assert counted(tmp_path) == (2, 0)


def test_a_stop_writes_every_record_even_if_the_signal_reaches_the_writer_as_well(tmp_path: Path) -> None:
    with run(tmp_path) as server:
        url = server.url()
        server.wait_for("ready")
        names = [f"request-{number}" for number in range(20)]
        send(url, names[0])
        wait_until(lambda: len(logged(tmp_path)) == 1)
        send(url, *names[1:])
        writer = writer_of(server)
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(writer.pid, number)
        server.terminate()
        assert server.status() == 0
    assert has_ended(writer)
    assert [record["id"] for record in logged(tmp_path)] == names
    assert counted(tmp_path) == (20, 0)


def test_the_writer_of_a_killed_server_writes_what_it_has_and_ends(tmp_path: Path) -> None:
    with run(tmp_path) as server:
        url = server.url()
        server.wait_for("ready")
        send(url, "one")
        wait_until(lambda: len(logged(tmp_path)) == 1)
        writer = writer_of(server)
        server.process.kill()
        server.status()
        wait_until(lambda: has_ended(writer))


@pytest.mark.parametrize("kind", ["bad-golden", "broken-registry"])
def test_a_server_that_cannot_serve_leaves_no_writer(tmp_path: Path, kind: str) -> None:
    with run(tmp_path, kind) as server:
        wait_until(lambda: server.process.poll() is not None)
        # The end of stderr is read once no process has it open.
        assert server.status() == 1
        assert not server._reader.is_alive()


def test_no_personal_value_leaves_the_processes(tmp_path: Path) -> None:
    policy = LogPolicy(withheld=("age",)).model_dump_json()
    with run(tmp_path, LOG_POLICY=policy) as server:
        url = server.url()
        server.wait_for("ready")
        send(url, "one", age=MARK)
        server.terminate()
        assert server.status() == 0
    (record,) = logged(tmp_path)
    assert record["withheld"] == ["age"]
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"59.06" not in everything
    assert "59.06" not in json.dumps(server.said)


def test_the_writer_loads_neither_a_model_runtime_nor_numpy() -> None:
    """It counts as memory of each pod."""
    code = (
        "import sys, pipelines.serving.log_writer, pipelines.serving.logs_bucket; "
        "print(*{'numpy', 'onnxruntime', 'uvicorn', 'pydantic', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
