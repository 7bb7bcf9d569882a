"""Benchmark of the inference log: what writing it costs a server.

One server logs in every other round: two processes with the same code differ by more than the log costs. The figure is
CPU time per request of the whole process, with the thread that writes: a server on one core answers as many requests as
this time allows. The thread writes every two seconds, so a round ends when it has written. Other load on the machine
only adds to it, so the best quarter of many short rounds counts. Run it alone with
`python -m tools.bench.inference_log`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from pipelines.serving.inference_log import Limits
from tools.bench.figures import Figure
from tools.bench.load import Load
from tools.bench.serving import golden_row, our_server, train
from tools.bench.switched_server import (
    CONNECTIONS,
    put_alternating_load,
    seconds_per_request,
    two_cores,
)

MOST_SHARE = 0.05

ROUNDS = 20
SECONDS = 1.0
WRITTEN_AFTER = Limits.seconds + 0.5
"""Seconds after a load until its records are written."""

SWITCHED = (
    "-c",
    """
import signal, sys
from pipelines.serving.inference_log import InferenceLog
from pipelines.serving.__main__ import main
record = InferenceLog.record
def unlogged(self, answer, trace):
    pass
def switch(*_):
    InferenceLog.record = unlogged if InferenceLog.record is record else record
signal.signal(signal.SIGUSR1, switch)
sys.exit(main(sys.argv[1:]))
""",
)
"""Program of a server that stops and starts logging with each signal."""


def measure(rounds: int = ROUNDS, seconds: float = SECONDS) -> list[Figure]:
    """Measure CPU time per request with the log and without it, for all requests and for a sample of 10 %."""
    manifest, files = train()
    body = without_id(golden_row(files["golden.json"]))
    found = []
    with two_cores() as core:
        for what, policy in (("all requests logged", ""), ("a sample of 10 % logged", '{"sample": 0.1}')):
            with contextlib.ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                server = stack.enter_context(our_server(manifest, files, core, folder, SWITCHED, LOG_POLICY=policy))
                found.append(_figure(what, *put_alternating_load(server, body, rounds, seconds, WRITTEN_AFTER)))
    return found


def without_id(body: bytes) -> bytes:
    """Remove the id of a request: the server then makes one for each, and a sample holds its share of them."""
    return json.dumps({key: value for key, value in json.loads(body).items() if key != "id"}).encode()


def _figure(what: str, logged: list[Load], unlogged: list[Load], bound: float = MOST_SHARE) -> Figure:
    found, without = seconds_per_request(logged), seconds_per_request(unlogged)
    lost = 1 - without / found  # throughput is the inverse of the time
    return Figure(
        f"cost of the inference log, {what}, {CONNECTIONS} connections",
        f"{found * 1e6:.1f} µs of CPU a request",
        f"the same server without its log: {without * 1e6:.1f} µs",
        f"{lost:.1%} of throughput",
        f"< {bound:.0%}",
        lost < bound,
    )


if __name__ == "__main__":
    for figure in measure():
        print(figure)
    sys.exit(0)
