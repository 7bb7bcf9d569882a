"""Exports of LightGBM, XGBoost and CatBoost. Those in `exports/` were made by these libraries, which are not here."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.declarations.errors import MlopsError
from pipelines.training import TrainedModel, from_sklearn
from pipelines.training.boosted_trees import adapt, round_thresholds
from pipelines.training.onnx_graph import check_graph
from tests.pipelines.training.models import answers_of

EXPORTS = Path(__file__).parent / "exports"
ROWS = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.0, 1.0, 0.0, 1.0]})


def export(name: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Return an export, with rows and what the library predicts for them."""
    return onnx.load(EXPORTS / f"{name}.onnx"), json.loads((EXPORTS / f"{name}.json").read_text())


def rows_of(facts: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(facts["rows"], columns=["a", "b", "c"])


def fitted_lightgbm(facts: dict[str, Any]) -> Any:
    """Return what `round_thresholds` reads of a fitted estimator."""
    return SimpleNamespace(booster_=SimpleNamespace(dump_model=lambda: facts))


def test_an_export_of_lightgbm_decides_as_the_model_at_its_thresholds() -> None:
    """Half of the rows have a value that is the float32 next to a threshold, and above it."""
    model, facts = export("lightgbm")
    rows, expected = rows_of(facts), np.array(facts["probabilities"])

    def check() -> None:
        outputs = model.__class__.FromString(model.SerializeToString())
        adapt(outputs, ["label", "probabilities"])
        trained = TrainedModel(lambda _: expected, outputs, tuple(facts["classes"]))
        answers_of("classification", trained, check_graph(outputs), rows)

    with pytest.raises(MlopsError, match="does not predict what the trained model does"):
        check()
    round_thresholds(model, fitted_lightgbm(facts))
    check()


@pytest.mark.filterwarnings("error")
def test_a_split_of_missing_values_from_all_others_is_rounded_without_a_warning() -> None:
    """Its threshold is the greatest float64: every number goes left, and is at most the greatest float32."""
    split = {"decision_type": "<=", "split_feature": 0, "threshold": 1.7976931348623157e308}
    leaves = {"left_child": {"leaf_value": 0.1}, "right_child": {"leaf_value": 0.2}}
    facts = {"tree_info": [{"tree_index": 0, "tree_structure": {**split, **leaves}}]}
    node = onnx.helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        nodes_treeids=[0],
        nodes_featureids=[0],
        nodes_modes=["BRANCH_LEQ"],
        nodes_values=[float("inf")],
    )
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "trees", [], []))
    round_thresholds(model, fitted_lightgbm(facts))
    (values,) = (each.floats for each in model.graph.node[0].attribute if each.name == "nodes_values")
    assert values[0] == np.finfo(np.float32).max


def test_rounding_twice_changes_nothing_more() -> None:
    model, facts = export("lightgbm")
    round_thresholds(model, fitted_lightgbm(facts))
    once = model.SerializeToString(deterministic=True)
    round_thresholds(model, fitted_lightgbm(facts))
    assert model.SerializeToString(deterministic=True) == once


def test_an_export_of_a_catboost_classifier_gets_tensors_instead_of_maps() -> None:
    model, facts = export("catboost-classifier")
    with pytest.raises(MlopsError, match=r"output 'probabilities' .* expected a tensor"):
        check_graph(model)
    adapt(model, ["label", "probabilities"])
    expected = np.array(facts["predicted"])
    trained = TrainedModel(lambda _: expected, model, tuple(facts["classes"]))
    found = answers_of("classification", trained, check_graph(model), rows_of(facts))
    assert found.outputs["label"].tolist() == [facts["classes"][at] for at in expected.argmax(axis=1)]


def test_an_export_of_a_catboost_regressor_gets_the_shape_that_it_has() -> None:
    model, facts = export("catboost-regressor")
    adapt(model, ["prediction"])
    expected = np.array(facts["predicted"])
    trained = TrainedModel(lambda _: expected, model)
    graph = check_graph(model)
    assert [(tensor.name, tensor.shape) for tensor in graph.outputs] == [("prediction", (-1, 1))]
    assert answers_of("regression", trained, graph, rows_of(facts)).predicted == pytest.approx(expected, rel=1e-4)


def test_a_classifier_without_probabilities_is_refused_with_a_way_out() -> None:
    with pytest.raises(MlopsError, match=r"RidgeClassifier has no predict_proba\(\): .*\n.*CalibratedClassifierCV"):
        from_sklearn(make_pipeline(StandardScaler(), RidgeClassifier()).fit(ROWS, [0, 1, 0, 1]), ROWS)


def test_what_does_not_predict_is_refused() -> None:
    with pytest.raises(
        MlopsError, match=r"StandardScaler has no predict\(\): expected a fitted regressor or classifier"
    ):
        from_sklearn(StandardScaler().fit(ROWS), ROWS)


def test_an_estimator_of_scikit_learn_needs_none_of_the_libraries() -> None:
    assert from_sklearn(LogisticRegression().fit(ROWS, [0, 1, 0, 1]), ROWS).classes == (0, 1)


class _Tree:
    """Looks like an estimator of one of the libraries."""

    classes_ = np.array([0, 1])

    def predict(self, rows: pd.DataFrame) -> Any: ...

    def predict_proba(self, rows: pd.DataFrame) -> Any: ...


def estimator(library: str, name: str) -> Any:
    return type(name, (_Tree,), {"__module__": f"{library}.sklearn"})()


@pytest.mark.parametrize(
    ("library", "name", "expected"),
    [
        (
            "lightgbm",
            "LGBMRanker",
            "LGBMRanker of lightgbm cannot be exported: expected LGBMClassifier or LGBMRegressor",
        ),
        ("xgboost", "XGBRFClassifier", "XGBRFClassifier of xgboost cannot be exported: expected XGBClassifier or"),
        ("a_tree_library", "Forest", "skl2onnx cannot convert this Forest"),
    ],
)
def test_an_estimator_that_cannot_be_converted_is_refused_by_name(library: str, name: str, expected: str) -> None:
    with pytest.raises(MlopsError, match=expected):
        from_sklearn(estimator(library, name), ROWS)


def test_a_converter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxmltools", None)
    monkeypatch.setitem(__import__("sys").modules, "lightgbm", SimpleNamespace())
    with pytest.raises(
        MlopsError, match=r"LGBMClassifier cannot be exported: .*onnxmltools.*\n.*requirements/pipelines.in"
    ):
        from_sklearn(estimator("lightgbm", "LGBMClassifier"), ROWS)


def test_catboost_says_what_it_cannot_export() -> None:
    text = ROWS.assign(town=["a", "b", "a", "b"])
    with pytest.raises(MlopsError, match="features that are text: found town"):
        from_sklearn(estimator("catboost", "CatBoostClassifier"), text)
    steps = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, [0, 1, 0, 1])
    steps.steps[-1] = ("last", estimator("catboost", "CatBoostClassifier"))
    with pytest.raises(MlopsError, match="CatBoost cannot be exported as a step of a pipeline"):
        from_sklearn(steps, ROWS)
