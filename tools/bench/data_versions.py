"""Benchmark of `mlops data diff`: two versions of a million rows and twenty columns, read from the emulated account.

Run `python -m tools.bench.data_versions`. In the first, the later version adds rows, so both share a data file. In the
second, every row is in another file and one in a hundred has changed.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from pipelines.data.catalog import PRIMARY_KEY, append, open_table
from pipelines.data.version_diff import VersionDiff, compare_versions
from pipelines.data.versions import list_versions
from tests.aws import emulated_account, make_environment
from tests.pipelines.data.contracts import column, contract
from tools.bench.figures import Figure

ROWS = 1_000_000
ADDED = 50_000
ROUNDS = 3
LONGEST = 5.0
CONTRACT = contract(
    *(column(f"number_{n}", "number") for n in range(15)), *(column(f"text_{n}", "string") for n in range(4))
)


def generate(start: int, rows: int, *, changed: bool = False) -> Any:
    """Make rows, with the same values for the same seed; if `changed`, one in a hundred has another number."""
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(start)
    columns: dict[str, Any] = {"id": np.arange(start, start + rows)}
    for name, declared in CONTRACT.columns.items():
        if declared.logical_type == "number":
            columns[name] = random.normal(size=rows)
        elif declared.logical_type == "string":
            columns[name] = random.choice(["alpha", "beta", "gamma"], rows)
    if changed:
        columns["number_3"] = np.where(columns["id"] % 100 == 0, 9.0, columns["number_3"])
    return pa.table(columns)


def measure(rows: int = ROWS, added: int = ADDED, rounds: int = ROUNDS) -> list[Figure]:
    """Measure both comparisons; the medians of a few rounds."""
    with emulated_account():
        grown, rewritten = make_environment("dev", CONTRACT), make_environment("dev", CONTRACT)
        first = generate(0, rows)
        for number, (descriptor, part) in enumerate(
            ((grown, first), (grown, generate(rows, added)), (rewritten, first))
        ):
            _append(descriptor, part, number)
        table = open_table(rewritten, CONTRACT.name)
        rewrite = generate(0, rows, changed=True).cast(table.schema().as_arrow())
        table.overwrite(rewrite, snapshot_properties={PRIMARY_KEY: "id"})
        found, seconds = _compare(grown, rounds)
        if found.rows.added != added or found.rows.changed:
            raise AssertionError(f"expected {added} added rows, found {found.rows}")
        changed, longer = _compare(rewritten, rounds)
        if changed.rows.columns != {"number_3": -(-rows // 100)}:
            raise AssertionError(f"expected {-(-rows // 100)} changed rows, found {changed.rows}")
    millions = f"{rows / 1e6:g} million rows x {len(CONTRACT.columns)} columns"
    return [
        Figure(f"{name}, {millions}", f"{taken:.2f} s", "", f"{taken:.2f} s", f"≤ {LONGEST:g} s", taken <= LONGEST)
        for name, taken in (("`mlops data diff`, rows added", seconds), ("`mlops data diff`, files rewritten", longer))
    ]


def _append(descriptor: Any, rows: Any, number: int) -> None:
    table = open_table(descriptor, CONTRACT.name)
    append(descriptor, table, rows.to_reader(), f"sha256:{number:064x}", {PRIMARY_KEY: "id"})


def _compare(descriptor: Any, rounds: int) -> tuple[VersionDiff, float]:
    versions = list_versions(open_table(descriptor, CONTRACT.name))
    newest, oldest = versions[0].snapshot, versions[-1].snapshot
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        found = compare_versions(descriptor, CONTRACT.name, oldest, newest)
        taken.append(time.perf_counter() - began)
    return found, statistics.median(taken)


if __name__ == "__main__":
    for figure in measure():
        print(figure)
