"""Error rates of monitors, from seeded simulations of the product's own code.

Run `make simulate`, which writes `build/simulations.json`. Intervals are exact 95 % intervals; a bound must hold for
the whole interval. Windows have 20 columns; a column that changes is compared with 20,000 earlier rows, one that does
not with 5,000. The daily volume has a weekly season, a slowly wandering level, and 7 % of noise from day to day. A
canary check looks every 50 requests, at most 80 times. The naive rules are for comparison, without a bound.
"""

from __future__ import annotations

import json

from tools.bench.figures import Figure
from tools.simulate.__main__ import RESULTS
from tools.simulate.__main__ import main as simulate


def measure() -> list[Figure]:
    """Return the rates of the last run of the simulations; run them if there is none."""
    if not RESULTS.is_file():
        simulate([])
    figures = []
    for found in json.loads(RESULTS.read_text()):
        low, high = found["interval"]
        bound = found["bound"]
        target = f"≤ {100 * bound['at_most']:.3g} %" if bound["at_most"] is not None else ""
        target = f"≥ {100 * bound['at_least']:.3g} %" if bound["at_least"] is not None else target
        interval = f"{100 * low:.3g} to {100 * high:.3g} %"
        rate = f"{100 * found['rate']:.3g} %"
        figures.append(Figure(found["name"], rate, f"{found['runs']:,} runs", interval, target, found["met"]))
    return figures


if __name__ == "__main__":
    for figure in measure():
        print(figure.name, figure.value, figure.result, figure.target, "met" if figure.met else "NOT MET", sep="; ")
