"""Error rates of monitors, from seeded simulations of the product's own code.

Run `make simulate`, which writes `build/simulations.json`. Intervals are 95 % intervals, exact for rates; a bound must
hold for the whole interval. Naive rules see the same kind of data. Windows have 20 columns; a column that changes is
compared with 20,000 earlier rows (200,000 if a million are new), one that does not with 5,000. The daily volume has a
weekly season, a slowly wandering level, and 7 % of noise from day to day. A canary check looks every 50 requests, at
most 80 times; five golden predictions of each bundle choose the bins of its predictions. Rules on 200 labels know the
error rate of a holdout of 5,000 rows; the test for late labels only needs the labels. The error of an estimate is the
mean difference from the accuracy of the same window.
"""

from __future__ import annotations

import json
from typing import Any

from tools.bench.figures import Figure
from tools.simulate.__main__ import RESULTS, SIMULATIONS
from tools.simulate.__main__ import main as simulate


def measure() -> list[Figure]:
    """Return the rates of the last run of the simulations; run them if there is none."""
    if not RESULTS.is_file():
        simulate([])
    results = {str(found["name"]): found for found in json.loads(RESULTS.read_text())}
    compared = {name for simulation in SIMULATIONS.values() for name in simulation.naive}
    return [_figure(found, results) for name, found in results.items() if name not in compared]


def _figure(found: dict[str, Any], results: dict[str, dict[str, Any]]) -> Figure:
    low, high = found["interval"]
    bound, unit = found["bound"], found["unit"]
    target = f"≤ {100 * bound['at_most']:.3g} {unit}" if bound["at_most"] is not None else ""
    target = f"≥ {100 * bound['at_least']:.3g} {unit}" if bound["at_least"] is not None else target
    naive = [
        f"{name.removeprefix('naive rule: ')}: {100 * results[name]['rate']:.3g} {results[name]['unit']}"
        for name in SIMULATIONS[found["name"]].naive
        if name in results
    ]
    return Figure(
        found["name"],
        f"{100 * found['rate']:.3g} {unit} of {found['runs']:,} runs"
        if unit == "%"
        else f"{100 * found['rate']:.2f} pp",
        f"naive rule: {'; '.join(naive)}" if naive else "",
        f"{100 * low:.3g} to {100 * high:.3g} {unit}",
        target,
        found["met"],
    )


if __name__ == "__main__":
    for figure in measure():
        print(figure.name, figure.value, figure.result, figure.target, "met" if figure.met else "NOT MET", sep="; ")
