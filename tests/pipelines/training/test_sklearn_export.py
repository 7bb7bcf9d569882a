from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.declarations.errors import MlopsError
from pipelines.training import from_sklearn
from pipelines.training.onnx_graph import check_graph
from tests.pipelines.training.models import answers_of

RNG = np.random.default_rng(5)
ROWS = pd.DataFrame(
    RNG.normal(size=(300, 3)).astype(np.float32).astype(np.float64) * [1, 1e3, 1e-3], columns=["a", "b", "c"]
)
TARGET = 10 * ROWS["a"] + np.sin(ROWS["b"]) + RNG.normal(size=300)
TRAIN, HOLDOUT = ROWS[:200], ROWS[200:].reset_index(drop=True)


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), Ridge()),
        make_pipeline(ColumnTransformer([("scaled", StandardScaler(), ["c", "a"])], remainder="passthrough"), Ridge()),
        HistGradientBoostingRegressor(max_iter=20, random_state=0),
    ],
    ids=["scaled ridge", "columns by name", "boosted trees"],
)
def test_exports_of_a_regressor_are_reproducible_and_predict_the_same(estimator: Any) -> None:
    estimator.fit(TRAIN, TARGET[:200])
    trained = from_sklearn(estimator, TRAIN)
    graph = check_graph(trained.onnx)
    assert answers_of("regression", trained, graph, HOLDOUT).predicted.shape == (100,)
    assert check_graph(from_sklearn(estimator, TRAIN).onnx).content == graph.content


def test_exported_trees_accept_missing_values() -> None:
    train, holdout = TRAIN.copy(), HOLDOUT.copy()
    train.loc[::5, "a"] = holdout.loc[::3, "a"] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(train, (TARGET[:200] > 0).astype(int))
    trained = from_sklearn(estimator, train)
    assert trained.classes == (0, 1)
    answers = answers_of("classification", trained, check_graph(trained.onnx), holdout)
    assert answers.predicted.shape == (100, 2)
    assert answers.outputs["label"].dtype == np.int64


def test_exported_trees_decide_the_same_for_values_between_those_of_the_training() -> None:
    decimals = pd.DataFrame({"rain": np.arange(0, 30, 0.2).astype(np.float32).astype(float)})
    between = pd.DataFrame({"rain": np.arange(0.1, 30, 0.2).astype(np.float32).astype(float)})
    boosting = HistGradientBoostingRegressor(max_iter=20, max_leaf_nodes=None, min_samples_leaf=1, random_state=0)
    estimator = make_pipeline(StandardScaler(with_mean=False, with_std=False), boosting)
    estimator.fit(decimals, np.arange(len(decimals)) % 7)
    trained = from_sklearn(estimator, decimals)
    assert answers_of("regression", trained, check_graph(trained.onnx), between).predicted.shape == (150,)


def test_an_estimator_that_cannot_be_exported_is_an_error_that_names_it() -> None:
    class Mean(RegressorMixin, BaseEstimator):  # type: ignore[misc]
        def predict(self, rows: pd.DataFrame) -> Any:
            return rows.mean(axis=1).to_numpy()

    with pytest.raises(MlopsError, match="skl2onnx cannot convert this Mean"):
        from_sklearn(Mean(), TRAIN)
