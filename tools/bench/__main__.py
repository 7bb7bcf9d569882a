"""Run every benchmark and write docs/benchmarks.md: `make bench`."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from tools.bench.figures import Figure

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"

PARTS = {
    "stacks": "Environments",
    "demo": "The demo, with promotion and rollback",
    "workflows": "Jobs of workflows",
    "history": "The ledger",
    "contract": "Contract checks",
    "contract_peers": "Contract tests",
    "monitors": "Monitors",
    "drift_report": "Drift reports",
    "model_monitor": "Monitors of models",
    "simulations": "Error rates of monitors",
    "data_versions": "Versions of data",
    "lineage": "Lineage",
    "serving": "Serving",
    "mutation": "Mutation",
}
"""Module → heading on the page, in order."""

ON_THE_LAPTOP = ("stacks", "demo", "workflows")
"""Benchmarks that need the laptop; skipped if it is not installed."""


def machine() -> str:
    """Describe this machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
        memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    except OSError:
        memory = float("nan")
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {system}"


def row(figure: Figure) -> str:
    """Format a figure as a row of the table."""
    met = ("yes" if figure.met else "**no**") if figure.target else ""
    cells = (figure.name, figure.value, figure.against, figure.result, figure.target, met)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(parts: dict[str, list[Figure]]) -> str:
    """Return the text of the page."""
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}; every ratio is measured in one run on one machine: "
        f"{machine()}.",
        "",
    ]
    for name, figures in parts.items():
        lines += [
            f"## {PARTS[name]}",
            "",
            "| benchmark | figure | compared with | result | target | met |",
            "|" + " --- |" * 6,
        ]
        lines += [row(figure) for figure in figures]
        notes = (importlib.import_module(f"tools.bench.{name}").__doc__ or "").strip().partition("\n\n")[2]
        lines += ["", *([notes, ""] if notes else [])]
    return "\n".join(lines)


def main(chosen: list[str]) -> None:
    """Run the chosen benchmarks and print them; without a choice, run all and write the page."""
    names = chosen or [name for name in PARTS if name not in ON_THE_LAPTOP or find_spec("laptop")]
    measured = {}
    for name in names:
        print(f"measuring: {PARTS[name]}", flush=True)
        measured[name] = importlib.import_module(f"tools.bench.{name}").measure()
        for figure in measured[name]:
            print(f"  {row(figure)}", flush=True)
    if not chosen:
        PAGE.write_text(page(measured))
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
