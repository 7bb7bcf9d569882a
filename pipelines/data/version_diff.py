"""Compare two versions of a dataset: schema, rows by key, and the distribution of each column."""

# ruff: noqa: S608 - names come from the table's schema and are escaped by `quote`
from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.data.catalog import TablePlace, open_table, primary_key_of, snapshot_of
from pipelines.data.query_engine import NO_DOWNLOADS
from pipelines.data.sql_quoting import quote
from pipelines.declarations.plurals import counted
from pipelines.declarations.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import FileScanTask, Table
    from pyiceberg.table.snapshots import Snapshot

SAMPLED_KEYS = 5
"""Keys of added, removed and changed rows that are shown."""

BINS = 10
"""Bins of a numeric column: the deciles of the older version."""

MOST_LEVELS = 50
"""Levels of a column of text that are compared one by one; the others count as one."""


@dataclass(frozen=True)
class SchemaChange:
    """A column that differs between two versions.

    Attributes:
        column: its name.
        before, after: its type; None if the version does not have it.
    """

    column: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class RowChanges:
    """Rows that differ between two versions, by primary key.

    Attributes:
        key: the columns of the key; empty if the versions have none, and then only `added` and `removed` count.
        before, after: number of rows in each version.
        added, removed, changed: number of keys.
        columns: column → number of rows in which its value changed.
        samples: `added`, `removed`, `changed` → some of the keys, as text; none if a key column is personal.
    """

    key: tuple[str, ...]
    before: int
    after: int
    added: int
    removed: int
    changed: int
    columns: dict[str, int]
    samples: dict[str, list[str]]


@dataclass(frozen=True)
class ColumnShape:
    """Distribution of a column in one version.

    Attributes:
        nulls: share of rows without a value, from 0 to 1.
        figures: name → figure: mean, standard deviation and quartiles of numbers; the share of each of the most
            frequent levels of text. Empty for a personal column.
    """

    nulls: float
    figures: dict[str, float]


@dataclass(frozen=True)
class ColumnChange:
    """Distribution of a column in two versions.

    Attributes:
        column: its name.
        before, after: the distributions.
        distance: Jensen-Shannon distance between them, base 2, with missing values as a level: from 0 (equal) to 1.
            An effect size, not a test.
    """

    column: str
    before: ColumnShape
    after: ColumnShape
    distance: float


