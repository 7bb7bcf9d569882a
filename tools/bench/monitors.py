"""Benchmark of a monitor's profile: CPU time and peak memory of 20 numeric columns in Parquet.

Run `python -m tools.bench.monitors`. The file is read by the function that reads data files of a table. A million rows
are compared with a thousand; the report includes its plots. Ten million are the same file read ten times.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.bench.figures import Figure
from tools.bench.measured_process import run_measured

if TYPE_CHECKING:
    from pipelines.monitoring.column_comparison import ColumnComparison
    from pipelines.monitoring.monitor_findings import MonitorFinding

ROWS = 1_000_000
COLUMNS = 20
MEGABYTES = 450
SECONDS = {1: 2.5, 10: 20.0}


def generate(path: Path) -> None:
    """Write the Parquet file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    schema = pa.schema([(f"c{number}", pa.float64()) for number in range(COLUMNS)])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for _ in range(10):
            arrays = [pa.array(rng.normal(size=ROWS // 10)) for _ in range(COLUMNS)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def judge(comparisons: Sequence[ColumnComparison]) -> tuple[tuple[MonitorFinding, ...], bytes]:
    """Judge compared columns as a data monitor does; return the findings and the page of the report."""
    from pipelines.declarations.data_monitoring import DataMonitorSettings
    from pipelines.monitoring.column_drift import judge_drift
    from pipelines.monitoring.data_report import DataMonitorReport
    from pipelines.monitoring.monitor_findings import overall_verdict
    from pipelines.monitoring.report_page import render_page

    findings = tuple(judge_drift(tuple(comparisons), DataMonitorSettings()))
    report = DataMonitorReport(
        environment="dev",
        dataset="bench",
        contract="1.0.0",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        snapshot="1",
        verdict=overall_verdict(findings),
        findings=findings,
        columns=tuple(comparisons),
    )
    return findings, render_page(report)


def examine_file(path: Path, times: int) -> dict[str, float]:
    """Profile, judge and report the file in this process; return CPU seconds and the size of the page."""
    from pipelines.data.data_files import stream_file
    from pipelines.declarations.contract import Column
    from pipelines.monitoring.column_drift import compare_column
    from pipelines.monitoring.column_profiles import profile_streams

    columns = [
        Column.model_validate_json(f'{{"name": "c{number}", "logicalType": "number"}}') for number in range(COLUMNS)
    ]

    def batches(times: int) -> Iterator[Any]:
        for _ in range(times):
            yield from stream_file(path, [column.name for column in columns])

    start = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    old, new = profile_streams(columns, batches(times), [next(batches(1)).slice(0, 1_000)])
    profiled = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, page = judge([compare_column(c.name, old[c.name], new[c.name]) for c in columns])
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "profile": profiled - start,
        "report": used.ru_utime + used.ru_stime - start,
        "page": float(len(page)),
    }


def measure() -> list[Figure]:
    """Return the figures, each measured in a fresh process."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        generate(path)
        for times, limit in SECONDS.items():
            command = [sys.executable, "-m", "tools.bench.monitors", str(path), str(times)]
            used = run_measured(command)
            found = json.loads(used.output)
            rows = f"{ROWS * times // 1_000_000} million rows × {COLUMNS} columns"
            seconds, memory = found["profile"], used.peak / 1e6
            figures += [
                Figure(f"profile of {rows}", f"{seconds:.1f} CPU s", "", f"{seconds:.1f} s", f"≤ {limit:g} s",
                       seconds <= limit),
                Figure(f"the same with tests, verdicts and page ({found['page'] / 1000:.0f} kB)",
                       f"{found['report']:.1f} CPU s", "", f"{found['report']:.1f} s", f"≤ {limit + 1:g} s",
                       found["report"] <= limit + 1),
                Figure(f"memory of the profile of {rows}", f"{memory:.0f} MB", "", f"{memory:.0f} MB",
                       f"≤ {MEGABYTES} MB", memory <= MEGABYTES),
            ]  # fmt: skip
    return figures


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(examine_file(Path(sys.argv[1]), int(sys.argv[2]))))
    else:
        for figure in measure():
            print(figure.name, figure.value, figure.target, "met" if figure.met else "NOT MET", sep="; ")
