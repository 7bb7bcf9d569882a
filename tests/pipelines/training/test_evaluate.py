from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.declarations.evaluation import Holdout
from pipelines.training.drift_baseline import FeatureBlocks, describe_baseline, describe_number_blocks, describe_numbers
from pipelines.training.evaluate import Predictions, evaluate
from tests.pipelines.training.project import DATASET, MODEL, make_project

HOLDOUT = Holdout(
    share=0.5, seed=1, rows=6, training_rows=6, unlabelled_rows=0, keys="sha256:" + "0" * 64, leaked_rows=0
)

REGRESSION = {
    "thresholds": [{"metric": "rmse", "maximum": 1e6}],
    "champion": {"metric": "rmse", "maximum_regression": 1},
    "latency": {"p99_ms": 20.0},
    "soak": {"requests": 1, "seconds": 0},
}


def predictions(right: list[bool]) -> Predictions:
    """Predict six rows of alternating classes, right or wrong, with a probability of 0.9."""
    truth = np.array([0, 1] * 3, dtype=float)
    said = np.where(right, truth, 1 - truth)
    return Predictions(
        truth, np.stack([np.where(said == 0, 0.9, 0.1), np.where(said == 1, 0.9, 0.1)], 1), ("no", "yes")
    )


def test_metrics_of_slices_and_groups_use_only_their_rows(tmp_path: Path) -> None:
    model = make_project(tmp_path, protected=["region", "member"]).model(MODEL)
    rows = pd.DataFrame(
        {
            "age": [20, 25, 40, 50, 60, np.nan],
            "region": ["north", "north", "north", "south", "south", "south"],
            "member": [True, True, None, False, False, False],
        }
    )
    keys = np.array([5, 3, 4, 0, 2, 1], np.uint64)
    found = evaluate(model, HOLDOUT, rows, keys, predictions([True, True, False, True, True, True]))
    accuracy = found.metrics["accuracy"]
    assert accuracy.value == pytest.approx(5 / 6)
    assert accuracy.low is not None and accuracy.high is not None
    assert accuracy.low <= 5 / 6 <= accuracy.high <= 1
    assert (found.slices["young"].rows, found.slices["young"].metrics["accuracy"]) == (2, 1.0)
    north = found.slices["north"]
    assert north.rows == 3 and north.metrics["accuracy"] == pytest.approx(2 / 3)
    region = found.groups["region"]
    assert {name: part.rows for name, part in region.groups.items()} == {"north": 3, "south": 3}
    assert region.difference["accuracy"] == pytest.approx(1 / 3)
    assert region.ratio["accuracy"] == pytest.approx(1.5)
    member = found.groups["member"]
    assert {name: part.rows for name, part in member.groups.items()} == {"0": 3, "1": 2, "null": 1}
    # The ratio to a group with an accuracy of 0 is undefined, as is the ROC curve of a single class.
    assert member.ratio["accuracy"] is None
    assert member.groups["null"].metrics["roc_auc"] is None
    assert found.sample.keys == tuple(f"{key:016x}" for key in range(6))
    assert found.sample.truth == (1.0, 1.0, 0.0, 1.0, 0.0, 0.0)


def test_a_group_with_an_undefined_metric_leaves_difference_and_ratio_undefined(tmp_path: Path) -> None:
    """The two other groups are almost equal; in the third the target is constant, so R² is undefined there."""
    model = make_project(
        tmp_path,
        task="regression",
        target="income",
        protected=["region"],
        features=["age"],
        slices=[],
        gates=REGRESSION,
    ).model(MODEL)
    truth = np.array([1.0, 2, 3, 1, 2, 3, 5, 5, 5])
    found = Predictions(truth, truth + np.tile([0.1, -0.1, 0.1], 3), None)
    rows = pd.DataFrame({"region": ["a"] * 3 + ["b"] * 3 + ["c"] * 3})
    holdout = HOLDOUT.model_copy(update={"rows": 9})
    region = evaluate(model, holdout, rows, np.arange(9, dtype=np.uint64), found).groups["region"]
    assert region.groups["c"].metrics["r2"] is None
    assert region.difference["r2"] is None and region.ratio["r2"] is None
    assert region.difference["mae"] is not None and region.ratio["mae"] is not None


