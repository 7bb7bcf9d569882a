from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from pipelines.declarations.model import METRICS
from pipelines.training.metrics import bootstrap, measure, replicate

RNG = np.random.default_rng(1)
ROWS = 60


def test_regression_metrics_match_scikit_learn_for_every_weighting() -> None:
    truth, predicted = RNG.normal(1e6, 1, ROWS), RNG.normal(1e6, 1, ROWS)
    weights = RNG.integers(0, 4, (3, ROWS)).astype(float)
    found = measure("regression", truth, predicted, weights)
    assert set(found) == set(METRICS["regression"])
    for index, weight in enumerate(weights):
        expected = {
            "rmse": reference.root_mean_squared_error(truth, predicted, sample_weight=weight),
            "mae": reference.mean_absolute_error(truth, predicted, sample_weight=weight),
            "r2": reference.r2_score(truth, predicted, sample_weight=weight),
        }
        assert {metric: found[metric][index] for metric in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_classification_metrics_match_scikit_learn_for_every_weighting(classes: int) -> None:
    truth = RNG.integers(0, classes, ROWS)
    # Rounding to two digits makes ties, which count half in the area under the curve.
    predicted = RNG.dirichlet(np.ones(classes), ROWS).round(2) + 0.001
    predicted /= predicted.sum(axis=1, keepdims=True)
    label = predicted.argmax(axis=1)
    weights = RNG.integers(1, 4, (3, ROWS)).astype(float)
    found = measure("classification", truth.astype(float), predicted, weights)
    assert set(found) == set(METRICS["classification"]) - (set() if classes == 2 else {"selection_rate"})
    average = "binary" if classes == 2 else "macro"
    scores = predicted[:, 1] if classes == 2 else predicted
    for index, weight in enumerate(weights):
        some = {"sample_weight": weight}
        expected = {
            "accuracy": reference.accuracy_score(truth, label, **some),
            "balanced_accuracy": reference.balanced_accuracy_score(truth, label, **some),
            "precision": reference.precision_score(truth, label, average=average, **some),
            "recall": reference.recall_score(truth, label, average=average, **some),
            "f1": reference.f1_score(truth, label, average=average, **some),
            "log_loss": reference.log_loss(truth, predicted, **some),
        }
        if classes == 2:
            expected["roc_auc"] = reference.roc_auc_score(truth, scores, **some)
        assert {metric: found[metric][index] for metric in expected} == pytest.approx(expected, rel=1e-9)
    unweighted = measure("classification", truth.astype(float), predicted)["roc_auc"][0]
    assert unweighted == pytest.approx(reference.roc_auc_score(truth, scores, multi_class="ovr"))


def test_only_the_area_under_the_curve_is_omitted_if_it_is_not_needed() -> None:
    truth, predicted = RNG.integers(0, 2, ROWS).astype(float), RNG.dirichlet(np.ones(2), ROWS)
    every = replicate("classification", truth, predicted, 1)
    some = replicate("classification", truth, predicted, 1, ["accuracy"])
    assert set(every) - set(some) == {"roc_auc"}
    assert all((some[metric] == every[metric]).all() for metric in some)
    assert "roc_auc" in measure("classification", truth, predicted, metrics=["roc_auc"])


def test_undefined_metrics_are_nan() -> None:
    assert np.isnan(measure("regression", np.array([2.0]), np.array([2.0]))["r2"][0])
    assert np.isnan(measure("regression", np.full(3, 0.1), np.zeros(3))["r2"][0])
    one_class = measure("classification", np.zeros(3), np.full((3, 2), 0.5))
    assert np.isnan(one_class["roc_auc"][0])
    assert one_class["accuracy"][0] == 1.0


def test_bootstrap_samples_depend_only_on_the_seed() -> None:
    drawn = np.concatenate(list(bootstrap(50, seed=4)))
    assert drawn.shape == (1000, 50)
    assert (drawn.sum(axis=1) == 50).all()
    assert (drawn == np.concatenate(list(bootstrap(50, seed=4)))).all()
    assert (drawn != np.concatenate(list(bootstrap(50, seed=5)))).any()


def test_the_bootstrap_of_many_rows_uses_fewer_replicates_and_bounded_memory() -> None:
    parts = list(bootstrap(50_000, seed=4))
    assert sum(len(part) for part in parts) == 400
    assert max(part.size for part in parts) <= 2_000_000


def test_the_bootstrap_spread_of_a_mean_is_its_standard_error() -> None:
    error = RNG.normal(0, 2, 400)
    spread = replicate("regression", np.zeros(400), error, seed=2)["mae"].std()
    assert spread == pytest.approx(np.abs(error).std() / np.sqrt(400), rel=0.1)
