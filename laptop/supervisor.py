"""Process that runs the laptop's AWS account and its cluster, both or neither.

`python -m laptop.supervisor HOME ROOT TIME_SCALE REGION AWS_PORT KUBERNETES_PORT attached|detached`

It starts both at once, and writes one line of JSON to its standard output when they are up or could not start. It ends
both on SIGTERM, when one of them ends, or, if attached, when its standard input closes. The two read from pipes of this
process, so they end even when it is killed. It holds a lock while it runs, so other processes can see that it does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from laptop.aws.account import Account
from laptop.aws.account import start as start_account
from laptop.aws.eks_clusters import declare_clusters, declared_clusters
from pipelines.declarations.atomic_files import write_atomically
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project

LOCK = "running.lock"
DESCRIPTION = "target.json"
_PORT_IN_USE = 98
_UP_WITHIN = 120.0  # seconds; a machine with much other work needs a while
_DOWN_WITHIN = 6.0  # seconds
_LOCKED_WITHIN = 1.0  # seconds; other processes take the lock briefly to check that it is free
_LOOK = 0.2  # seconds between checks of the two processes


@dataclass(frozen=True)
class Order:
    """Order to the supervisor; the fields are arguments of `laptop.lifecycle.start`."""

    home: Path
    root: Path
    time_scale: float
    region: str
    aws_port: int
    kubernetes_port: int
    attached: bool


def supervise(order: Order) -> int:
    """Run both until they must end. Returns the exit code."""
    lock = FileLock(order.home / LOCK)
    try:
        lock.acquire(timeout=_LOCKED_WITHIN, poll_interval=0.01)
    except Timeout:
        _answer(
            {"error": f"another supervisor is running in {order.home}", "fix": "wait for it, or `mlops laptop stop`."}
        )
        return 1
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is handled by the parent process
    if order.attached:
        threading.Thread(target=_wait_for_starter, args=(ending,), daemon=True).start()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(start_account, order.home / "aws", port=order.aws_port, region=order.region)
        cluster = _start_cluster(order)
        try:
            described = _wait_for_cluster(order, cluster)
            account = coming.result()
            clusters = declared_clusters(Project(order.root))
            declare_clusters(account.home, order.home / "kubeconfig", clusters)
        except MlopsError as error:
            _stop(cluster)
            with contextlib.suppress(MlopsError):
                coming.result().stop()
            _answer({"error": error.what, "fix": error.fix})
            return 1
    write_atomically(order.home / DESCRIPTION, json.dumps(_description(order, account, described), indent=1) + "\n")
    _answer({"ready": True})
    while not ending.wait(_LOOK) and cluster.poll() is None and _is_alive(account):
        pass
    (order.home / DESCRIPTION).unlink(missing_ok=True)
    _stop(cluster)  # before the account, so that pods can finish what they write
    account.stop()
    return 0


def is_running(home: Path) -> bool:
    """Return whether a supervisor runs in a folder. The kernel frees its lock however it dies."""
    lock = FileLock(home / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _start_cluster(order: Order) -> subprocess.Popen[bytes]:
    folder = order.home / "cluster"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "cluster.json").unlink(missing_ok=True)
    # The cluster must not see the operator's own AWS configuration.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    arguments = [str(order.home), str(order.time_scale), str(order.kubernetes_port)]
    with (folder / "cluster.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "laptop.cluster", *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def _wait_for_cluster(order: Order, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    description, log = order.home / "cluster" / "cluster.json", order.home / "cluster" / "cluster.log"
    deadline = time.monotonic() + _UP_WITHIN
    while time.monotonic() < deadline:
        if description.exists():
            described: dict[str, Any] = json.loads(description.read_text())
            return described
        if process.poll() is not None:
            break
        time.sleep(0.01)
    if process.returncode == _PORT_IN_USE:
        raise MlopsError(
            f"the cluster cannot listen on 127.0.0.1:{order.kubernetes_port}: the port is in use",
            fix="stop the program that listens there, or choose another port (0 takes a free one).",
        )
    if process.returncode is None:
        raise MlopsError(f"the cluster did not answer within {_UP_WITHIN:.0f} s", fix=f"read {log}.")
    raise MlopsError(f"the cluster ended with exit code {process.returncode}", fix=f"read {log}.")


def _description(order: Order, account: Account, cluster: dict[str, Any]) -> dict[str, Any]:
    return {
        "root": str(order.root),
        "timeScale": order.time_scale,
        "region": account.region,
        "awsEndpoint": account.endpoint,
        "kubernetesEndpoint": cluster["endpoint"],
        "proxy": cluster["proxy"],
        "incarnation": f"{account.incarnation}-{cluster['incarnation']}",
        "pids": {"supervisor": os.getpid(), "account": account.pid, "cluster": cluster["pid"]},
        "attached": order.attached,
    }


def _is_alive(account: Account) -> bool:
    """Return whether the account's process, a child of this one, has not ended. It is not reaped."""
    try:
        return os.waitid(os.P_PID, account.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_DOWN_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_starter(ending: threading.Event) -> None:
    while os.read(0, 64):
        pass
    ending.set()


def _answer(answer: dict[str, Any]) -> None:
    """Write the one-line reply, and close standard output: it has no reader after that."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(answer).encode() + b"\n")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def main() -> int:
    """Run the command line."""
    home, root, time_scale, region, aws_port, kubernetes_port, mode = sys.argv[1:]
    return supervise(
        Order(
            Path(home),
            Path(root),
            float(time_scale),
            region,
            int(aws_port),
            int(kubernetes_port),
            attached=mode == "attached",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
