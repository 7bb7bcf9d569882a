"""Bins in which a server counts predictions."""

from __future__ import annotations

from fractions import Fraction
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pipelines.declarations.bundle import GoldenPredictions, Tensor
from pipelines.serving.golden import counted_predictions, prediction_deviation
from pipelines.serving.prediction_counts import PredictionCounts, bin_edges
from pipelines.serving.request_metrics import RequestMetrics
from tests.pipelines.serving.bundles import DIGEST, NAME

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
DEVIATIONS = st.floats(min_value=0, allow_nan=False, allow_infinity=False)


@given(NUMBERS, DEVIATIONS)
def test_every_golden_prediction_gives_a_few_edges_in_order(center: float, deviation: float) -> None:
    edges = bin_edges(center, deviation)
    assert 2 <= len(edges) <= 130
    assert list(edges) == sorted(set(edges))
    assert abs(edges[0]) < 1e302 > abs(edges[-1])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_bins_are_narrow_where_the_predictions_are(center: float, deviation: float) -> None:
    edges = bin_edges(center, deviation)
    assert len(edges) <= 80
    assert edges[0] < center - 10 * deviation and edges[-1] > center + 10 * deviation
    inner = [edge for edge in edges if abs(edge - center) <= 2 * deviation]
    assert len(inner) >= 14


@pytest.mark.parametrize(("center", "deviation"), [(120.0, 61.0), (1013.2, 4.0), (0.97, 0.004), (-3e5, 800.0)])
def test_bundles_whose_golden_predictions_differ_share_edges(center: float, deviation: float) -> None:
    ours = bin_edges(center, deviation)
    theirs = bin_edges(center + 0.7 * deviation, 1.8 * deviation)
    shared = [edge for edge in set(ours) & set(theirs) if abs(edge - center) <= 2 * deviation]
    assert len(shared) >= 8


def test_a_canary_whose_golden_predictions_are_all_equal_shares_edges_with_the_live_pods() -> None:
    shared = set(bin_edges(150.0, 60.0)) & set(bin_edges(148.0, 0.0))
    assert len([edge for edge in shared if 90 <= edge <= 210]) >= 6


@given(st.integers(-1000, 1000), st.sampled_from([1, 2, 4, 5, 8, 10, 100]), st.floats(0.01, 100))
def test_no_round_number_is_near_an_edge(number: int, divisor: int, deviation: float) -> None:
    """Models that predict 0, 0.5 or 1 again and again differ by rounding, which must not look like another bin."""
    value = Fraction(number, divisor)
    for edge in bin_edges(float(value), deviation):
        assert abs(Fraction(edge) - value) > Fraction(deviation) / 10_000


@pytest.mark.parametrize("values", [(1.7e308, -1.7e308), (1e160, -1e160), (0.0, 0.0), (3.0, 8.0)])
def test_a_bundle_with_any_golden_predictions_is_served(values: tuple[float, float]) -> None:
    golden = GoldenPredictions(
        inputs=(Tensor(name="x", datatype="FP64", shape=(2, 1), data=(1.0, 2.0)),),
        outputs=(Tensor(name="y", datatype="FP64", shape=(2, 1), data=values),),
    )
    deviation = prediction_deviation(golden)
    assert deviation**2 < 1e300
    assert len(bin_edges(median(counted_predictions(golden)), deviation)) > 50


def test_a_server_counts_predictions_up_to_each_edge() -> None:
    metrics = RequestMetrics(NAME, DIGEST, "p")
    metrics.predictions.expect(1e6, (-0.5, 1.0, 2.5))
    for value in (-7.0, -0.5, 0.0, 1.0, 1.5, 2e9):
        metrics.predictions.add(value)
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(metrics.exposition()[1].decode())
        for sample in family.samples
    }
    found = [value for (name, _), value in samples.items() if name == "inference_predictions_bucket"]
    assert found == [2, 4, 5, 6]
    assert samples["inference_prediction_count", None] == 6
    assert samples["inference_prediction_sum", None] == -7.0 - 0.5 + 0.0 + 1.0 + 1.5 + 1e6


def test_predictions_are_counted_without_golden_ones() -> None:
    counts = PredictionCounts()
    counts.add(3.0)
    assert [metric.name for metric in counts.collect("inference_", "requests")] == [
        "inference_prediction_count",
        "inference_prediction_sum",
        "inference_prediction_squares",
    ]
