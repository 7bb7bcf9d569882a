from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from pipelines.data.catalog import open_table
from pipelines.data.ingest import ingest
from pipelines.data.landing import upload
from pipelines.data.version_diff import (
    VersionDiff,
    VersionRows,
    compare_versions,
    diff_lines,
    diff_rows,
    jensen_shannon,
)
from pipelines.data.versions import list_versions
from tests.aws import EmulatedAccount, make_environment
from tests.pipelines.data.contracts import column, contract


def diff(old: dict[str, Any], new: dict[str, Any], shared: dict[str, Any] | None = None, **options: Any) -> VersionDiff:
    parts = VersionRows(pa.table(old), pa.table(new), pa.table(shared) if shared is not None else None)
    key = options.pop("key", ("id",))
    return diff_rows(parts, key, options.pop("personal", ()), "visits", ("1", "2"))


def test_rows_are_matched_by_key_and_counted_once() -> None:
    found = diff(
        {"id": [1, 2, 3, 4], "age": [10, 20, None, 40], "name": ["a", "b", "c", None]},
        {"id": [2, 3, 4, 5], "age": [20, 31, 41, 50], "name": ["b", "c", None, "e"]},
        {"id": [9], "age": [90], "name": ["z"]},
    ).rows
    assert (found.before, found.after) == (5, 5)
    assert (found.added, found.removed, found.changed) == (1, 1, 2)
    assert found.columns == {"age": 2}
    assert found.samples == {"added": ["5"], "removed": ["1"], "changed": ["3", "4"]}


def test_without_a_key_whole_rows_are_compared_with_their_repetitions() -> None:
    found = diff({"age": [1, 1, 2]}, {"age": [1, 3]}, key=()).rows
    assert (found.added, found.removed, found.changed, found.samples) == (1, 2, 0, {})


def test_the_schema_names_added_removed_and_retyped_columns() -> None:
    found = diff(
        {"id": [1], "old": ["x"], "age": pa.array([1], pa.int32())},
        {"id": [1], "new": [1.0], "age": pa.array([1], pa.int64())},
    )
    assert [(each.column, each.before, each.after) for each in found.schema] == [
        ("old", "string", None),
        ("age", "int32", "int64"),
        ("new", None, "double"),
    ]
    assert (found.rows.changed, [each.column for each in found.columns]) == (0, ["age"])
    assert "  old: type was string, is absent" in diff_lines(found)


def test_values_of_personal_columns_do_not_appear() -> None:
    values = {"id": ["ann@x.org", "bob@x.org"], "name": ["Ann", "Bob"], "age": [30, 40]}
    other = {"id": ["eve@x.org", "bob@x.org"], "name": ["Eve", "Rob"], "age": [31, 40]}
    found = diff(values, other, personal={"id", "name", "age"})
    shown = "\n".join(diff_lines(found)) + str(found.to_json())
    assert found.rows.samples == {} and (found.rows.added, found.rows.changed) == (1, 1)
    assert not any(text in shown for text in ("ann", "eve", "Ann", "Eve", "Rob", "30.5", "35"))
    assert "eve@x.org" in "\n".join(diff_lines(diff(values, other)))


def test_a_terminal_does_not_act_on_a_key() -> None:
    assert all(line.isprintable() for line in diff_lines(diff({"id": ["a"]}, {"id": ["\x1b[2J"]})))


def test_the_most_changed_column_comes_first_and_equal_ones_have_no_distance() -> None:
    random = np.random.default_rng(1)
    number, same = random.normal(size=2000), random.choice(["a", "b", "c"], 2000)
    found = diff(
        {"id": range(2000), "shifted": number, "level": same, "part": [True, False] * 1000},
        {"id": range(2000), "shifted": number + 3, "level": same, "part": [True, None] * 1000},
    ).columns
    distance = {each.column: each.distance for each in found}
    assert [each.column for each in found][:2] == ["shifted", "part"]
    assert distance["shifted"] > 0.6 and distance["level"] == 0.0
    assert "id" not in distance, "the values of a key only identify rows"
    part = next(each for each in found if each.column == "part")
    assert (part.before.nulls, part.after.nulls) == (0.0, 0.5)
    assert part.before.figures == {"false": 0.5, "true": 0.5}
    shifted = found[0]
    assert shifted.after.figures["mean"] - shifted.before.figures["mean"] == pytest.approx(3)
    assert any(line.startswith("  shifted") and "mean" in line for line in diff_lines(_wrapped(found)))


