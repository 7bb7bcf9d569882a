"""Benchmark of the inference log: what writing it costs a server.

One server logs in every other round: two processes with the same code differ by more than the log costs. The server and
the process that writes its log run on different cores, and the bound is compared with the CPU time per request of the
server alone: a server on one core answers as many requests as this time allows, if the writer has another core. In a
pod with less than two cores, both share what the pod has, and the CPU time of both counts. It is shown beside it,
without a bound. Other load on the machine only adds to the times, so the best quarter of many short rounds counts for
the server. The writer works later than the server, so its time is an average of all rounds. Run it alone with
`python -m tools.bench.inference_log`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tools.bench.figures import Figure
from tools.bench.load import Load, children, cpu_seconds, put_load, resident
from tools.bench.serving import Server, check_log, golden_row, our_server, train
from tools.bench.switched_server import (
    CONNECTIONS,
    ROUNDS,
    SECONDS,
    put_alternating_load,
    seconds_per_request,
    two_cores,
)

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
    manifest, files = train()
    body = without_id(golden_row(files["golden.json"]))
    found = []
    with two_cores() as core:
        for what, policy in (("all requests logged", ""), ("a sample of 10 % logged", '{"sample": 0.1}')):
            with contextlib.ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                server = stack.enter_context(our_server(manifest, files, core, folder, SWITCHED, LOG_POLICY=policy))
                (writer,) = children(server.process)
                os.sched_setaffinity(writer, os.sched_getaffinity(0))  # the other core
                put_load(server.url, body, connections=CONNECTIONS, seconds=2.0, process=server.process)
                wait_for_writer(server, 0.0)  # its first object takes longest
                computing, wrote = cpu_seconds(writer), records_written(server)
                loads = put_alternating_load(server, body, rounds, seconds)
                wait_for_writer(server, wrote)
                records = records_written(server) - wrote
                share = records / sum(load.rate * seconds for load in loads[0])
                found += _figures(what, *loads, share * (cpu_seconds(writer) - computing) / records)
                check_log(server)
                if not policy:
                    found.append(_memory(server.process, writer))
    return found


def without_id(body: bytes) -> bytes:
    """Remove the id of a request: the server then makes one for each, and a sample holds its share of them."""
    return json.dumps({key: value for key, value in json.loads(body).items() if key != "id"}).encode()


def records_written(server: Server) -> float:
    """Return how many records the server's log has written."""
    return _metric(server, "inference_log_written_records_total")


def wait_for_writer(server: Server, wrote: float) -> None:
    """Wait until the writer has written more than some records, and writes no others."""
    before, found = wrote, records_written(server)
    while found == wrote or found > before:
        time.sleep(4)
        before, found = found, records_written(server)


def _metric(server: Server, name: str) -> float:
    with urllib.request.urlopen(server.url.partition("/v2/")[0] + "/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def _figures(what: str, logged: list[Load], unlogged: list[Load], writing: float) -> list[Figure]:
    """Return the figure of the server alone, and that of both processes.

    Args:
        what: which requests are logged.
        logged, unlogged: rounds with the log and without it.
        writing: CPU seconds of the writer for each request.
    """
    found, without = seconds_per_request(logged), seconds_per_request(unlogged)
    lost = 1 - without / found  # throughput is the inverse of the time
    against = f"the same server without its log: {without * 1e6:.1f} µs"
    named = f"{what}, {CONNECTIONS} connections"
    return [
        Figure(
            f"cost of the inference log in the server, {named}",
            f"{found * 1e6:.1f} µs of CPU a request",
            against,
            f"{lost:.1%} of throughput",
            f"< {MOST_SHARE:.0%}",
            lost < MOST_SHARE,
        ),
        Figure(
            f"cost of the inference log in the server and its writer, {named}",
            f"{(found + writing) * 1e6:.1f} µs of CPU a request, {writing * 1e6:.1f} µs of them in the writer",
            against,
            f"{(found + writing) / without - 1:.1%} more CPU time",
            "",
            True,
        ),
    ]


def _memory(server: int, writer: int) -> Figure:
    found, more = resident(server), resident(writer)
    return Figure(
        "memory of the log's writer after the load (resident)",
        f"{more / 1e6:.0f} MB",
        f"its server: {found / 1e6:.0f} MB",
        f"{(found + more) / 1e6:.0f} MB together",
        "",
        True,
    )


if __name__ == "__main__":
    for figure in measure():
        print(figure)
    sys.exit(0)
