"""Drift report with plots, compared with Evidently: 20 numeric columns, a million rows on each side.

Run `python -m tools.bench.drift_report`. Whole processes are measured, from the start to the page, one after another.
Evidently makes one test for each column (Kolmogorov-Smirnov), ours makes the same, a chi-square and a rank-sum test.
Both must find the columns that moved. Evidently runs in its own environment, because it does not import with pandas 3.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import tempfile
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from tools.bench.figures import Figure
from tools.bench.measured_process import ResourceUsage, run_measured
from tools.bench.monitors import judge

ROOT = Path(__file__).parents[2]
PEER = ROOT / ".venv" / "bench-drift" / "bin" / "python"
ROWS, COLUMNS, ROUNDS = 1_000_000, 20, 2
ROWS_AT_ONCE = 65_536
MOVED = {"c3": 0.05, "c7": 0.2}
"""Columns whose mean moves, in standard deviations; enough for the test, the first too little for our alarm."""

FASTER = 20.0
PAGE_BYTES = 150_000
"""Size limit of the compressed page."""


def generate(path: Path, seed: int, moved: dict[str, float]) -> None:
    """Write a Parquet file of normally distributed columns."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    names = [f"c{number}" for number in range(COLUMNS)]
    pq.write_table(pa.table({name: rng.normal(moved.get(name, 0.0), 1, ROWS) for name in names}), path)


def write_report(reference: Path, current: Path, page: Path) -> list[str]:
    """Compare two files as a data monitor does, write the page, and return the columns that differ significantly."""
    from pipelines.data.parquet_stream import stream_parquet
    from pipelines.declarations.contract import Column
    from pipelines.monitoring.column_drift import FALSE_DISCOVERY_RATE, compare_column
    from pipelines.monitoring.column_profiles import profile_streams

    columns = [
        Column.model_validate_json(f'{{"name": "c{number}", "logicalType": "number"}}') for number in range(COLUMNS)
    ]
    names = [column.name for column in columns]
    streams = (stream_parquet(path, names, ROWS_AT_ONCE) for path in (reference, current))
    old, new = profile_streams(columns, *streams)
    findings, content = judge([compare_column(each.name, old[each.name], new[each.name]) for each in columns])
    page.write_bytes(content)
    alarms = [each.subject for each in findings if each.verdict == "alarm"]
    assert alarms == ["c7"], alarms  # 0.05 standard deviations are too little
    return [each.subject for each in findings if (each.p_value or 0) <= FALSE_DISCOVERY_RATE]


def measure(rounds: int = ROUNDS) -> list[Figure]:
    """Measure both reports.

    Raises:
        AssertionError: one of them does not find what moved, or our page is not the same again.
        MlopsError: Evidently is not installed.
    """
    if not PEER.exists():
        raise MlopsError(f"{PEER} is missing", fix="make bench, which installs requirements/bench-drift.txt there")
    used: dict[str, list[ResourceUsage]] = {"ours": [], "Evidently": []}
    pages: dict[str, list[bytes]] = {name: [] for name in used}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        reference, current = folder / "reference.parquet", folder / "current.parquet"
        generate(reference, 1, {})
        generate(current, 2, MOVED)
        script = Path(__file__).parent / "peer" / "drift_evidently.py"
        commands = {
            "ours": [sys.executable, "-m", "tools.bench.drift_report"],
            "Evidently": [str(PEER), str(script)],
        }
        for number in range(rounds):
            for name, command in commands.items():
                page = folder / f"{name}-{number}.html"
                took = run_measured(
                    [*command, str(reference), str(current), str(page)], {"DO_NOT_TRACK": "1"}, folder=ROOT
                )
                found = json.loads(took.output.splitlines()[-1])
                assert set(found) >= set(MOVED) and len(found) <= len(MOVED) + 1, (name, found)
                used[name].append(took)
                pages[name].append(page.read_bytes())
    assert len(set(pages["ours"])) == 1, "the page of the same report has other bytes"
    ours, peer = (statistics.median(each.cpu for each in used[name]) for name in used)
    wall = [statistics.median(each.seconds for each in used[name]) for name in used]
    peaks = [max(each.peak for each in used[name]) / 1e6 for name in used]
    size, other = (len(gzip.compress(pages[name][0], mtime=0)) for name in pages)
    what = f"drift report of {COLUMNS} columns × {ROWS:,} rows"
    return [
        Figure(f"{what}, with plots", f"{ours:.1f} CPU s ({wall[0]:.1f} s), {peaks[0]:,.0f} MB",
               f"Evidently: {peer:.1f} CPU s ({wall[1]:.1f} s), {peaks[1]:,.0f} MB",
               f"{peer / ours:.1f} ({wall[1] / wall[0]:.1f} by the clock)", f"≥ {FASTER:g}", peer / ours >= FASTER),
        Figure("its page, compressed; the same bytes in each run", f"{size / 1e3:.0f} kB",
               f"Evidently: {other / 1e3:,.0f} kB", f"{size / 1e3:.0f} kB", f"≤ {PAGE_BYTES / 1e3:g} kB",
               size <= PAGE_BYTES),
    ]  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(write_report(*map(Path, sys.argv[1:]))))
    else:
        for figure in measure():
            print(figure)