def test_a_slice_without_rows_has_no_metrics(tmp_path: Path) -> None:
    model = make_project(tmp_path, protected=[]).model(MODEL)
    rows = pd.DataFrame({"age": [40.0] * 6, "region": ["south"] * 6})
    found = evaluate(model, HOLDOUT, rows, np.arange(6, dtype=np.uint64), predictions([True] * 6))
    assert (found.slices["north"].rows, found.slices["north"].metrics) == (0, {})


def blocks_of(features: pd.DataFrame) -> FeatureBlocks:
    """Return the features in two blocks."""
    return lambda name: np.array_split(features[name].to_numpy(), 2)


def test_the_baseline_leaves_out_a_personal_feature_whose_values_are_not_listed(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    model, contract = project.model(MODEL), project.contract(DATASET)
    features = pd.DataFrame({"income": [1.0] * 6, "age": [20.0] * 6, "member": [1.0] * 6, "region": ["north"] * 6})
    assert contract.columns["region"].valid_values is not None

    def described(*personal: str) -> list[str]:
        columns = [
            column.model_copy(update={"classification": "confidential"}) if name in personal else column
            for name, column in contract.columns.items()
        ]
        table = contract.tables[0].model_copy(update={"properties": tuple(columns)})
        changed = contract.model_copy(update={"tables": (table,)})
        return sorted(describe_baseline(model, changed, blocks_of(features), predictions([True] * 6)).features)

    assert described() == ["age", "income", "member", "region"]
    assert described("age", "member", "region") == ["income", "member", "region"]


def test_the_baseline_counts_every_row_once(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    model, contract = project.model(MODEL), project.contract(DATASET)
    features = pd.DataFrame(
        {
            "income": [1.0, 1.0, 2.0, 3.0, 100.0, 1.0],
            "age": [20.0, np.nan, 30.0, 40.0, 50.0, 60.0],
            "member": [1.0, 0.0, np.nan, 1.0, 1.0, 0.0],
            "region": ["north", "north", "south", "north", "south", "north"],
        }
    )
    found = describe_baseline(model, contract, blocks_of(features), predictions([True] * 6))
    income, age, member, region = (found.features[name] for name in model.features)
    assert income.kind == age.kind == "numeric" and member.kind == region.kind == "categorical"
    assert sum(income.counts) == 6 and len(income.counts) == len(income.edges) + 1
    assert list(income.edges) == sorted(set(income.edges))
    assert (income.quantiles[0], income.quantiles[100], income.mean) == (1.0, 100.0, 18.0)
    assert (age.rows, age.nulls, sum(age.counts)) == (6, 1, 5)
    assert (member.counts, member.nulls) == ({"1": 3, "0": 2}, 1)
    assert (region.counts, region.others) == ({"north": 4, "south": 2}, 0)
    label = found.outputs["label"]
    assert label.kind == "categorical" and label.counts == {"no": 3, "yes": 3}
    assert set(found.outputs) == {"label", "probabilities[no]", "probabilities[yes]"}


@pytest.mark.parametrize("count", [1, 2, 3, 100, 1001, 200_001])
def test_a_distribution_agrees_with_numpy(count: int) -> None:
    rng = np.random.default_rng(count)
    for values in (
        rng.normal(size=count),
        rng.normal(-1e30, 1e35, count),
        rng.integers(-3, 3, count).astype(float),
        np.full(count, -0.0),
    ):
        given = values.astype(np.float32).astype(float)
        given[1::7] = np.nan
        known = given[~np.isnan(given)]
        found = describe_numbers(given)
        assert (found.rows, found.nulls, sum(found.counts)) == (count, count - len(known), len(known))
        assert found.mean is not None and found.deviation is not None
        close = {"rtol": 1e-8, "atol": 1e-9 * np.abs(known).max()}
        assert np.allclose(found.quantiles, np.quantile(known, np.linspace(0, 1, 101)), **close)
        assert np.allclose([found.mean, found.deviation], [known.mean(), known.std()], **close)
        blocks = np.array_split(given, [65_536, 131_072, 196_608])
        assert found == describe_number_blocks(partial(iter, blocks))
