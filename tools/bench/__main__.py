"""Run benchmarks and put their figures into docs/benchmarks.md: `make bench`, or `make bench PART=serving`."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

from pipelines.declarations.atomic_files import write_atomically
from tools.bench.figures import Figure, measure_part

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
    "runs": "Training runs",
    "serving": "Serving",
    "inference_log": "The inference log",
    "shadow_traffic": "Shadow traffic",
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


def section(name: str, figures: list[Figure]) -> str:
    """Return the text of a part: a heading, the table of the figures, and the notes of its module."""
    notes = (importlib.import_module(f"tools.bench.{name}").__doc__ or "").strip().partition("\n\n")[2]
    lines = [
        f"## {PARTS[name]}",
        "",
        "| benchmark | figure | compared with | result | target | met |",
        "|" + " --- |" * 6,
        *(row(figure) for figure in figures),
        "",
        *([notes, ""] if notes else []),
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {machine()}.",
    ]
    return "\n".join(lines)


def updated_page(before: str, sections: dict[str, str]) -> str:
    """Return the text of the page with new sections in place of those that it has.

    Args:
        before: text of the page.
        sections: module → text.
    """
    head, *parts = ("\n" + before.rstrip()).split("\n## ")
    by_heading = {part.partition("\n")[0]: f"## {part.strip()}" for part in parts}
    by_heading |= {PARTS[name]: text for name, text in sections.items()}
    # Sections that no module writes, such as advice to readers, come last.
    ordered = [heading for heading in PARTS.values() if heading in by_heading]
    ordered += [heading for heading in by_heading if heading not in ordered]
    return "\n\n".join([head.strip(), *(by_heading[heading] for heading in ordered)]) + "\n"


def main(chosen: list[str]) -> None:
    """Run the chosen benchmarks, all by default, print the figures, and put them into the page."""
    names = chosen or [name for name in PARTS if name not in ON_THE_LAPTOP or find_spec("laptop")]
    for name in names:
        print(f"measuring: {PARTS[name]}", flush=True)
        # In a fresh process, or the memory of one part would count for the next.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            figures = fresh.submit(measure_part, name).result()
        for figure in figures:
            print(f"  {row(figure)}", flush=True)
        write_atomically(PAGE, updated_page(PAGE.read_text(), {name: section(name, figures)}))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
