"""Write a drift report with Evidently: `drift_evidently.py REFERENCE CURRENT PAGE`, two Parquet files.

It prints the columns that drifted. It runs in the virtual environment `.venv/bench-drift`, and imports nothing from
this repository.
"""

from __future__ import annotations

import json
import sys

import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

SIGNIFICANT = 0.001


def main(reference: str, current: str, page: str) -> None:
    """Compare the files by the Kolmogorov-Smirnov test, and write the page with its plots."""
    before, now = pd.read_parquet(reference), pd.read_parquet(current)
    found = Report([DataDriftPreset(num_method="ks", num_threshold=SIGNIFICANT)]).run(now, before)
    found.save_html(page)
    values = {
        metric["config"]["column"]: float(metric["value"])
        for metric in found.dict()["metrics"]
        if "column" in metric.get("config", {})
    }
    assert set(values) == set(now.columns), values
    print(json.dumps(sorted(name for name, p_value in values.items() if p_value < SIGNIFICANT)))


if __name__ == "__main__":
    main(*sys.argv[1:])
