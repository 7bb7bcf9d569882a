"""Benchmark of the ledger: offline verification of a long history from its copy.

Run `python -m tools.bench.history`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from pipelines.promotion.history import read_history
from tests.pipelines.registry.chains import MODEL, chain_of, offline_environment, verified
from tools.bench.figures import Figure

RECORDS = 10_000
ROUNDS = 3
SLOWEST = 5.0
"""Seconds."""


def measure(records: int = RECORDS, rounds: int = ROUNDS) -> list[Figure]:
    """Measure the median time to verify every signature and link of a history."""
    environment = offline_environment()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        (copy / "environment.json").write_text(environment.model_dump_json())
        envelopes = chain_of([verified(number) for number in range(1, records + 1)])
        (copy / f"{MODEL}.jsonl").write_bytes(b"".join(envelope + b"\n" for envelope in envelopes))
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            if len(read_history(copy, MODEL, None, verify=True)) != records:
                raise AssertionError("records are missing")
            seconds.append(time.perf_counter() - start)
    took = statistics.median(seconds)
    return [
        Figure(
            f"`mlops history --verify` of {records:,} records from the copy, offline",
            f"{took:.2f} s ({records / took:,.0f} records/s)",
            "",
            f"{took:.2f} s",
            f"≤ {SLOWEST:g} s",
            took <= SLOWEST,
        )
    ]


if __name__ == "__main__":
    for figure in measure():
        print(figure)
