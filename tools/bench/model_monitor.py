"""Benchmark of a model's monitor: time and peak memory for a million logged requests of 20 features.

Run `python -m tools.bench.model_monitor`. The log is written to an emulated account on 127.0.0.1, in objects as the
server writes them; the monitor reads, parses and judges it, and renders the page. Then the log is compacted, and read
again. A monitor finds lines only of the last hours: `compact-<model>` runs an hour before it. Its own process is
measured, without the account's.
"""

from __future__ import annotations

import gzip
import json
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from unittest import mock

from pipelines.startup import relax_gc
from tools.bench.figures import Figure
from tools.bench.measured_process import run_measured

REQUESTS = 1_000_000
FEATURES = 20
OBJECT_REQUESTS = 2_000
SECONDS, MEGABYTES, PAGE_BYTES = 10.0, 500, 150_000

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64


def examine() -> dict[str, float]:
    """Examine the log in this process; return seconds, CPU seconds, requests, and the size of the compressed page."""
    from pipelines.declarations.environment import EnvironmentDescriptor
    from pipelines.monitoring.model_monitor import examine_model
    from pipelines.monitoring.model_report_page import render_model_page
    from tools.bench.model_monitor_input import live, model

    descriptor = EnvironmentDescriptor.from_environ()
    declared, bundle = model(FEATURES), live(FEATURES, DIGEST, NOW)
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    report = examine_model(descriptor, declared, bundle, NOW)
    page = render_model_page(report)
    used = resource.getrusage(resource.RUSAGE_SELF)
    assert render_model_page(report) == page, "the page of the same report has other bytes"
    return {
        "page": len(gzip.compress(page, mtime=0)),
        "requests": report.requests,
        "seconds": time.perf_counter() - begin,
        "cpu": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
    }


def measure(requests: int = REQUESTS) -> list[Figure]:
    """Return the figures."""
    from pipelines.monitoring import log_compaction
    from tests.aws import emulated_account, make_environment
    from tools.bench.model_monitor_input import NAME, live, write_log

    at = NOW - timedelta(hours=6)
    with emulated_account() as account:
        descriptor = make_environment()
        write_log(descriptor, requests, OBJECT_REQUESTS, FEATURES, DIGEST, at)
        environ = {**account.environ(), "MLOPS_ENVIRONMENT": descriptor.model_dump_json()}
        command = [sys.executable, "-m", "tools.bench.model_monitor", "examine"]
        used = {"in lines": run_measured(command, environ)}
        schema = live(FEATURES, DIGEST, NOW).schema.model_dump_json().encode()
        registered = SimpleNamespace(files={"schema.json": schema})
        with mock.patch.object(log_compaction, "fetch", return_value=registered):
            done = log_compaction.LogCompaction(descriptor, NAME).compact_hour(at, NOW)
        assert done.compacted == -(-requests // OBJECT_REQUESTS), done
        used["compacted"] = run_measured(command, environ)
    pages = {name: json.loads(each.output)["page"] for name, each in used.items()}
    assert len(set(pages.values())) == 1, f"the log reads differently once it is compacted: {pages}"
    figures = []
    for form, each in used.items():
        found, megabytes = json.loads(each.output), each.peak / 1e6
        what = f"{found['requests']:,.0f} requests × {FEATURES} features, {form}"
        figures += [
            Figure(f"monitor of {what}", f"{found['seconds']:.1f} s", "", f"{found['cpu']:.1f} CPU s",
                   f"≤ {SECONDS:g} s", found["seconds"] <= SECONDS),
            Figure(f"memory of the monitor of {what}", f"{megabytes:.0f} MB", "", f"{megabytes:.0f} MB",
                   f"≤ {MEGABYTES} MB", megabytes <= MEGABYTES),
        ]  # fmt: skip
    page = pages["in lines"] / 1e3
    name = "its page, compressed; the same bytes again"
    shown = f"{page:.0f} kB"
    return [*figures, Figure(name, shown, "", shown, f"≤ {PAGE_BYTES / 1e3:g} kB", page <= PAGE_BYTES / 1e3)]


if __name__ == "__main__":
    if "examine" in sys.argv:
        relax_gc()  # as the job does
        print(json.dumps(examine()))
    else:
        for figure in measure(int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS):
            print(figure.name, figure.value, figure.result, figure.target, "met" if figure.met else "NOT MET", sep="; ")
