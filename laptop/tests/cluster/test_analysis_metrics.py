"""Assessment of the metrics of an AnalysisRun."""

from __future__ import annotations

from typing import Any

import pytest

from laptop.cluster.analysis_metrics import add_measurement, metric_phase, run_phase
from laptop.cluster.analysis_validation import dry_run_metrics


def measured(*phases: str) -> dict[str, Any]:
    """Return the result of a metric after measurements."""
    result: dict[str, Any] = {"name": "m", "phase": "Running", "measurements": []}
    for phase in phases:
        result = add_measurement(result, {"phase": phase})
        result["measurements"] = [*result["measurements"], {"phase": phase}]
    return result


@pytest.mark.parametrize(
    ("metric", "phases", "expected"),
    [
        ({}, ["Successful"], "Successful"),
        ({}, ["Failed"], "Failed"),
        ({}, ["Error"], "Running"),
        ({}, ["Error"] * 5, "Error"),
        ({"consecutiveErrorLimit": 0}, ["Error"], "Error"),
        ({"count": 2, "interval": "1s"}, ["Successful"], "Running"),
        ({"count": 2, "interval": "1s"}, ["Successful"] * 2, "Successful"),
        ({"count": 2, "interval": "1s", "failureLimit": 1}, ["Failed", "Successful"], "Successful"),
        ({"count": 2, "interval": "1s", "failureLimit": 1}, ["Failed", "Failed"], "Failed"),
        ({"count": 2, "interval": "1s"}, ["Error", "Successful"], "Running"),
        ({"count": 3, "failureLimit": 1, "consecutiveSuccessLimit": 2}, ["Successful", "Failed"], "Running"),
        ({"count": 3, "failureLimit": 1, "consecutiveSuccessLimit": 2}, ["Successful"] * 2, "Successful"),
        (
            {"count": 3, "failureLimit": 1, "consecutiveSuccessLimit": 2},
            ["Successful", "Failed", "Successful"],
            "Inconclusive",
        ),
        (
            {"count": 3, "failureLimit": -1, "consecutiveSuccessLimit": 2},
            ["Successful", "Failed", "Successful"],
            "Failed",
        ),
    ],
)
def test_the_limits_of_a_metric_decide_its_phase(metric: dict[str, Any], phases: list[str], expected: str) -> None:
    assert metric_phase(metric, measured(*phases), terminating=False) == expected


def test_a_metric_that_is_ended_early_is_successful() -> None:
    assert metric_phase({"interval": "1s"}, measured("Successful"), terminating=True) == "Successful"


def test_the_worst_metric_decides_the_run_and_names_itself() -> None:
    spec = {"metrics": [{"name": "a"}, {"name": "m"}]}
    results = [{"name": "a", "phase": "Successful"}, {**measured("Failed"), "phase": "Failed"}]
    assert run_phase(spec, results, terminating=False) == (
        "Failed",
        'Metric "m" assessed Failed due to failed (1) > failureLimit (0)',
    )
    assert run_phase(spec, results[:1], terminating=False) == ("Running", "")


def test_a_dry_run_metric_does_not_fail_the_run() -> None:
    spec = {"metrics": [{"name": "a"}, {"name": "m"}], "dryRun": [{"metricName": "m"}]}
    assert dry_run_metrics(spec) == {"m"}
    results = [{"name": "a", "phase": "Successful"}, {**measured("Failed"), "phase": "Failed", "dryRun": True}]
    assert run_phase(spec, results, terminating=False) == ("Successful", "")
