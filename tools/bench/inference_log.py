"""Benchmark of the inference log: what writing it costs a server.

One server logs in every other round: two processes with the same code differ by more than the log costs. The figure is
CPU time per request of the whole process, with the thread that writes: a server on one core answers as many requests as
this time allows. Other load on the machine only adds to it, so the best quarter of many short rounds counts. Run it
alone with `python -m tools.bench.inference_log`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from tools.bench.figures import Figure
from tools.bench.load import put_load
from tools.bench.serving import Server, golden_row, our_server, train

CONNECTIONS = 32
ROUNDS = 40
SECONDS = 0.5
MOST_SHARE = 0.05

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
    cores = sorted(os.sched_getaffinity(0))
    manifest, files = train()
    body = golden_row(files["golden.json"])
    found = []
    try:
        os.sched_setaffinity(0, {cores[-1]})
        for what, policy in (("all requests logged", ""), ("a sample of 10 % logged", '{"sample": 0.1}')):
            with contextlib.ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                server = stack.enter_context(our_server(manifest, files, cores[0], folder, SWITCHED, LOG_POLICY=policy))
                found.append(_figure(what, *_times(server, body, rounds, seconds)))
    finally:
        os.sched_setaffinity(0, cores)
    return found


def _times(server: Server, body: bytes, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """Return the CPU time per request of rounds with the log and without it."""
    times: tuple[list[float], list[float]] = [], []
    for number in range(2 * rounds + 2):
        load = put_load(server.url, body, connections=CONNECTIONS, seconds=seconds, process=server.process)
        if number > 1:  # the first ones warm up
            times[number % 2].append(load.busy / load.rate)
        os.kill(server.process, signal.SIGUSR1)
    return times


def _figure(what: str, logged: list[float], unlogged: list[float], bound: float = MOST_SHARE) -> Figure:
    found, without = (statistics.quantiles(times)[0] for times in (logged, unlogged))
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
