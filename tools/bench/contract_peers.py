"""Contract tests compared with datacontract-cli, pandera on Polars, and Great Expectations on pandas.

Run `python -m tools.bench.contract_peers`. All check the same Parquet file by the same rules, and must find the same
rows: every column is required and has its type, eleven have a least value, ten a greatest, one a list of values, one is
unique. A row in a thousand breaks one of them. Whole processes are measured, from start to report, one after another.
Our report also has keys of the rows that break a rule. CPU time is of all threads.

The bounds hold for the largest file. A check that decodes every value cannot reach twenty times: decoding the columns
alone takes more CPU time than that leaves, and a unique key is read again. Only the statistics in the file would save
it, and these say what the writer of the file wants
([decision 0052](decisions/0052-read-every-row-whatever-parquet-statistics-say.md)). In small files, the start of Python
takes most of our time.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pipelines.declarations.contract import Contract
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from tools.bench.contract import generate
from tools.bench.figures import Figure
from tools.bench.measured_process import ResourceUsage, run_measured

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv" / "bench-contracts" / "bin"
DATASET = "diabetes-patients"
ROUNDS = {200_000: 3, 1_000_000: 3, 10_000_000: 2}
"""Rows → measurements of each, of which the medians are compared."""

WANTED = {"datacontract-cli": 20.0}
WANTED_OF_OTHERS = 5.0
MOST_MEMORY = 2.0
"""Peak memory with the most rows, divided by that with the fewest."""

QUIET = {"GX_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def rules(contract: Contract) -> list[dict[str, Any]]:
    """Describe the rules of a contract for the peers that do not read contracts."""
    return [
        {
            "name": name,
            "type": column.logical_type,
            "minimum": column.options.minimum,
            "maximum": column.options.maximum,
            "values": None if column.valid_values is None else list(column.valid_values),
            "unique": name in contract.primary_key,
        }
        for name, column in contract.columns.items()
    ]


def local_contract(path: Path) -> dict[str, Any]:
    """Return the contract as datacontract-cli needs it: with the file as its server."""
    contract: dict[str, Any] = yaml.safe_load((ROOT / "data-contracts" / f"{DATASET}.odcs.yaml").read_text())
    contract["servers"] = [{"server": "file", "type": "local", "path": str(path), "format": "parquet"}]
    (table,) = contract["schema"]
    table["name"] = table["physicalName"]
    return contract


def ours(path: Path, folder: Path) -> tuple[ResourceUsage, dict[str, int]]:
    """Check the file by `mlops contract test`."""
    report = folder / "ours.json"
    command = [sys.executable, "-m", "pipelines.cli", "contract", "test", DATASET, str(path)]
    used = run_measured([*command, "--format", "json", "--output", str(report)], folder=ROOT, success=1)
    (file,) = json.loads(report.read_text())["files"]
    return used, {each["column"]: each["failing"] for each in file["results"] if each["failing"]}


def datacontract(path: Path, folder: Path) -> tuple[ResourceUsage, dict[str, int]]:
    """Check the file by datacontract-cli."""
    contract, report = folder / "contract.yaml", folder / "datacontract.json"
    contract.write_text(yaml.safe_dump(local_contract(path), sort_keys=False))
    command = [str(PEERS / "datacontract"), "test", str(contract), "--output-format", "json", "--output", str(report)]
    used = run_measured(command, QUIET, folder, success=1)
    checks = json.loads(report.read_text())["checks"]
    return used, {each["field"]: each["diagnostics"]["value"] for each in checks if each["result"] == "failed"}


def _by_script(script: str) -> Callable[[Path, Path], tuple[ResourceUsage, dict[str, int]]]:
    def check(path: Path, folder: Path) -> tuple[ResourceUsage, dict[str, int]]:
        described = folder / "rules.json"
        described.write_text(json.dumps(rules(Project.find().contract(DATASET))))
        command = [str(PEERS / "python"), str(Path(__file__).parent / "peer" / script), str(path), str(described)]
        used = run_measured(command, QUIET, folder)
        found: dict[str, int] = json.loads(used.output.splitlines()[-1])
        return used, found

    return check


CHECKS = {
    "ours": ours,
    "datacontract-cli": datacontract,
    "pandera[polars]": _by_script("contract_pandera.py"),
    "Great Expectations": _by_script("contract_great_expectations.py"),
}


def measure() -> list[Figure]:
    """Measure all checks for each number of rows.

    Raises:
        AssertionError: they do not find the same rows.
        MlopsError: the peers are not installed.
    """
    if not PEERS.is_dir():
        raise MlopsError(f"{PEERS} is missing", fix="make bench, which installs requirements/bench-contracts.txt there")
    figures, peaks = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for rows, rounds in ROUNDS.items():
            path = folder / f"{rows}.parquet"
            generate(path, rows)
            used: dict[str, list[ResourceUsage]] = {name: [] for name in CHECKS}
            for _ in range(rounds):
                for name, check in CHECKS.items():
                    took, found = check(path, folder)
                    assert found == {"bmi": rows // 1_000}, (name, found)
                    used[name].append(took)
            path.unlink()
            peaks[rows] = max(each.peak for each in used["ours"])
            figures += compared(rows, used)
    growth = peaks[max(peaks)] / peaks[min(peaks)]
    shown = ", ".join(f"{peak / 1e6:.0f} MB" for peak in peaks.values())
    name = f"memory of our contract test, {', '.join(f'{rows:,}' for rows in peaks)} rows"
    figures.append(Figure(name, shown, "", f"{growth:.2f}", f"≤ {MOST_MEMORY:g}", growth <= MOST_MEMORY))
    return figures


def compared(rows: int, used: dict[str, list[ResourceUsage]]) -> list[Figure]:
    """Compare our check with each peer, by CPU time: it depends least on what else the machine does."""
    largest = rows == max(ROUNDS)
    best = min(statistics.median(each.cpu for each in used[name]) for name in used if name not in ("ours", *WANTED))
    figures = []
    for name in used:
        if name == "ours":
            continue
        ours, peer = (statistics.median(each.cpu for each in used[each_name]) for each_name in ("ours", name))
        wall = [statistics.median(each.seconds for each in used[each_name]) for each_name in ("ours", name)]
        wanted = WANTED.get(name, WANTED_OF_OTHERS if peer == best else None) if largest else None
        figures.append(
            Figure(
                f"contract test of {rows:,} rows × 12 columns",
                f"{ours:.1f} CPU s ({wall[0]:.1f} s)",
                f"{name}: {peer:.1f} CPU s ({wall[1]:.1f} s), {max(each.peak for each in used[name]) / 1e6:,.0f} MB",
                f"{peer / ours:.1f} ({wall[1] / wall[0]:.1f} by the clock)",
                "" if wanted is None else f"≥ {wanted:g}",
                wanted is None or peer / ours >= wanted,
            )
        )
    return figures


if __name__ == "__main__":
    for figure in measure():
        print(figure)
