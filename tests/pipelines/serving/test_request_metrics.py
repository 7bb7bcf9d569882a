"""Metrics of the server."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.declarations.bundle import RequestColumn
from pipelines.serving.sequential_tests import Moments
from tests.pipelines.serving.bundles import COLUMNS, NAME, ROW, classifier_bundle, linear_bundle
from tests.pipelines.serving.conftest import Serve, Served, features, row


def scraped(made: Served) -> dict[str, float]:
    """Scrape a server with Prometheus' parser; return each sample by name and labels."""
    answer = made.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_status_and_rows_are_added_up(linear: Served) -> None:
    linear.infer(features(row(), row(), row()))
    linear.infer(features())
    linear.infer(b"")
    found = scraped(linear)
    assert found["inference_requests_total,code=200"] == 2
    assert found["inference_requests_total,code=400"] == 1
    assert found["inference_rows_total"] == 4
    assert found["inference_requests_in_flight"] == 0


def test_the_latency_histogram_is_cumulative_and_counts_every_request(linear: Served) -> None:
    for _ in range(5):
        linear.infer(features())
    found = scraped(linear)
    buckets = [value for name, value in found.items() if name.startswith("inference_request_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert found["inference_request_seconds_bucket,le=+Inf"] == found["inference_request_seconds_count"] == 5
    assert 0 < found["inference_request_seconds_sum"] < 5


def test_requests_that_name_a_version_are_counted_separately_too(linear: Served) -> None:
    linear.infer(features())
    alone = scraped(linear)
    for body in (features(), b"{"):
        linear.infer(body, path=f"/v2/models/{NAME}/versions/{linear.bundle.digest}/infer")
    found = scraped(linear)
    assert found["inference_requests_total,code=200"] == 2
    assert found["inference_versioned_requests_total,code=200"] == 1
    assert found["inference_versioned_requests_total,code=400"] == 1
    assert found["inference_versioned_request_seconds_count"] == 2
    for name in ("inference_log_seconds_sum", "inference_prediction_count", "inference_prediction_sum"):
        assert found[name] == alone[name]


def test_a_latency_equal_to_a_bound_counts_in_its_bucket(linear: Served) -> None:
    linear.metrics.answered(200, 0.001)
    linear.metrics.answered(200, 99.0)
    found = scraped(linear)
    assert found["inference_request_seconds_bucket,le=0.0005"] == 0
    assert found["inference_request_seconds_bucket,le=0.001"] == 1
    assert found["inference_request_seconds_bucket,le=2.5"] == 1
    assert found["inference_request_seconds_bucket,le=+Inf"] == 2


def test_latencies_and_predictions_are_added_up_for_means_and_deviations(linear: Served) -> None:
    predicted = []
    for bmi in (20.0, 30.0, 40.0):
        answer = linear.infer(features(row(bmi=bmi)))
        predicted.append(json.loads(answer.body)["outputs"][0]["data"][0])
    many = linear.infer(features(row(), row()))
    predicted.append(np.mean(json.loads(many.body)["outputs"][0]["data"]))
    linear.infer(b"")
    found = scraped(linear)
    assert found["inference_prediction_count"] == 4
    assert found["inference_prediction_sum"] == pytest.approx(sum(predicted))
    assert found["inference_prediction_squares"] == pytest.approx(sum(value**2 for value in predicted))
    mean = found["inference_log_seconds_sum"] / 4
    assert 1e-6 < math.exp(mean) < 10
    assert found["inference_log_seconds_squares"] >= 4 * mean**2


def test_the_prediction_of_a_classifier_is_the_probability_of_its_last_class(serve: Serve) -> None:
    made = serve(classifier_bundle())
    for data in ([0.0], [50.0], [0.0, 50.0]):
        tensor = {"name": "features", "shape": [len(data), 1], "datatype": "FP32", "data": data}
        assert made.infer({"inputs": [tensor]}).status == 200
    found = scraped(made)
    assert found["inference_prediction_count"] == 3
    assert found["inference_prediction_sum"] == pytest.approx(0.5 + 1.0 + 0.75)


def test_the_served_bundle_is_a_label(linear: Served) -> None:
    assert scraped(linear)[f"inference_bundle_info,bundle={linear.bundle.digest},model={NAME},process="] == 1


def test_ready_is_1_until_the_server_drains(serve: Serve) -> None:
    made = serve()
    assert scraped(made)["inference_ready"] == 1
    made.application.drain()
    assert scraped(made)["inference_ready"] == 0


def test_the_counter_of_lost_log_records_exists_before_any_is_lost(linear: Served) -> None:
    found = scraped(linear)
    assert found["inference_log_dropped_records_total,reason=buffer full"] == 0
    assert found["inference_log_dropped_records_total,reason=write failed"] == 0


@pytest.mark.parametrize("huge", [1e12, -1e20, 1e38])
def test_one_huge_prediction_leaves_the_figures_of_later_ones_exact(serve: Serve, huge: float) -> None:
    """A caller could send one request, and each later release would be stopped, or pass unseen."""
    made = serve(linear_bundle(columns=tuple(RequestColumn(name=column.name) for column in COLUMNS)))
    made.infer(features([huge, *ROW[1:]]))

    def moments() -> Moments:
        found = scraped(made)
        return Moments(*(found[f"inference_prediction_{name}"] for name in ("count", "sum", "squares")))

    before = moments()
    for age in (50.0, 60.0, 70.0):
        made.infer(features([age, *ROW[1:]]))
    later = moments() - before
    assert later.count == 3
    assert later.mean == pytest.approx(60 + 32.1, rel=1e-6)
    assert later.variance == pytest.approx(100, rel=1e-4)
