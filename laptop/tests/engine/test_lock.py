from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from laptop.engine.lock import holder_file, release_dead, stack_lock
from laptop.tests.engine.conftest import Site
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow


def held_by_another_process(path: Path) -> int:
    """Fork a process that holds the lock until it is killed; return its pid."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with stack_lock(path, wait=0, notice=lambda text: None):
                os.write(writer, b"held")
                signal.pause()
        finally:
            os._exit(1)
    assert os.read(reader, 4) == b"held"
    os.close(reader)
    os.close(writer)
    return child


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_live_holder_is_named_awaited_and_then_reported_as_busy(tmp_path: Path) -> None:
    path = tmp_path / "dev.lock"
    pid = held_by_another_process(path)
    notices: list[str] = []
    try:
        with (
            pytest.raises(MlopsError, match=rf"stack dev is busy: process {pid} on (?s:.*)since 20\d\d-"),
            stack_lock(path, wait=0.1, notice=notices.append),
        ):
            pytest.fail("two processes held the lock")
    finally:
        end(pid)
    assert len(notices) == 1
    assert f"waiting for process {pid}" in notices[0]


def test_the_lock_of_a_dead_holder_is_taken_over_with_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "dev.lock"
    pid = held_by_another_process(path)
    end(pid)
    notices: list[str] = []
    with stack_lock(path, wait=0, notice=notices.append):
        assert f'"pid": {os.getpid()}' in holder_file(path).read_text()
    assert len(notices) == 1
    assert f"took over the lock of dev from process {pid}" in notices[0]
    assert not holder_file(path).exists()
    with stack_lock(path, wait=0, notice=notices.append):
        pass
    assert len(notices) == 1


def test_unlocking_names_a_dead_holder_and_removes_its_note(tmp_path: Path) -> None:
    path = tmp_path / "dev.lock"
    pid = held_by_another_process(path)
    end(pid)
    notices: list[str] = []
    release_dead(path, notices.append)
    assert notices[0].startswith(f"process {pid} on ")
    assert notices[0].endswith("has ended; removed its lock")
    release_dead(path, notices.append)
    assert notices[1:] == ["stack dev is not locked"]
    with stack_lock(path, wait=0, notice=notices.append):
        pass
    assert len(notices) == 2


def test_unlocking_refuses_while_the_holder_runs(tmp_path: Path) -> None:
    path = tmp_path / "dev.lock"
    pid = held_by_another_process(path)
    try:
        with pytest.raises(MlopsError, match=rf"stack dev is locked: process {pid} on ") as caught:
            release_dead(path, lambda text: None)
        assert "end that process" in caught.value.fix
    finally:
        end(pid)


def test_unlocking_a_stack_that_was_never_locked_changes_nothing(tmp_path: Path) -> None:
    notices: list[str] = []
    release_dead(tmp_path / "state" / "dev.lock", notices.append)
    assert notices == ["stack dev is not locked"]
    assert not (tmp_path / "state").exists()


def test_a_waiting_caller_gets_the_lock_when_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "dev.lock"
    waiting = threading.Event()
    order: list[str] = []

    def second() -> None:
        with stack_lock(path, wait=20, notice=lambda text: waiting.set()):
            order.append("second")

    thread = threading.Thread(target=second)
    with stack_lock(path, wait=0, notice=order.append):
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


UP = """
import sys
from pathlib import Path
from laptop.engine.deployment import Deployment
from laptop.tests.engine.fake_cloud import FakeCloud, FakeProvider
folder = Path(sys.argv[1])
provider = FakeProvider(FakeCloud(folder / "cloud.json"))
print("ready", flush=True)
sys.stdin.readline()
result = Deployment(folder / "project", "dev", {"fake": provider}, folder / "home").up()
print(len(result.changes), flush=True)
"""


def test_two_concurrent_ups_do_the_work_once(site: Site) -> None:
    site.write("for n in range(6): Thing(f'a{n}')\n")
    (site.folder / "up.py").write_text(textwrap.dedent(UP))
    repository = Path(__file__).parents[3]
    processes = [
        subprocess.Popen(
            [sys.executable, str(site.folder / "up.py"), str(site.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repository)},
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        done = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert done == ["0", "7"]
    assert len(site.cloud.things()) == 6


def test_an_operation_does_not_start_while_another_process_works_on_the_stack(site: Site) -> None:
    site.write("Thing('a')")
    pid = held_by_another_process(site.home / "state" / "dev.lock")
    try:
        for operation in ("up", "destroy", "refresh"):
            with pytest.raises(MlopsError, match=f"process {pid}"):
                getattr(site.deployment(lock_wait=0), operation)()
        assert site.deployment().preview().counts == {"create": 2}
    finally:
        end(pid)
    assert not site.cloud.things()
    site.deployment(lock_wait=0).up()
