from __future__ import annotations

import math
from datetime import date, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.row_digest import digest_of_rows, in_key_order

ROWS = pa.table(
    {
        "id": pa.array([3, 1, 2], pa.int64()),
        "name": pa.array(["c", None, "ä"], pa.string()),
        "weight": pa.array([0.5, -0.0, None], pa.float64()),
        "there": pa.array([True, None, False]),
        "day": pa.array([date(2026, 1, 1), None, date(1960, 1, 1)]),
        "at": pa.array([datetime(2026, 1, 1), None, datetime(1960, 1, 1)], pa.timestamp("us")),
    }
)


def test_the_digest_of_the_same_rows_is_the_same_on_every_machine() -> None:
    assert digest_of_rows(ROWS, ["id"]) == "sha256:70c47bed9e265575fc88b2afc80d45e3b213da0fda4b9b9eaafeaf239561d586"


@settings(max_examples=30)
@given(order=st.permutations([0, 1, 2]), cut=st.integers(0, 3), names=st.permutations(ROWS.column_names))
def test_the_digest_does_not_depend_on_the_order_of_rows_and_columns_or_on_chunks(
    order: list[int], cut: int, names: list[str]
) -> None:
    rows = ROWS.take(order).select(names)
    rows = pa.concat_tables([rows.slice(0, cut), rows.slice(cut)])
    assert digest_of_rows(rows, ["id"]) == digest_of_rows(ROWS, ["id"])


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_the_digest_does_not_depend_on_the_arrow_type_of_text(kind: pa.DataType) -> None:
    rows = ROWS.set_column(1, "name", ROWS["name"].cast(kind))
    assert digest_of_rows(rows, ["id"]) == digest_of_rows(ROWS, ["id"])


def test_the_digest_treats_all_zeros_alike_and_all_nans_alike() -> None:
    ours = pa.table({"x": pa.array([0.0, math.nan])})
    others = pa.table({"x": pa.array([-0.0, -math.nan])})
    assert digest_of_rows(ours, []) == digest_of_rows(others, [])


@pytest.mark.parametrize(
    "others",
    [
        {"id": [1, 2], "x": ["a", ""]},
        {"id": [1, 2], "x": ["", "a"]},
        {"id": [1, 2], "x": ["aa", None]},
        {"id": [1, 3], "x": ["a", None]},
        {"id": [1, 2], "y": ["a", None]},
        {"id": [1.0, 2.0], "x": ["a", None]},
        {"id": [1], "x": ["a"]},
    ],
)
def test_different_rows_have_different_digests(others: dict[str, list[object]]) -> None:
    ours = pa.table({"id": [1, 2], "x": ["a", None]})
    assert digest_of_rows(pa.table(others), ["id"]) != digest_of_rows(ours, ["id"])


def test_rows_are_sorted_by_their_key() -> None:
    assert in_key_order(ROWS, ["id"])["id"].to_pylist() == [1, 2, 3]
    assert in_key_order(ROWS, ["name", "id"])["name"].to_pylist() == ["c", "ä", None]
