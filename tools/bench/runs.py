"""Comparison of 500 training runs of 50 metrics each: experiments, and runs in a registry.

Run `python -m tools.bench.runs`. Whole processes of `mlops runs compare` are measured, from the start of Python to the
end; medians of a few. Records never change, so a command reads only those that it has not read before: "again" reads
none, and "first" all of them. The registry is in the emulated account, another process on the same cores. Finding the
environment is left out: AWS is asked by the Pulumi CLI, which takes seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from pipelines.declarations.bundle import DatasetVersion, Source
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.evaluation import Estimate
from pipelines.declarations.run_facts import RunFacts
from pipelines.registry import runs
from pipelines.training_runs.experiments import EXPERIMENTS
from pipelines.training_runs.recorded_runs import COPIES
from tests.aws import make_environment
from tools.bench.commands import ROOT, copy_project, median_figure
from tools.bench.figures import Figure
from tools.bench.measured_process import ResourceUsage, run_measured
from tools.bench.serving import account

MODEL = "diabetes-progression"
RUNS, METRICS = 500, 50
SECONDS = 2.0
ROUNDS = 5
WRITERS = 16

COMMAND = """
import os, sys
from pipelines.cli import run_queries
from pipelines.cli.main import main
from pipelines.declarations.environment import EnvironmentDescriptor

class Target:
    def descriptor(self, name):
        return EnvironmentDescriptor.model_validate_json(os.environ["MLOPS_ENVIRONMENT"])

run_queries.open_target = lambda name: Target()
sys.exit(main(sys.argv[1:]))
"""
"""The command line, with an environment that is found at once."""


def make_facts(number: int) -> RunFacts:
    """Make the facts of a run, the same for the same number."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    names = ["rmse", "mae", "r2", *(f"slice/part-{n}/rmse" for n in range(METRICS - 3))]
    values = {name: 50 + ((number * 7919 + place * 104729) % 1000) / 100 for place, name in enumerate(names)}
    digests = [digest_of_bytes(f"{what} {number // 50}".encode()) for what in ("model", "rows", "keys")]
    dataset = DatasetVersion(
        dataset="diabetes-patients", table="dev.diabetes_patients", snapshot=str(number // 50 + 1), content=digests[1],
        rows=442,
    )  # fmt: skip
    return RunFacts(
        model=MODEL,
        task="regression",
        started=f"{at:%Y-%m-%dT%H:%M:%SZ}",
        finished=f"{at + timedelta(minutes=9):%Y-%m-%dT%H:%M:%SZ}",
        commit=f"{number:040x}",
        image=digest_of_bytes(b"image"),
        source=Source(model=digests[0], pipelines=digest_of_bytes(b"code"), requirements=digest_of_bytes(b"pins")),
        contract=digest_of_bytes(b"contract"),
        dataset=dataset,
        parameters={
            "alpha": 10 ** (number % 7 - 3),
            "solver": ("svd", "lsqr", "saga")[number % 3],
            "depth": number % 9,
        },
        seed=7,
        training_rows=336,
        holdout_rows=106,
        holdout=digests[2],
        metrics={name: Estimate(value=value, low=value - 7.5, high=value + 7.5) for name, value in values.items()},
    )


def compare(folder: Path, environ: dict[str, str], *options: str) -> ResourceUsage:
    """Run a comparison as a process."""
    command = [sys.executable, "-c", COMMAND, "runs", "compare", MODEL, *options]
    return run_measured(command, {**environ, "PYTHONPATH": str(ROOT)}, folder)


def measure(rounds: int = ROUNDS) -> list[Figure]:
    """Measure comparisons as text and as a page.

    Raises:
        AssertionError: an answer is not complete.
    """
    facts = [make_facts(number) for number in range(RUNS)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_project(folder)
        experiments = folder / EXPERIMENTS / MODEL
        experiments.mkdir(parents=True)
        for number, one in enumerate(facts):
            (experiments / f"here-20260101t{number:06}-ab12.json").write_text(one.model_dump_json())
        page = folder / "page.html"
        local = [compare(folder, {}, "--here") for _ in range(rounds)]
        drawn = [compare(folder, {}, "--here", "--format", "html", "--output", str(page)) for _ in range(rounds)]
        assert page.read_text().count("<path ") == RUNS
        with _registry(facts, folder) as environ:
            first, again = [], []
            for _ in range(rounds):
                shutil.rmtree(folder / COPIES, ignore_errors=True)
                first.append(compare(folder, environ, "--env", "dev"))
                again.append(compare(folder, environ, "--env", "dev"))
            whole = json.loads(compare(folder, environ, "--env", "dev", "--format", "json").output)["runs"]
    assert len(whole) == RUNS and {len(run["facts"]["metrics"]) for run in whole} == {METRICS}
    for used in (local[0], first[0], again[0]):
        assert sum(line.count("2026-01-") for line in used.output.splitlines()) == RUNS, used.output
    what = f"`mlops runs compare` of {RUNS} runs x {METRICS} metrics"
    return [
        median_figure(f"{what}: experiments", local, SECONDS),
        median_figure("the same, as a page with plots", drawn, SECONDS),
        median_figure("the same, registered runs, again", again, SECONDS),
        median_figure("the same, registered runs, first", first, SECONDS),
    ]


@contextmanager
def _registry(facts: list[RunFacts], folder: Path) -> Iterator[dict[str, str]]:
    """Start the emulated account with the records of the runs; yield the environment variables of a command."""
    with account(folder) as environ:
        with mock.patch.dict(os.environ, environ):
            dev = make_environment("dev")
            with ThreadPoolExecutor(WRITERS) as pool:
                list(pool.map(lambda each: _record(dev, *each), enumerate(facts)))
        yield {**environ, "MLOPS_ENVIRONMENT": dev.model_dump_json()}


def _record(dev: EnvironmentDescriptor, number: int, facts: RunFacts) -> None:
    digest = digest_of_bytes(str(number).encode())
    runs.record_run(dev, MODEL, f"run-{number}", digest, facts.dataset.snapshot, facts)


if __name__ == "__main__":
    for figure in measure():
        print(figure)
