from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from laptop import lifecycle
from laptop.engine.provider import Provider, ResourceCall
from laptop.github.forge.bare_repository import BareRepository
from laptop.github.hub import Hub
from laptop.tests.cluster.running_cluster import wait_for
from laptop.tests.github.sample_repository import PEOPLE, push, write
from pipelines.declarations.errors import MlopsError

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "laptop"
    yield folder
    lifecycle.stop(folder)


def _caller(environ: dict[str, str]) -> str:
    """Return the identity of a process that has these AWS variables and no others."""
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **environ}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_it_starts_once_reports_its_status_and_stops_without_a_trace(home: Path, tmp_path: Path) -> None:
    started = lifecycle.start(home, tmp_path, time_scale=0.5)
    assert not started.was_running
    again = lifecycle.start(home, tmp_path, time_scale=0.5)
    assert again.was_running
    assert (again.incarnation, again.pids) == (started.incarnation, started.pids)
    assert lifecycle.find(home).environ() == started.environ()

    for secret in ("kubeconfig", "aws/credentials", "target.json"):
        assert stat.S_IMODE((home / secret).stat().st_mode) == 0o600, secret
    packages = started.providers()
    assert sorted(packages) == ["aws", "kubernetes"]
    assert all(isinstance(provider, Provider) for provider in packages.values())
    assert packages["kubernetes"].read(ResourceCall("kubernetes:core/v1:Namespace", {}, id="default"))
    assert _caller(started.environ()).endswith(":user/operator")

    status = lifecycle.status(home)
    assert status.healthy
    assert status.laptop is not None
    for what in ("running", started.aws_endpoint, started.kubernetes_endpoint, "Time scale 2 ", "Stacks     none"):
        assert what in str(status)

    with pytest.raises(MlopsError, match=r"is already running: expected the time scale 1, found 2"):
        lifecycle.start(home, tmp_path)

    (home / "state").mkdir()
    (home / "state" / "dev.json").write_text("{}")
    assert lifecycle.stop(home) == ("dev",)
    assert not any(is_running(pid) for pid in started.pids.values())
    assert not list(home.glob("state/*.json"))
    assert not (home / "aws" / "credentials").exists()
    assert not (home / "kubeconfig").exists()
    assert lifecycle.stop(home) == ()
    assert str(lifecycle.status(home)) == "The laptop is not running."
    with pytest.raises(MlopsError, match="the laptop is not running"):
        lifecycle.find(home)


@pytest.mark.parametrize("victim", ["account", "cluster"])
def test_when_one_process_is_killed_all_end(home: Path, tmp_path: Path, victim: str) -> None:
    first = lifecycle.start(home, tmp_path)
    os.kill(first.pids[victim], signal.SIGKILL)
    wait_for(lambda: not any(is_running(pid) for pid in first.pids.values()))
    assert lifecycle.status(home).laptop is None


def test_after_a_crash_it_starts_again_and_removes_the_state_of_its_stacks(home: Path, tmp_path: Path) -> None:
    first = lifecycle.start(home, tmp_path)
    (home / "state").mkdir()
    (home / "state" / "dev.json").write_text("{}")
    os.kill(first.pids["supervisor"], signal.SIGKILL)
    wait_for(lambda: not is_running(first.pids["supervisor"]))  # its two children may still be ending
    second = lifecycle.start(home, tmp_path)
    assert second.forgotten == ("dev",)
    assert second.incarnation != first.incarnation
    assert lifecycle.status(home).healthy


@pytest.mark.parametrize("which", ["aws_port", "kubernetes_port"])
def test_a_port_in_use_is_an_error_that_names_it(home: Path, tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MlopsError, match=f"cannot listen on 127.0.0.1:{port}: the port is in use"):
            lifecycle.start(home, tmp_path, **{which: port})
    assert lifecycle.status(home).laptop is None


def test_an_attached_laptop_ends_with_the_process_that_started_it(home: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from laptop import lifecycle; "
        f"t = lifecycle.start(Path({str(home)!r}), Path({str(tmp_path)!r}), attached=True); "
        "print('up', flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    with starter.stdout as output:
        assert output.readline() == b"up\n"
    pids = json.loads((home / "target.json").read_text())["pids"]
    starter.kill()
    starter.wait()
    wait_for(lambda: not any(is_running(pid) for pid in pids.values()))
    assert lifecycle.status(home).laptop is None


def test_two_simultaneous_starts_start_one(home: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: lifecycle.start(home, tmp_path), range(2))
    assert first.incarnation == second.incarnation
    assert sorted((first.was_running, second.was_running)) == [False, True]


def test_the_files_of_a_dead_laptop_are_not_taken_for_a_running_one(home: Path) -> None:
    home.mkdir()
    pids = {"supervisor": os.getpid(), "account": os.getpid(), "cluster": os.getpid()}
    (home / "target.json").write_text(json.dumps({"root": "/", "pids": pids}))
    began = time.monotonic()
    assert lifecycle.status(home).laptop is None
    lifecycle.stop(home)  # and does not signal a process that only has the same number
    assert time.monotonic() - began < 5


def test_the_hosted_repository_does_not_outlive_the_account_that_its_pull_requests_are_about(
    home: Path, tmp_path: Path
) -> None:
    lifecycle.start(home, tmp_path)
    hub = Hub(home)
    hub.create(write(tmp_path / "source", {"README": "x"}), settings=PEOPLE)
    clone = hub.clone(tmp_path / "clone", "maria")
    pushed = push(clone, "feature", {"x": "1"})
    hub.open("maria", "feature", "A title")
    ended: list[MlopsError] = []

    def serve() -> None:
        with pytest.raises(MlopsError) as caught:
            hub.runner.serve(threading.Event())
        ended.append(caught.value)

    thread = threading.Thread(target=serve)
    thread.start()
    lifecycle.stop(home)
    thread.join(20)
    assert [error.fix for error in ended] == ["mlops github create"], "a runner that still serves it says what to do"
    assert not Hub(home).exists()
    kept = BareRepository(home / lifecycle.SET_ASIDE / "repository.git")
    assert kept.resolve_ref("feature") == pushed, "no work is lost"
    lifecycle.start(home, tmp_path)
    Hub(home).create(tmp_path / "source", settings=PEOPLE)
    assert Hub(home).pull_requests() == []
