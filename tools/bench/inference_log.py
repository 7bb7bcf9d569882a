"""Benchmark of the inference log: what writing it costs a server.

The same server runs with its log and without, and both take turns. The figure is CPU time per request of the whole
process, with the thread that writes: a server on one core answers as many requests as this time allows. Other load on
the machine changes rates, but hardly CPU times. Run it alone with `python -m tools.bench.inference_log`.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tools.bench.figures import Figure
from tools.bench.load import put_load
from tools.bench.serving import SERVER, golden_row, our_server, train

CONNECTIONS = 32
ROUNDS = 15
SECONDS = 2.0
MOST_SHARE = 0.05

WITHOUT_LOG = """
import sys
from pipelines.serving.inference_log import InferenceLog
InferenceLog.record = lambda self, answer, trace: None
from pipelines.serving.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def measure(rounds: int = ROUNDS, seconds: float = SECONDS) -> list[Figure]:
    """Measure CPU time per request with the log, without it, and with a sample of 10 %."""
    cores = sorted(os.sched_getaffinity(0))
    manifest, files = train()
    body = golden_row(files["golden.json"])
    times: dict[str, list[float]] = {"with": [], "without": [], "sample": []}
    try:
        os.sched_setaffinity(0, {cores[-1]})
        with contextlib.ExitStack() as stack:
            servers = {}
            for name in times:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                servers[name] = stack.enter_context(
                    our_server(
                        manifest,
                        files,
                        cores[0],
                        folder,
                        ("-c", WITHOUT_LOG) if name == "without" else SERVER,
                        LOG_POLICY='{"sample": 0.1}' if name == "sample" else "",
                    )
                )
            for number in range(rounds + 1):
                for name, server in servers.items():
                    load = put_load(server.url, body, connections=CONNECTIONS, seconds=seconds, process=server.process)
                    if number:  # the first round warms up
                        times[name].append(load.busy / load.rate)
    finally:
        os.sched_setaffinity(0, cores)
    return [
        _figure("all requests logged", times["with"], times["without"], MOST_SHARE),
        _figure("a sample of 10 % logged", times["sample"], times["without"], MOST_SHARE),
    ]


def _figure(what: str, logged: list[float], unlogged: list[float], bound: float) -> Figure:
    found, without = statistics.median(logged), statistics.median(unlogged)
    # Throughput is the inverse of the time.
    lost = 1 - statistics.median(b / a for a, b in zip(logged, unlogged, strict=True))
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
