"""A server that switches what is measured on and off with each signal: two processes differ by more than that costs.

Figures are CPU time per request of the whole process: a server on one core answers as many requests as this time
allows. Other load on the machine only adds to it, so the best quarter of many short rounds counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
from collections.abc import Iterator

from tools.bench.load import Load, put_load
from tools.bench.serving import Server

CONNECTIONS = 32
ROUNDS = 40
SECONDS = 0.5


@contextlib.contextmanager
def two_cores() -> Iterator[int]:
    """Pin this process to the last core; yield the first one, for the server."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, {cores[-1]})
        yield cores[0]
    finally:
        os.sched_setaffinity(0, cores)


def put_alternating_load(
    server: Server, body: bytes, rounds: int, seconds: float, settle_seconds: float = 0.0
) -> tuple[list[Load], list[Load]]:
    """Return the loads of the rounds before and after a switch. The first of each only warms the server up.

    Args:
        server: the server.
        body: body of each request.
        rounds: number of rounds of each kind that count.
        seconds: duration of a round.
        settle_seconds: see `put_load`.
    """
    loads: tuple[list[Load], list[Load]] = [], []
    for number in range(2 * rounds + 2):
        loads[number % 2].append(
            put_load(
                server.url,
                body,
                connections=CONNECTIONS,
                seconds=seconds,
                process=server.process,
                settle_seconds=settle_seconds,
            )
        )
        os.kill(server.process, signal.SIGUSR1)
    return loads


def seconds_per_request(loads: list[Load]) -> float:
    """Return the CPU seconds per request of the best quarter, without the round that warms up."""
    return statistics.quantiles([load.busy / load.rate for load in loads[1:]])[0]