def _wrapped(columns: Any) -> VersionDiff:
    return VersionDiff("visits", "1", "2", (), diff({"id": [1]}, {"id": [1]}).rows, tuple(columns))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([], [1.0]),
        ([None, None], [None]),
        ([float("nan"), 1.0], [1.0]),
        ([float("inf")], [float("-inf")]),
        ([5.0] * 9, [5.0] * 9),
        ([0.0] * 9 + [1.0], [0.0]),
    ],
)
def test_unusual_columns_have_a_defined_distance(old: list[Any], new: list[Any]) -> None:
    numbers = {"id": pa.array(range(len(old))), "x": pa.array(old, pa.float64())}
    others = {"id": pa.array(range(len(new))), "x": pa.array(new, pa.float64())}
    for each in diff(numbers, others).columns:
        assert 0 <= each.distance <= 1


def test_the_distance_is_that_of_scipy() -> None:
    random = np.random.default_rng(2)
    for size in (2, 5, 50):
        one, other = (random.dirichlet(np.ones(size)).tolist() for _ in range(2))
        assert jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, base=2), abs=1e-9)
    assert jensen_shannon([1, 0], [0, 1]) == 1.0 and jensen_shannon([0.3, 0.7], [0.3, 0.7]) == 0.0


ROWS = st.dictionaries(
    st.tuples(st.integers(-3, 3), st.sampled_from(["a", "b"])),
    st.tuples(
        st.none() | st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf")]),
        st.none() | st.sampled_from(["", "x", "y"]),
        st.none() | st.dates(date(2026, 1, 1), date(2026, 1, 3)),
    ),
    max_size=12,
)
"""Key → values of the other columns."""

NAMES = ("number", "text", "day")


def _table(rows: dict[Any, Any], keys: list[Any]) -> dict[str, Any]:
    values = list(zip(*(rows[key] for key in keys), strict=True)) or [()] * 3
    return {
        "id": pa.array([key[0] for key in keys], pa.int64()),
        "part": pa.array([key[1] for key in keys], pa.string()),
        "number": pa.array(values[0], pa.float64()),
        "text": pa.array(values[1], pa.string()),
        "day": pa.array(values[2], pa.date32()),
    }


def _same(one: Any, other: Any) -> bool:
    return one == other or (one is not None and other is not None and one != one and other != other)


@given(old=ROWS, edits=ROWS, data=st.data(), is_rewritten=st.booleans())
@settings(deadline=None, max_examples=20)
def test_a_comparison_does_not_depend_on_the_order_of_rows(
    old: dict[Any, Any], edits: dict[Any, Any], data: st.DataObject, is_rewritten: bool
) -> None:
    new = {**old, **({key: edits[key] for key in edits if key in old} if is_rewritten else edits)}
    if not is_rewritten:
        new = {key: new[key] for key in new if data.draw(st.booleans())}
    shuffled = data.draw(st.permutations(list(new)))
    found = diff(_table(old, list(old)), _table(new, list(new)), key=("id", "part"))
    assert found == diff(_table(old, list(old)), _table(new, shuffled), key=("id", "part"))
    both = [key for key in sorted(old) if key in new]
    changes = {
        name: sum(not _same(old[key][at], new[key][at]) for key in both) for at, name in enumerate(NAMES)
    }  # fmt: skip
    changed = [key for key in both if not all(map(_same, old[key], new[key]))]
    assert found.rows.columns == {name: number for name, number in changes.items() if number}
    assert found.rows.samples.get("changed", []) == [f"{id_}, {part}" for id_, part in changed[:5]]
    counts = (found.rows.added, found.rows.removed, found.rows.changed)
    assert counts == (len(new) - len(both), len(old) - len(both), len(changed))


@pytest.mark.slow
def test_two_snapshots_are_compared_and_files_of_both_are_read_once(account: EmulatedAccount, tmp_path: Path) -> None:
    declared = contract(column("age", "integer"))
    dev = make_environment("dev", declared)
    for name, rows in (("a.csv", "1,10\n2,20\n"), ("b.csv", "3,\n4,40\n")):
        (tmp_path / name).write_text(f"id,age\n{rows}")
        upload(dev, "visits", tmp_path / name)
        ingest(dev, declared, lambda _: None)
    new, old = (version.snapshot for version in list_versions(open_table(dev, "visits")))
    found = compare_versions(dev, "visits", old, new)
    assert (found.rows.before, found.rows.after, found.rows.added) == (2, 4, 2)
    assert found.rows.samples == {"added": ["3", "4"]}
    age = next(each for each in found.columns if each.column == "age")
    assert (age.before.nulls, age.after.nulls) == (0.0, 0.25)
    back = compare_versions(dev, "visits", new, old)
    assert (back.rows.added, back.rows.removed) == (0, 2)