@dataclass(frozen=True)
class VersionDiff:
    """Differences between two versions of a dataset.

    Attributes:
        dataset: name of the contract.
        before, after: ids of the snapshots.
        schema: columns that differ.
        rows: rows that differ.
        columns: distributions of the columns that both versions have, the most changed first; without the columns of
            the key, whose values only identify rows.
    """

    dataset: str
    before: str
    after: str
    schema: tuple[SchemaChange, ...]
    rows: RowChanges
    columns: tuple[ColumnChange, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """Return the differences as JSON values."""
        return asdict(self)


def compare_versions(
    place: TablePlace, dataset: str, before: str, after: str, *, personal: Collection[str] = ()
) -> VersionDiff:
    """Compare two versions of a dataset.

    Data files that both versions have are not compared row by row: files of a table never change.

    Args:
        place: where the table is.
        dataset: name of the contract.
        before, after: ids of the snapshots.
        personal: columns whose values must not appear.

    Raises:
        MlopsError: the table or a snapshot does not exist.
    """
    table = open_table(place, dataset)
    old, new = (snapshot_of(table, place.name, dataset, name) for name in (before, after))
    parts = _read(table, old, new)
    key = tuple(
        name
        for name in primary_key_of(table, new) or primary_key_of(table, old)
        if name in parts.old.column_names and name in parts.new.column_names
    )
    return diff_rows(parts, key, personal, dataset, (before, after))


@dataclass(frozen=True)
class VersionRows:
    """Rows of two versions.

    Attributes:
        old, new: rows that only one version has in its data files.
        shared: rows of the data files of both.
    """

    old: pa.Table
    new: pa.Table
    shared: pa.Table | None


def _read(table: Table, old: Snapshot, new: Snapshot) -> VersionRows:
    from pyiceberg.io.pyarrow import ArrowScan

    def tasks_of(snapshot: Snapshot) -> dict[str, FileScanTask]:
        return {task.file.file_path: task for task in table.scan(snapshot_id=snapshot.snapshot_id).plan_files()}

    def rows(snapshot: Snapshot, tasks: Collection[FileScanTask]) -> pa.Table:
        scan = table.scan(snapshot_id=snapshot.snapshot_id)
        return ArrowScan(table.metadata, table.io, scan.projection(), scan.row_filter).to_table(list(tasks))

    before, after = tasks_of(old), tasks_of(new)
    shared = {
        path
        for path in before.keys() & after.keys()
        if old.schema_id == new.schema_id and not before[path].delete_files and not after[path].delete_files
    }
    return VersionRows(
        old=rows(old, [task for path, task in before.items() if path not in shared]),
        new=rows(new, [task for path, task in after.items() if path not in shared]),
        shared=rows(new, [task for path, task in after.items() if path in shared]) if shared else None,
    )


def diff_rows(
    parts: VersionRows, key: Sequence[str], personal: Collection[str], dataset: str, versions: tuple[str, str]
) -> VersionDiff:
    """Compare the rows of two versions in memory.

    Args:
        parts: the rows.
        key: primary key; empty for rows without one.
        personal: columns whose values must not appear.
        dataset: name of the contract.
        versions: ids of the snapshots.
    """
    import duckdb

    types = [{each.name: str(each.type) for each in rows.schema} for rows in (parts.old, parts.new)]
    names = [*types[0], *(name for name in types[1] if name not in types[0])]
    schema = tuple(
        SchemaChange(name, types[0].get(name), types[1].get(name))
        for name in names
        if types[0].get(name) != types[1].get(name)
    )
    both = [name for name in names if name in types[0] and name in types[1]]
    with duckdb.connect(config=NO_DOWNLOADS) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("before", parts.old)
        connection.register("after", parts.new)
        rows = _row_changes(connection, parts, key, both, hide=any(name in personal for name in key))
    compared = [name for name in both if name not in key]
    changes = (_column_change(parts, name, hide=name in personal) for name in compared)
    columns = [change for change in changes if change is not None]
    columns.sort(key=lambda change: (-change.distance, change.column))
    return VersionDiff(dataset, *versions, schema, rows, tuple(columns))


def _equal(parts: VersionRows, name: str) -> bool:
    """Return whether a column has the same values in the same order in both versions."""
    return bool(parts.old.column(name).equals(parts.new.column(name)))


def _row_changes(
    connection: Any, parts: VersionRows, key: Sequence[str], both: list[str], *, hide: bool
) -> RowChanges:  # fmt: skip
    def run(query: str) -> list[Any]:
        found: list[Any] = connection.execute(query).fetchall()
        return found

    before, after = parts.old.num_rows, parts.new.num_rows
    shared = parts.shared.num_rows if parts.shared is not None else 0
    if not key:
        columns = ", ".join(map(quote, both))
        removed, added = (
            int(run(f"SELECT count(*) FROM (SELECT {columns} FROM {a} EXCEPT ALL SELECT {columns} FROM {b})")[0][0])
            for a, b in (("before", "after"), ("after", "before"))
        )
        return RowChanges((), before + shared, after + shared, added, removed, 0, {}, {})
    is_aligned = all(_equal(parts, name) and not parts.old.column(name).null_count for name in key)
    others = [name for name in both if name not in key and not (is_aligned and _equal(parts, name))]
    same = " AND ".join(f"a.{quote(name)} = b.{quote(name)}" for name in key)
    # Without a key to look up, rows are compared in a third of the time.
    joined = "before a POSITIONAL JOIN after b" if is_aligned else f"before a JOIN after b ON {same}"
    differs = [f"a.{quote(name)} IS DISTINCT FROM b.{quote(name)}" for name in others]
    any_differs = " OR ".join(differs) or "false"
    text = " || ', ' || ".join(f"CAST(a.{quote(name)} AS VARCHAR)" for name in key)
    order = ", ".join(f"a.{quote(name)}" for name in key)
    counts = ", ".join(f"count(*) FILTER (WHERE {each})" for each in (any_differs, *differs))
    first = f"arg_min({text}, row({order}), {SAMPLED_KEYS}) FILTER (WHERE {any_differs})"
    matched, first_changed, changed, *by_column = run(f"SELECT count(*), {first}, {counts} FROM {joined}")[0]
    number = {"added": after - matched, "removed": before - matched, "changed": changed}
    samples: dict[str, list[str]] = {}
    queries = {
        "added": f"SELECT {text} FROM after a ANTI JOIN before b ON {same} ORDER BY {order} LIMIT {SAMPLED_KEYS}",
        "removed": f"SELECT {text} FROM before a ANTI JOIN after b ON {same} ORDER BY {order} LIMIT {SAMPLED_KEYS}",
    }
    for name, query in queries.items():
        if number[name] and not hide:
            samples[name] = [str(row[0]) for row in run(query)]
    if changed and not hide:
        samples["changed"] = [str(key) for key in first_changed]
    found = {name: int(count) for name, count in zip(others, by_column, strict=True) if count}
    return RowChanges(
        tuple(key), before + shared, after + shared, after - matched, before - matched, int(changed), found, samples
    )


def _column_change(parts: VersionRows, name: str, *, hide: bool) -> ColumnChange | None:
    """Describe a column in both versions; None if one has no rows or the types cannot be compared."""
    import pyarrow as pa

    shared = [parts.shared.column(name)] if parts.shared is not None and name in parts.shared.column_names else []
    columns = []
    for rows in (parts.old, parts.new):
        column = rows.column(name)
        chunks = [chunk for part in (column, *shared) for chunk in part.cast(column.type).chunks]
        columns.append(pa.chunked_array(chunks, column.type))
    old, new = columns
    if not len(old) or not len(new):
        return None
    nulls = [column.null_count / len(column) for column in (old, new)]
    numeric = [pa.types.is_integer(c.type) or pa.types.is_floating(c.type) for c in (old, new)]
    temporal = [pa.types.is_temporal(c.type) for c in (old, new)]
    distinct = [old] if old.equals(new) else [old, new]  # a column that was rewritten in the same order counts once
    if all(numeric) or all(temporal):
        shares, figures = _numbers(distinct, with_figures=all(numeric))
    elif not any(numeric) and not any(temporal):
        shares, figures = _levels(distinct)
    else:
        return None
    with_nulls = [
        [*(share * (1 - null) for share in each), null]
        for each, null in zip((shares[0], shares[-1]), nulls, strict=True)
    ]
    was, now = (
        ColumnShape(null, {} if hide else each) for null, each in zip(nulls, (figures[0], figures[-1]), strict=True)
    )
    return ColumnChange(name, was, now, jensen_shannon(*with_nulls))


Shares = list[list[float]]
Figures = list[dict[str, float]]


def _numbers(columns: Sequence[pa.ChunkedArray], *, with_figures: bool) -> tuple[Shares, Figures]:
    """Describe numbers of one or two versions over the same bins."""
    import numpy as np

    arrays = [_sorted(column) for column in columns]
    first = next((numbers for numbers in arrays if len(numbers)), ())
    cuts: Any = np.unique(_quantiles(first, [step / BINS for step in range(1, BINS)])) if len(first) else []
    return [_binned(numbers, cuts) for numbers in arrays], [
        _figures_of(numbers) if with_figures else {} for numbers in arrays
    ]


def _sorted(column: pa.ChunkedArray) -> Any:
    """Return the finite numbers of a column in ascending order: quantiles and bins are look-ups then."""
    import numpy as np
    import pyarrow as pa

    kept = column.drop_null() if column.null_count else column
    if pa.types.is_date32(column.type):
        kept = kept.cast(pa.int32())
    elif pa.types.is_temporal(column.type):
        kept = kept.cast(pa.int64())
    numbers = np.sort(kept.to_numpy().astype(np.float64, copy=False))
    # Infinite numbers and NaN are at the ends.
    return numbers[np.searchsorted(numbers, -np.inf, "right") : np.searchsorted(numbers, np.inf, "left")]


def _quantiles(numbers: Any, levels: Sequence[float]) -> Any:
    """Return quantiles of sorted numbers, by linear interpolation."""
    import numpy as np

    places = np.asarray(levels) * (len(numbers) - 1)
    below = places.astype(int)
    above = np.minimum(below + 1, len(numbers) - 1)
    return numbers[below] + (numbers[above] - numbers[below]) * (places - below)


def _binned(numbers: Any, cuts: Any) -> list[float]:
    """Return the share of sorted numbers below, at and between cuts; values at a cut have a bin, for point masses."""
    import numpy as np

    if not len(numbers):
        return [0.0] * (2 * len(cuts) + 1)
    left, right = (np.searchsorted(numbers, cuts, side=side) for side in ("left", "right"))
    places = np.concatenate([[0], np.column_stack([left, right]).ravel(), [len(numbers)]])
    return [float(count) / len(numbers) for count in np.diff(places)]


def _figures_of(numbers: Any) -> dict[str, float]:
    if not len(numbers):
        return {}
    quarters = _quantiles(numbers, (0.25, 0.5, 0.75))
    named = dict(zip(("25%", "50%", "75%"), map(float, quarters), strict=True))
    return {"mean": float(numbers.mean()), "sd": float(numbers.std()), **named}


def _levels(columns: Sequence[pa.ChunkedArray]) -> tuple[Shares, Figures]:
    """Describe texts of one or two versions over the same levels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    level_counts: list[dict[str, int]] = []
    for column in columns:
        found = pc.value_counts((column.drop_null() if column.null_count else column).cast(pa.large_string()))
        values, numbers = found.field("values").to_pylist(), found.field("counts").to_pylist()
        level_counts.append(dict(zip(values, numbers, strict=True)))
    totals = [sum(counts.values()) or 1 for counts in level_counts]
    weight: dict[str, float] = defaultdict(float)
    for counts, total in zip(level_counts, totals, strict=True):
        for level, count in counts.items():
            weight[level] += count / total
    levels = sorted(weight, key=lambda level: (-weight[level], level))[:MOST_LEVELS]
    shares: Shares = []
    figures: Figures = []
    for counts, total in zip(level_counts, totals, strict=True):
        each = [counts.get(level, 0) / total for level in levels]
        shares.append([*each, max(0.0, (1.0 if counts else 0.0) - math.fsum(each))])
        few = len(weight) <= MOST_LEVELS  # of many levels, each may be about one row
        figures.append({level: share for level, share in zip(levels[:5], each, strict=False) if few})
    return shares, figures


def jensen_shannon(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the Jensen-Shannon distance between two distributions, base 2: from 0 (equal) to 1 (nothing in common)."""
    total = 0.0
    for one, other in zip(before, after, strict=True):
        middle = (one + other) / 2
        total += sum(share * math.log2(share / middle) for share in (one, other) if share > 0)
    return math.sqrt(min(1.0, max(0.0, total / 2)))


def diff_lines(diff: VersionDiff) -> list[str]:
    """Return the lines that show differences to people."""
    rows = diff.rows
    lines = [f"{diff.dataset}: {diff.before} → {diff.after}"]
    for change in diff.schema:
        lines.append(f"  {change.column}: type was {change.before or 'absent'}, is {change.after or 'absent'}")
    lines.append(f"rows: {rows.before} → {rows.after}")
    named = f" (by {', '.join(rows.key)})" if rows.key else " (whole rows, because the table has no key)"
    lines.append(f"  {rows.added} added, {rows.removed} removed, {rows.changed} changed{named}")
    lines += [f"  {name}: {', '.join(keys)}" for name, keys in rows.samples.items()]
    lines += [f"  {column} changed in {counted(count, 'row')}" for column, count in sorted(rows.columns.items())]
    if diff.columns:
        lines.append("columns, the most changed first (distance from 0 to 1):")
    for each in diff.columns:
        lines.append(f"  {each.column:<24} {each.distance:.3f}{_figures(each)}")
    return [printable(line) for line in lines]


def _figures(change: ColumnChange) -> str:
    texts = []
    if change.before.nulls or change.after.nulls:
        texts.append(f"nulls {change.before.nulls:.1%} → {change.after.nulls:.1%}")
    numeric = "mean" in change.before.figures or "mean" in change.after.figures
    for name, old in change.before.figures.items():
        new = change.after.figures.get(name)
        if numeric and name in ("mean", "sd", "50%"):
            texts.append(f"{'median' if name == '50%' else name} {old:.4g} → {'none' if new is None else f'{new:.4g}'}")
        elif not numeric and len(texts) < 4:
            texts.append(f"{name!r} {old:.1%} → {new or 0:.1%}")
    return "  " + ", ".join(texts) if texts else ""
