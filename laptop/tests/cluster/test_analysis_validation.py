"""Analyses that Argo refuses, with its messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from laptop.cluster.analysis_validation import (
    AnalysisError,
    dry_run_metrics,
    resolved,
    run_dry_rules,
    run_metrics,
    step_arguments,
    why_run_invalid,
    why_template_invalid,
)


def template(*metrics: Mapping[str, Any], name: str = "check", **spec: Any) -> dict[str, Any]:
    """Return an AnalysisTemplate."""
    return {"metadata": {"name": name}, "spec": {"metrics": [{"name": "m", **metric} for metric in metrics], **spec}}


def why(*metrics: Mapping[str, Any], dry: str = "") -> str:
    """Return why a run with metrics is not valid; each has a name unless it names itself."""
    named = [{"name": f"m{index}", **metric} for index, metric in enumerate(metrics)]
    return why_run_invalid({"metrics": named, **({"dryRun": [{"metricName": dry}]} if dry else {})})


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            {"count": 1, "failureLimit": 1, "consecutiveSuccessLimit": 1},
            "count (1) must be >= failureLimit + consecutiveSuccessLimit (1 + 1) if both >= 0",
        ),
        ({"count": 1, "failureLimit": -1, "consecutiveSuccessLimit": 2}, "count must be >= consecutiveSuccessLimit"),
        ({"failureLimit": -1}, "failureLimit and consecutiveSuccessLimit cannot both be disabled"),
        ({"failureLimit": -2}, "failureLimit must be >= 0, or -1 to be disabled"),
        ({"consecutiveSuccessLimit": -1}, "consecutiveSuccessLimit must be >= 0"),
        ({"inconclusiveLimit": -1}, "inconclusiveLimit must be >= 0"),
        ({"consecutiveErrorLimit": -1}, "consecutiveErrorLimit must be >= 0"),
        ({"count": 1, "inconclusiveLimit": 2}, "count must be >= inconclusiveLimit"),
        ({"count": 2}, "interval must be specified when count > 1"),
        ({"interval": "30"}, 'invalid interval string: time: missing unit in duration "30"'),
        ({"initialDelay": "1d"}, 'invalid startDelay string: time: unknown unit "d" in duration "1d"'),
    ],
)
def test_limits_that_contradict_each_other_are_refused(metric: dict[str, Any], message: str) -> None:
    assert why({}, metric) == f"metrics[1]: {message}"


@pytest.mark.parametrize(
    "metric",
    [
        {},
        {"failureLimit": 1, "consecutiveSuccessLimit": 1},
        {"count": 0, "failureLimit": 3},
        {"count": 3, "interval": "1s", "failureLimit": 1, "consecutiveSuccessLimit": 2},
        {"count": 2, "interval": "1m30s", "failureLimit": -1, "consecutiveSuccessLimit": 2},
        {"count": 2, "interval": "1s", "inconclusiveLimit": 2},
    ],
)
def test_limits_that_can_be_met_are_accepted(metric: dict[str, Any]) -> None:
    assert why(metric) == ""


def test_a_run_needs_metrics_with_different_names() -> None:
    assert why() == "no metrics specified"
    assert why({"name": "a"}, {"name": "a"}) == "metrics[1]: duplicate name 'a'"


@pytest.mark.parametrize("rule", ["other", "("])
def test_a_dry_run_that_matches_no_metric_is_refused(rule: str) -> None:
    assert why({}, dry=rule) == "dryRun[0]: Rule didn't match any metric name(s)"
    assert dry_run_metrics({"metrics": [{"name": "m"}], "dryRun": [{"metricName": rule}]}) == set()


def test_arguments_are_filled_in_everywhere_and_limits_become_numbers() -> None:
    metric = {
        "name": "m-{{args.a}}",
        "count": "{{ args.n }}",
        "failureLimit": "one",
        "provider": {"job": ["{{args.a}}"]},
    }
    assert resolved(metric, {"a": "x", "n": "3"}) == {
        "name": "m-x",
        "count": 3,
        "failureLimit": 0,
        "provider": {"job": ["x"]},
    }


@pytest.mark.parametrize("text", ["{{args.other}}", "{{ a }}", "{{other.a}}"])
def test_a_placeholder_without_an_argument_is_refused(text: str) -> None:
    with pytest.raises(AnalysisError, match=r"failed to resolve \{\{"):
        resolved({"name": "m", "provider": {"job": text}}, {"a": "x"})
    made = template({"provider": {"job": text}}, args=[{"name": "a"}])
    assert why_template_invalid(made).startswith("AnalysisTemplate check: failed to resolve {{")


def test_an_argument_without_a_value_is_refused() -> None:
    with pytest.raises(AnalysisError, match='argument "a" was not supplied'):
        resolved({"name": "m"}, {"a": None})


def test_a_metric_of_a_step_must_end() -> None:
    endless = template({"interval": "1s"})
    assert why_template_invalid(endless) == (
        "AnalysisTemplate check has metric m which runs indefinitely. Invalid value for count: <nil>"
    )
    assert why_template_invalid(template({"interval": "1s", "count": 2})) == ""
    assert why_template_invalid(template({})) == ""


def test_templates_of_one_step_agree() -> None:
    with pytest.raises(AnalysisError, match="two metrics have the same name 'm'"):
        run_metrics([template({}), template({}, name="b")])
    rules = template({}, dryRun=[{"metricName": "m"}])
    with pytest.raises(AnalysisError, match="two Dry-Run metric rules have the same name 'm'"):
        run_dry_rules([rules], {"dryRun": [{"metricName": "m"}]})
    one, two = (template({}, args=[{"name": "a", "value": value}]) for value in "12")
    with pytest.raises(AnalysisError, match="Argument `a` specified multiple times with different values: '1', '2'"):
        step_arguments([one, two], {})


def test_the_value_of_a_step_replaces_that_of_the_template() -> None:
    one, unset = template({}, args=[{"name": "a", "value": "1"}]), template({}, args=[{"name": "a"}])
    assert step_arguments([one, unset], {"a": "2", "unknown": "3"}) == {"a": "2"}
    assert step_arguments([one, unset], {}) == {"a": "1"}
    assert step_arguments([unset], {"a": None}) == {"a": None}
