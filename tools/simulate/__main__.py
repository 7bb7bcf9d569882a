"""Run the simulations, write build/simulations.json, and fail if a rate leaves its bound: `make simulate`.

Each run has a seed of its own, from the name of the simulation and the number of the run. So results do not depend on
the number of processes, and the first runs of a shorter simulation are those of a longer one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from pipelines.declarations.atomic_files import write_atomically
from tools.simulate import canary_checks, data_monitors, model_monitors
from tools.simulate.rates import MeasuredRate

SIMULATIONS = {**data_monitors.SIMULATIONS, **canary_checks.SIMULATIONS, **model_monitors.SIMULATIONS}
"""Every simulation: what happens → the run, the number of runs, and the bounds of the rate: at most, at least."""

RESULTS = Path(__file__).parents[2] / "build" / "simulations.json"
BLOCK = 25


def count_events(name: str, start: int, stop: int) -> int:
    """Return how often something happened in some runs of a simulation."""
    run = SIMULATIONS[name][0]
    seed = zlib.crc32(name.encode())
    return sum(bool(run(np.random.default_rng([seed, number]))) for number in range(start, stop))


def simulate(name: str, runs: int, pool: ProcessPoolExecutor) -> MeasuredRate:
    """Run a simulation a number of times."""
    starts = range(0, runs, BLOCK)
    blocks = pool.map(count_events, [name] * len(starts), starts, [min(at + BLOCK, runs) for at in starts])
    _, _, at_most, at_least = SIMULATIONS[name]
    return MeasuredRate(name, runs, sum(blocks), at_most, at_least)


def main(arguments: list[str] | None = None) -> int:
    """Run the simulations; return 1 if a rate leaves its bound."""
    parser = argparse.ArgumentParser(prog="python -m tools.simulate", description=__doc__)
    parser.add_argument("--only", default="", help="run the simulations whose name holds this text")
    parser.add_argument("--share", type=float, default=1.0, help="share of the runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of processes")
    given = parser.parse_args(arguments)
    found = []
    with ProcessPoolExecutor(given.jobs) as pool:
        for name, (_, runs, _, _) in SIMULATIONS.items():
            if given.only in name:
                found.append(simulate(name, max(1, round(runs * given.share)), pool))
                print(found[-1].row(), flush=True)
                content = json.dumps([each.as_json() for each in found], indent=2, ensure_ascii=False)
                write_atomically(RESULTS, content + "\n")
    print(f"wrote {RESULTS}")
    missed = [each.name for each in found if not each.met]
    for name in missed:
        print(f"out of bounds: {name}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
