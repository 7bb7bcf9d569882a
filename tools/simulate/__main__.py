"""Run the simulations, write build/simulations.json, and fail if a rate leaves its bound: `make simulate`.

Each run has its own seed, from the name of the simulation and the number of the run. So results do not depend on the
number of processes, and the first runs of a shorter simulation are those of a longer one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.declarations.atomic_files import write_atomically
from tools.simulate import canary_checks, canary_predictions, data_monitors, model_monitors
from tools.simulate.rates import MeasuredRate

SIMULATIONS = {
    **data_monitors.SIMULATIONS,
    **canary_checks.SIMULATIONS,
    **canary_predictions.SIMULATIONS,
    **model_monitors.SIMULATIONS,
}
"""Every simulation, by what happens."""

RESULTS = Path(__file__).parents[2] / "build" / "simulations.json"
BLOCK = 25
PATIENCE = 10
"""Added to the niceness of the processes: the machine stays usable."""


def sum_runs(name: str, start: int, stop: int) -> tuple[float, float]:
    """Return the sums of the values, and of their squares, of some runs of a simulation."""
    run = SIMULATIONS[name].run
    seed = zlib.crc32(name.encode())
    values = [float(run(np.random.default_rng([seed, number]))) for number in range(start, stop)]
    return sum(values), sum(value * value for value in values)


Blocks = list[Future[tuple[float, float]]]


def start(name: str, runs: int, pool: ProcessPoolExecutor) -> Blocks:
    """Start the runs of a simulation, in blocks."""
    return [pool.submit(sum_runs, name, at, min(at + BLOCK, runs)) for at in range(0, runs, BLOCK)]


def wait(name: str, runs: int, blocks: Blocks) -> MeasuredRate:
    """Wait for the runs of a simulation, and return what they measured."""
    sums = [block.result() for block in blocks]
    return SIMULATIONS[name].measured(name, runs, sum(total for total, _ in sums), sum(square for _, square in sums))


def main(arguments: list[str] | None = None) -> int:
    """Run the simulations; return 1 if a rate leaves its bound."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulate", description=__doc__)
    parser.add_argument("--only", default="", help="run the simulations whose name contains this text")
    parser.add_argument("--share", type=float, default=1.0, help="share of the runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of processes")
    given = parser.parse_args(arguments)
    chosen = {
        name: max(1, round(simulation.runs * given.share))
        for name, simulation in SIMULATIONS.items()
        if given.only in name
    }
    begun = time.monotonic()
    found: list[MeasuredRate] = []
    with ProcessPoolExecutor(given.jobs, initializer=os.nice, initargs=(PATIENCE,)) as pool:
        # All are started at once, so that no process waits for the last runs of another simulation.
        started = {name: start(name, runs, pool) for name, runs in chosen.items()}
        for name, blocks in started.items():
            found.append(wait(name, chosen[name], blocks))
            print(found[-1].row(), flush=True)
            print(f"{len(found)} of {len(chosen)}, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    content = json.dumps([each.as_json() for each in found], indent=2, ensure_ascii=False)
    write_atomically(RESULTS, content + "\n")
    print(f"wrote {RESULTS}")
    missed = [each.name for each in found if not each.met]
    for name in missed:
        print(f"out of bounds: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(threads, "1")
    sys.exit(main())
