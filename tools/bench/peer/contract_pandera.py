"""Check a Parquet file with pandera on Polars: `contract_pandera.py FILE RULES`; prints the failing rows by column.

It runs in the virtual environment `.venv/bench-contracts`, and imports nothing from this repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
from pandera.errors import SchemaErrors

TYPES = {"integer": (pl.Int64, pl.Int32), "number": (pl.Float64,)}


def main(file: str, rules: str) -> None:
    """Check the file and print the number of failing rows of each column as JSON."""
    frame = pl.read_parquet(file)
    columns: dict[str, Any] = {}
    for rule in json.loads(Path(rules).read_text()):
        checks = []
        if rule["minimum"] is not None:
            checks.append(pa.Check.ge(rule["minimum"]))
        if rule["maximum"] is not None:
            checks.append(pa.Check.le(rule["maximum"]))
        if rule["values"] is not None:
            checks.append(pa.Check.isin(rule["values"]))
        kind = frame.schema[rule["name"]]
        assert kind in TYPES[rule["type"]], (rule, kind)
        columns[rule["name"]] = pa.Column(kind, checks, nullable=False, unique=rule["unique"])
    found: dict[str, int] = {}
    try:
        pa.DataFrameSchema(columns, strict=True).validate(frame, lazy=True)
    except SchemaErrors as error:
        for name, rows in error.failure_cases.group_by("column").len().iter_rows():
            found[name] = rows
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
