from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from laptop.aws import account as aws
from laptop.aws.image_content import folder_of
from laptop.cluster.kinds import JOB, NAMESPACE, POD, SERVICE
from laptop.cluster.node_account import NodeAccount
from laptop.cluster.watchdog import Watchdog
from laptop.tests.cluster.raw_api import Client
from laptop.tests.cluster.running_cluster import job, wait_for

pytestmark = pytest.mark.slow

# Pod that starts a child and prints both process ids.
FAMILY = (
    "import subprocess, os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "child = subprocess.Popen(['sleep', '60']); print(os.getpid(), child.pid, flush=True); time.sleep(60)"
)


@pytest.fixture(scope="module")
def account_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Folder of a laptop with an account that holds one image."""
    home = tmp_path_factory.mktemp("ends")
    account = aws.start(home / "aws")
    ecr = NodeAccount(home).client("ecr")
    repository = ecr.create_repository(repositoryName="training")["repository"]["repositoryUri"]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": "sha256:" + "1" * 64}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config}
    pushed = ecr.put_image(
        repositoryName="training", imageManifest=json.dumps({**manifest, "layers": []}), imageTag="one"
    )
    digest = pushed["image"]["imageId"]["imageDigest"]
    folder_of(home / "aws", digest).mkdir(parents=True)
    (folder_of(home / "aws", digest) / "family.py").write_text(FAMILY)
    yield home, f"{repository}@{digest}"
    account.stop()


def start_cluster(home: Path, port: int = 0) -> subprocess.Popen[bytes]:
    description = home / "cluster" / "cluster.json"
    description.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "laptop.cluster", str(home), "1.0", str(port)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(lambda: description.exists() or process.poll() is not None)
    return process


def start_family(home: Path, image: str, command: list[str]) -> list[int]:
    client = Client(home / "kubeconfig")
    client.send("POST", NAMESPACE.path(), {"metadata": {"name": "n"}})
    service = {"metadata": {"name": "s"}, "spec": {"selector": {"app": "m"}, "ports": [{"port": 80}]}}
    client.send("POST", SERVICE.path("n"), service)
    manifest = job("family", FAMILY, pod={"container": {"image": image, "command": command}})
    client.send("POST", JOB.path("n"), manifest)
    wait_for(lambda: [p for p in client.send("GET", POD.path("n"))["items"] if p["status"]["phase"] == "Running"], 60)
    (log,) = wait_for(
        lambda: [file for file in home.glob("cluster/pods-*/*/main-0.log") if file.read_text().endswith("\n")]
    )
    return [int(word) for word in log.read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("command", [["python", "-c", FAMILY], ["python", "-m", "family"]], ids=["started", "forked"])
@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "its starter dies"])
def test_no_pod_and_no_child_of_a_pod_survives_the_cluster(
    account_home: tuple[Path, str], end: str, command: list[str]
) -> None:
    home, image = account_home
    process = start_cluster(home)
    try:
        family = start_family(home, image, command)
        family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert all(is_running(pid) for pid in family)
        if end == "its starter dies":
            assert process.stdin is not None
            process.stdin.close()  # as the kernel does
        else:
            process.send_signal(signal.Signals[end])
        assert process.wait(10) == (-signal.SIGKILL if end == "SIGKILL" else 0)
        wait_for(lambda: not any(is_running(pid) for pid in family))
        assert (home / "kubeconfig").exists() is (end == "SIGKILL")
    finally:
        process.kill()
        process.wait()


def test_a_port_in_use_ends_the_cluster_with_exit_code_98(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start_cluster(tmp_path, taken.getsockname()[1])
        assert process.wait(10) == 98


def test_the_watchdog_kills_guarded_groups_and_not_released_ones() -> None:
    watchdog = Watchdog()
    kept, released = (subprocess.Popen(["sleep", "30"], start_new_session=True) for _ in range(2))
    try:
        for process in (kept, released):
            watchdog.guard(process.pid)
        watchdog.release(released.pid)
        watchdog.close()
        assert kept.wait(5) == -signal.SIGKILL
        assert released.poll() is None
    finally:
        released.kill()
        released.wait()
