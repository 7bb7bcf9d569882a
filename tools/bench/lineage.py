"""Lineage queries over 10,000 events, offline: versions of tables, bundles and releases.

Run `python -m tools.bench.lineage`. Whole processes of `mlops lineage` with `--offline` are measured; medians of a few.
Each of 8,000 versions adds a landing file, every eighth trains a bundle, and every bundle goes live.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipelines.lineage.facts import BundleFact, LineageFacts, ReleaseFact, VersionFact, save_facts
from tools.bench.commands import ROOT, copy_project, median_figure
from tools.bench.figures import Figure
from tools.bench.measured_process import run_measured

VERSIONS, VERSIONS_PER_BUNDLE = 8_000, 8
MODEL, DATASET = "diabetes-progression", "diabetes-patients"
SECONDS = 1.0
ROUNDS = 5


def facts() -> LineageFacts:
    """Make up the facts."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    versions = tuple(
        VersionFact(
            environment="dev", dataset=DATASET, snapshot=str(number), parent=str(number - 1) if number > 1 else None,
            at=begin + timedelta(hours=number), rows=100 * number, file=f"{number}.parquet",
            batch=f"sha256:{number:064x}", contract=f"1.{number // 1_000}.0",
        )
        for number in range(1, VERSIONS + 1)
    )  # fmt: skip
    trained = range(VERSIONS_PER_BUNDLE, VERSIONS + 1, VERSIONS_PER_BUNDLE)
    bundles = tuple(
        BundleFact(
            environment="dev", model=MODEL, digest=f"sha256:{number:064x}", dataset=DATASET, snapshot=str(number),
            rows=100 * number, features=("age", "bmi", "bp"), commit=f"{number:040x}", run=f"run-{number}",
            trained=begin + timedelta(hours=number, minutes=9),
        )
        for number in trained
    )  # fmt: skip
    releases = tuple(
        ReleaseFact(
            environment="prod", model=MODEL, number=place + 1, bundle=f"sha256:{number:064x}",
            ended=f"sha256:{number - VERSIONS_PER_BUNDLE:064x}" if place else None,
            at=begin + timedelta(hours=number, minutes=30), action="promotion", is_live=number == trained[-1],
        )
        for place, number in enumerate(trained)
    )  # fmt: skip
    return LineageFacts(gathered=begin, versions=versions, bundles=bundles, releases=releases)


def measure(rounds: int = ROUNDS) -> list[Figure]:
    """Measure a query in each direction.

    Raises:
        AssertionError: an answer is not complete.
    """
    events = facts()
    total = len(events.versions) + len(events.bundles) + len(events.releases)
    questions = {
        "from the live bundle back to its files": ["bundle", MODEL],
        "from the first file to every release": ["file", DATASET, "1.parquet"],
    }
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_project(folder)
        save_facts(folder, events)
        for name, question in questions.items():
            command = [sys.executable, "-m", "pipelines.cli", "lineage", *question, "--offline", "--format", "json"]
            used = [run_measured(command, {"PYTHONPATH": str(ROOT)}, folder) for _ in range(rounds)]
            kinds = [str(node["kind"]) for node in json.loads(used[0].output)["nodes"]]
            if question[0] == "bundle":
                assert kinds.count("file") == VERSIONS, len(kinds)
            else:
                assert kinds.count("bundle") == VERSIONS // VERSIONS_PER_BUNDLE, len(kinds)
            figures.append(median_figure(f"lineage {name}, {total:,} events", used, SECONDS))
    return figures


if __name__ == "__main__":
    for figure in measure():
        print(figure)
