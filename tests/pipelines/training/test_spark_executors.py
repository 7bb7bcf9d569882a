"""A training set is the same on Spark with two executors, also if one of them is killed while it works.

The tests need Spark 4 in SPARK_HOME, and Java: `make test-spark`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.pipelines.training.held_work import HeldWork

SPARK = os.environ.get("SPARK_HOME", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not SPARK, reason="SPARK_HOME names no Spark with executors (make test-spark)"),
]

EXECUTOR = "CoarseGrainedExecutorBackend"
LONGEST = 300.0  # seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    """A Spark Connect server with two executors, whose address is in SPARK_REMOTE."""
    folder = tmp_path_factory.mktemp("spark")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.local.dir": folder,
        "spark.sql.warehouse.dir": folder / "warehouse",
        "spark.sql.shuffle.partitions": 4,
    }
    command = [f"{SPARK}/bin/spark-submit", "--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += ["--master", "local-cluster[2,1,1024]", *(f"--conf={key}={value}" for key, value in settings.items())]
    # Workers find no code of this project.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SPARK_REMOTE")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "spark-internal"],
            cwd=folder,
            env={**environment, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    started = psutil.Process(process.pid)
    try:
        wait_for(lambda: listens(port) or process.poll() is not None, "the server")
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPARK_REMOTE", f"sc://127.0.0.1:{port}")
            yield started
    finally:
        for each in [*started.children(recursive=True), started]:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what} after {LONGEST:.0f} seconds"
        threading.Event().wait(0.05)


def executors(server: psutil.Process) -> list[psutil.Process]:
    found = []
    for each in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if any(EXECUTOR in part for part in each.cmdline()) and "java" in each.name():
                found.append(each)
    return found


@pytest.mark.parametrize("kill", [False, True], ids=["as-they-are", "one-is-killed"])
def test_the_training_set_is_that_of_one_process(server: psutil.Process, kill: bool, tmp_path: Path) -> None:
    held = HeldWork(tmp_path)
    wait_for(lambda: len(executors(server)) == 2, "two executors")

    def work() -> None:
        wait_for(lambda: len(list(held.signals.iterdir())) >= 2 or ended.is_set(), "work on both executors")
        if kill and not ended.is_set():
            os.kill(executors(server)[0].pid, signal.SIGKILL)
        (held.signals / "go").touch()

    ended = threading.Event()
    before = {each.pid for each in executors(server)}
    worker = threading.Thread(target=work)
    worker.start()
    try:
        there = held.sort(6)
    finally:
        ended.set()
        worker.join()
    assert (before == {each.pid for each in executors(server)}) is not kill
    held.check(there)
