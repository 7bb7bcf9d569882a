"""Benchmark of the contract check: speed compared with handwritten SQL, and peak memory.

Run `python -m tools.bench.contract`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.data.reading import read_batch
from pipelines.data.validate import validate
from pipelines.declarations.contract import Contract
from pipelines.declarations.project import Project
from tools.bench.figures import Figure

ROWS = 10_000_000
ROUNDS = 5
SLOWEST = 0.5
MOST_MEMORY = 1_000_000_000
ONE_BAD_ROW_IN = 1_000

BY_HAND = """
SELECT count(*) FROM read_parquet('{path}') WHERE
  patient_id IS NULL OR patient_id < 1 OR age IS NULL OR age < 0 OR age > 120 OR sex IS NULL OR sex NOT IN (1, 2)
  OR bmi IS NULL OR NOT isfinite(bmi) OR bmi < 10 OR bmi > 80 OR bp IS NULL OR NOT isfinite(bp) OR bp < 40 OR bp > 200
  OR s1 IS NULL OR NOT isfinite(s1) OR s1 < 50 OR s1 > 500 OR s2 IS NULL OR NOT isfinite(s2) OR s2 < 10 OR s2 > 400
  OR s3 IS NULL OR NOT isfinite(s3) OR s3 < 5 OR s3 > 150 OR s4 IS NULL OR NOT isfinite(s4) OR s4 < 1 OR s4 > 20
  OR s5 IS NULL OR NOT isfinite(s5) OR s5 < 2 OR s5 > 8 OR s6 IS NULL OR NOT isfinite(s6) OR s6 < 30 OR s6 > 400
  OR progression IS NULL OR NOT isfinite(progression) OR progression < 0 OR progression > 500
"""
"""Handwritten check of the same contract. It counts bad rows but gives no reasons."""

BY_HAND_UNIQUE = "SELECT count(*) - count(DISTINCT patient_id) FROM read_parquet('{path}')"


def generate(path: Path, rows: int) -> None:
    """Write a Parquet file of patients in random order; one in a thousand has an impossible body mass index."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SELECT setseed(0.5)")
        connection.execute(
            f"""COPY (SELECT (i * 7919) % {rows} + 1 AS patient_id, CAST(19 + i % 60 AS INTEGER) AS age,
            CAST(1 + i % 2 AS INTEGER) AS sex,
            CASE WHEN i % {ONE_BAD_ROW_IN} = 7 THEN 800 ELSE 15 + random() * 30 END AS bmi,
            60 + random() * 70 AS bp, 90 + random() * 200 AS s1, 40 + random() * 200 AS s2, 20 + random() * 80 AS s3,
            2 + random() * 7 AS s4, 3 + random() * 3 AS s5, 58 + random() * 60 AS s6, 25 + random() * 320 AS progression
            FROM range({rows}) t(i)) TO '{path}' (FORMAT parquet)"""  # noqa: S608
        )


def by_hand(path: Path) -> int:
    """Count the bad rows with the handwritten SQL, in DuckDB's default configuration."""
    import duckdb

    with duckdb.connect(config={"threads": os.cpu_count() or 1}) as connection:
        bad = connection.execute(BY_HAND.format(path=path)).fetchall()[0][0]
        return int(bad + connection.execute(BY_HAND_UNIQUE.format(path=path)).fetchall()[0][0])


def by_contract(path: Path, contract: Contract) -> int:
    """Count the bad rows with our check, which also collects every reason."""
    with tempfile.TemporaryDirectory() as scratch:
        batch = read_batch(path, contract, Path(scratch))
        with validate(batch, contract, Path(scratch)) as checked:
            return checked.summary.quarantined


def peak_memory(path: Path) -> int:
    """Measure the peak resident memory, in bytes, of a new process that checks the file."""
    code = "import sys; from tools.bench.contract import print_peak; print_peak(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def print_peak(path: str) -> None:
    """Check the file and print the peak resident memory of this process, in bytes."""
    by_contract(Path(path), Project.find().contract("diabetes-patients"))
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, getrusage includes the memory of the parent
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        print(int(peak.split()[1]) * 1024)
        return
    import resource

    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure(rows: int = ROWS, rounds: int = ROUNDS) -> list[Figure]:
    """Measure speed and memory. Both checks run alternately in one process, and their medians are compared."""
    contract = Project.find().contract("diabetes-patients")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patients.parquet"
        generate(path, rows)
        expected = by_hand(path)
        if by_contract(path, contract) != expected:
            raise AssertionError("the contract check and the handwritten SQL disagree")
        seconds: dict[str, list[float]] = {"by hand": [], "ours": []}
        for _ in range(rounds):
            runs: dict[str, Callable[[], object]] = {
                "by hand": lambda: by_hand(path),
                "ours": lambda: by_contract(path, contract),
            }
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
        hand, ours = statistics.median(seconds["by hand"]), statistics.median(seconds["ours"])
        memory = peak_memory(path)
    millions = f"{rows / 1e6:g} million rows of Parquet"
    return [
        Figure(
            f"contract check of {millions}",
            f"{ours:.2f} s ({rows / ours / 1e6:.1f} million rows/s)",
            f"handwritten DuckDB SQL, without reasons: {hand:.2f} s",
            f"{hand / ours:.2f}",
            f"≥ {SLOWEST}",
            hand / ours >= SLOWEST,
        ),
        Figure(
            f"memory of the contract check of {millions}",
            f"{memory / 1e6:.0f} MB",
            "",
            f"{memory / 1e6:.0f} MB",
            f"< {MOST_MEMORY / 1e6:.0f} MB",
            memory < MOST_MEMORY,
        ),
    ]


if __name__ == "__main__":
    for figure in measure():
        print(figure)
