"""A training set is the same however many of its rows are in memory at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.data import ordered_rows
from pipelines.data.ordered_rows import BLOCK_ROWS, OrderedTable, UnorderedRowsError, write_in_order
from pipelines.data.row_digest import digest_of_ordered, digest_of_rows, in_key_order
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.evaluation import Holdout
from pipelines.training import training_set
from pipelines.training.card import _sampled
from pipelines.training.sent_rows import receive_rows
from pipelines.training.split import hash_keys, in_holdout, in_training
from pipelines.training.training_set import TrainingSet, in_memory
from tests.pipelines.training.project import DATASET, MODEL, make_project, make_rows


def test_the_split_is_that_of_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path)
    model, contract = project.model(MODEL), project.contract(DATASET)
    rows = make_rows(900)
    rows = pa.concat_tables([rows, rows.set_column(0, "loan_id", pa.array(range(900, 1800), pa.int64()))])
    kept = in_holdout(hash_keys(rows, ["loan_id"]), model.training.seed, model.training.holdout)
    labelled = rows.column("defaulted").is_valid().to_numpy()
    ordered = in_memory(rows, model, contract)
    whole = TrainingSet(model, contract, ordered).holdout
    monkeypatch.setattr(training_set, "HASHES_AT_ONCE", 100)
    monkeypatch.setattr(ordered_rows, "BLOCK_ROWS", 128)
    made = TrainingSet(model, contract, ordered)
    assert made.holdout == whole
    assert (whole.rows, whole.training_rows) == ((kept & labelled).sum(), (~kept & labelled).sum())
    keys = np.sort(hash_keys(rows.filter(kept & labelled), ["loan_id"]))
    assert whole.keys == digest_of_bytes(keys.astype("<u8").tobytes())
    given = rows.select([*model.features, model.target]).to_pylist()
    seen = {repr(row) for row, is_kept in zip(given, kept, strict=True) if not is_kept}
    chosen = zip(given, kept & labelled, strict=True)
    assert whole.leaked_rows == sum(repr(row) in seen for row, is_chosen in chosen if is_chosen) > 100
    sent = made.training()
    received = receive_rows(sent.shape, sent.blocks())
    assert received.target.tolist() == rows.filter(~kept & labelled)["defaulted"].to_pylist()
    assert made.read_holdout().target.tolist() == rows.filter(kept & labelled)["defaulted"].to_pylist()


def test_a_sample_is_drawn_from_the_training_rows_and_leaves_the_holdout_whole(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    model, contract = project.model(MODEL), project.contract(DATASET)
    sampled = model.model_copy(update={"training": model.training.model_copy(update={"sample": 0.3})})
    rows = make_rows(4000)
    whole, part = (TrainingSet(each, contract, in_memory(rows, each, contract)) for each in (model, sampled))
    assert (part.holdout.rows, part.holdout.keys) == (whole.holdout.rows, whole.holdout.keys)
    assert part.holdout.sample == 0.3 and whole.holdout.sample is None
    assert part.holdout.training_rows + part.holdout.left_out_rows == whole.holdout.training_rows
    assert part.holdout.unlabelled_rows == whole.holdout.unlabelled_rows
    assert 0.25 < part.holdout.training_rows / whole.holdout.training_rows < 0.35
    assert part.holdout.leaked_rows <= whole.holdout.leaked_rows

    keys = hash_keys(rows, ["loan_id"])
    chosen = in_training(keys, model.training.seed, model.training.holdout, 0.3)
    expected = rows.filter(chosen)["defaulted"].drop_null().to_pylist()
    assert receive_rows(part.training().shape, part.training().blocks()).target.tolist() == expected
    more = make_rows(8000)
    again = in_training(hash_keys(more, ["loan_id"]), model.training.seed, model.training.holdout, 0.3)
    place = dict(zip(more["loan_id"].to_pylist(), again.tolist(), strict=True))
    assert [place[key] for key in rows["loan_id"].to_pylist()] == chosen.tolist()


def test_the_card_of_a_bundle_says_which_rows_were_left_out(tmp_path: Path) -> None:
    holdout = Holdout(
        share=0.25,
        seed=1,
        rows=25,
        training_rows=15,
        sample=0.2,
        left_out_rows=60,
        unlabelled_rows=0,
        keys=f"sha256:{'0' * 64}",
        leaked_rows=0,
    )
    assert _sampled(holdout) == ", a sample of 0.2 by their keys, and left 60 out"
    assert _sampled(holdout.model_copy(update={"sample": None, "left_out_rows": 0})) == ""


def test_rows_in_a_file_have_the_digest_and_the_blocks_of_rows_in_memory(tmp_path: Path) -> None:
    count = 2 * BLOCK_ROWS + 5
    texts = np.array(["", "a", "ä", None], object)[np.arange(count) % 4]
    rows = pa.table({"id": pa.array(range(count)), "x": pa.array(np.arange(count) / 7), "name": pa.array(texts)})
    parts = [rows.slice(start, 50_000) for start in range(0, count, 50_000)]
    file = write_in_order(parts, rows.schema, ["id"], ["name", "x"], tmp_path / "rows.parquet")
    assert (file.count, file.schema.names) == (count, ["id", "x", "name"])
    assert [each.num_rows for each in file.blocks(["x"])] == [BLOCK_ROWS, BLOCK_ROWS, 5]
    for one, other in zip(file.blocks(["name", "x"]), OrderedTable(rows).blocks(["name", "x"]), strict=True):
        assert one.equals(other.combine_chunks())
    assert digest_of_ordered(file) == digest_of_rows(rows, ["id"])


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("last", [[None] * 3, [float("nan")] * 3, [-0.0, 0.0, -0.0]])
def test_rows_with_equal_keys_are_sorted_by_their_other_columns(
    last: list[float | None], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    keys = pa.array([*sorted(rng.integers(-9, 0, 60).astype(float).tolist()), *last])
    rows = pa.table({"id": keys, "x": pa.array(rng.normal(size=63)), "name": pa.array(rng.choice(["a", "b"], 63))})
    monkeypatch.setattr(ordered_rows, "BLOCK_ROWS", 5)
    parts = [rows.slice(start, size) for start in range(0, 63, size)]
    file = write_in_order(parts, rows.schema, ["id"], ["name", "x"], tmp_path / "rows.parquet")
    found = pa.concat_tables(file.blocks(["id", "x", "name"]))
    assert [repr(row) for row in found.to_pylist()] == [repr(row) for row in in_key_order(rows, ["id"]).to_pylist()]
    assert {each.num_rows for each in [*file.blocks(["id"])][:-1]} == {5}


@pytest.mark.parametrize("order", [[1, 2, 0, 3], [2, 3, 0, 1]])
def test_rows_in_another_order_are_refused(order: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_rows, "BLOCK_ROWS", 1)
    rows = pa.table({"id": pa.array([1, 2, 3, None])})
    parts = [rows.take(pa.array([at])) for at in order]
    with pytest.raises(UnorderedRowsError, match="not sorted by id"):
        write_in_order(parts, rows.schema, ["id"], [], tmp_path / "rows.parquet")
