from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.errors import MlopsError
from pipelines.training.split import hash_keys, hash_values, in_holdout

seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0.01, 0.99)
keys = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=6)), min_size=1, max_size=40, unique=True)


def table(rows: list[tuple[int, str]]) -> pa.Table:
    return pa.table(
        {"number": pa.array([n for n, _ in rows], pa.int64()), "name": pa.array([t for _, t in rows], pa.string())}
    )


def holdout(rows: list[tuple[int, str]], seed: int, share: float) -> set[tuple[int, str]]:
    chosen = in_holdout(hash_keys(table(rows), ["number", "name"]), seed, share)
    return {row for row, kept in zip(rows, chosen, strict=True) if kept}


@settings(max_examples=80)
@given(keys, keys, seeds, shares)
def test_a_row_never_moves_between_training_and_holdout_as_the_data_grows(
    first: list[tuple[int, str]], later: list[tuple[int, str]], seed: int, share: float
) -> None:
    before, after = holdout(first, seed, share), holdout(later[::-1] + first, seed, share)
    assert after & set(first) == before


@settings(max_examples=40)
@given(keys, seeds, shares, shares)
def test_a_larger_share_only_adds_rows_to_the_holdout(
    rows: list[tuple[int, str]], seed: int, one: float, other: float
) -> None:
    assert holdout(rows, seed, min(one, other)) <= holdout(rows, seed, max(one, other))


def test_key_hashes_never_change_between_versions() -> None:
    """A change would evaluate models on rows that earlier models were trained on."""
    hashes = hash_keys(table([(1, "a"), (2, "b"), (-3, "é")]), ["number", "name"])
    assert [f"{each:016x}" for each in hashes] == ["443d66708b2ee88b", "7b8a4e629b87024d", "8d13f455b06e5c72"]


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_holdout_has_about_the_requested_share(seed: int) -> None:
    hashes = hash_keys(pa.table({"key": pa.array(range(100_000))}), ["key"])
    chosen = in_holdout(hashes, seed, 0.25)
    assert abs(chosen.mean() - 0.25) < 0.01
    # Holdouts of different seeds overlap by chance only.
    assert abs((chosen & in_holdout(hashes, seed + 1, 0.25)).mean() - 0.0625) < 0.01


def test_the_hash_of_a_key_does_not_depend_on_the_width_of_its_type() -> None:
    narrow = pa.table({"key": pa.array([1, 2, 300], pa.int32()), "name": pa.array(["a", "b", "a"]).dictionary_encode()})
    wide = pa.table({"key": pa.array([1, 2, 300], pa.int64()), "name": pa.array(["a", "b", "a"], pa.large_string())})
    assert (hash_keys(narrow, ["key", "name"]) == hash_keys(wide, ["key", "name"])).all()
    seconds = pa.table({"at": pa.array([1, 2], pa.timestamp("s", "UTC"))})
    micros = pa.table({"at": pa.array([10**6, 2 * 10**6], pa.timestamp("us", "UTC"))})
    assert (hash_keys(seconds, ["at"]) == hash_keys(micros, ["at"])).all()
    zeros = pa.table({"x": pa.array([0.0, -0.0])})
    assert len(set(hash_keys(zeros, ["x"]).tolist())) == 1


def test_equal_rows_have_equal_hashes() -> None:
    numbers = np.array([0.0, -0.0, np.nan, -np.nan, 1.0])
    texts = np.array(["a", "a", "b", "b", "a"], object)
    hashes = hash_values([numbers, texts, np.array([1, 1, 1, 1, 1])]).tolist()
    assert hashes[0] == hashes[1] and hashes[2] == hashes[3] and len(set(hashes)) == 3
    assert hash_values([texts]).tolist()[::4] == [hash_values([texts[:1]])[0]] * 2


def test_a_table_without_its_key_is_refused() -> None:
    with pytest.raises(MlopsError, match="lacks the column 'loan_id' of the primary key"):
        hash_keys(pa.table({"x": [1]}), ["loan_id"])
