"""Benchmark of shadow traffic: what copying requests to a canary costs a live server.

One server copies in every other round. Without a shadow step it only asks the beacon every five seconds. The figure is
CPU time per request of the live server. A process that only takes copies stands for the canary: a model would compete
with the load for a core. Other load on the machine only adds to the time, so the best quarter of many short rounds
counts. Run it alone with `python -m tools.bench.shadow_traffic`.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.declarations.shadow_traffic import SHADOW_PEERS, ShadowPeers, ShadowTarget
from pipelines.serving.shadow_beacon import serve_beacon
from pipelines.serving.shadow_protocol import COPIES
from tools.bench.figures import Figure
from tools.bench.serving import Server, golden_row, our_server, train
from tools.bench.switched_server import (
    CONNECTIONS,
    ROUNDS,
    SECONDS,
    put_alternating_load,
    seconds_per_request,
    two_cores,
)

SWITCHED = (
    "-c",
    """
import signal, sys
from pipelines.serving import server
from pipelines.serving.shadow_sender import ShadowSender
class Switched(ShadowSender):
    copies = False
    @property
    def is_on(self):
        return self.told and Switched.copies
    @is_on.setter
    def is_on(self, value):
        self.told = value
def switch(*_):
    Switched.copies = not Switched.copies
server.ShadowSender = Switched
signal.signal(signal.SIGUSR1, switch)
from pipelines.serving.__main__ import main
sys.exit(main(sys.argv[1:]))
""",
)
"""Program of a server that stops and starts copying with each signal."""


TAKER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    while connection.recv(1 << 16):
        connection.sendall(b"HTTP/1.1 202 Accepted\\r\\ncontent-length: 0\\r\\n\\r\\n")
"""
"""Program that takes copies, from one connection at a time."""


def measure(rounds: int = ROUNDS, seconds: float = SECONDS) -> list[Figure]:
    """Measure CPU time per request while a share of the requests is copied, and while nothing is."""
    manifest, files = train()
    body = golden_row(files["golden.json"])
    found = []
    with two_cores() as core:
        for percent in (10, 50):
            with contextlib.ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                beacon = stack.enter_context(serve_beacon(ShadowTarget(canary="pong", percent=percent), "127.0.0.1", 0))
                peers = ShadowPeers(
                    beacon=f"http://127.0.0.1:{beacon}",
                    ping="http://127.0.0.1:1",
                    pong=f"http://127.0.0.1:{stack.enter_context(_taker())}",
                )
                environ = {SHADOW_PEERS: peers.model_dump_json()}
                live = stack.enter_context(our_server(manifest, files, core, folder, SWITCHED, **environ))
                found.append(_figure(percent, live, body, rounds, seconds))
    return found


@contextlib.contextmanager
def _taker() -> Iterator[int]:
    """Start a process that takes copies; yield its port."""
    with subprocess.Popen([sys.executable, "-c", TAKER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _base(server: Server) -> str:
    parts = urlsplit(server.url)
    return f"{parts.scheme}://{parts.netloc}"


def _copies(server: Server) -> dict[str, float]:
    """Return the number of copies so far, by what became of them."""
    with urllib.request.urlopen(f"{_base(server)}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = [line.partition('{result="')[2].split('"} ') for line in lines if line.startswith(f"{COPIES}_total")]
    return {result: float(number) for result, number in found}


def _figure(percent: int, live: Server, body: bytes, rounds: int, seconds: float) -> Figure:
    time.sleep(6)  # until it has asked the beacon
    loads = put_alternating_load(live, body, rounds, seconds)
    off, on = map(seconds_per_request, loads)
    requests = sum(load.rate * seconds for load in loads[1])
    copies = _copies(live)
    return Figure(
        f"copying {percent} % of the requests to a canary, {CONNECTIONS} connections",
        f"{on * 1e6:.1f} µs of CPU a request",
        f"the same server without a shadow step: {off * 1e6:.1f} µs",
        f"{on / off - 1:.1%} more; {copies['sent'] / max(1.0, requests):.1%} of the requests arrived as copies",
        "",
        True,
    )


if __name__ == "__main__":
    for figure in measure():
        print(figure)
    sys.exit(0)
