"""Rollouts that Argo reports as invalid, with its messages."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from laptop.cluster.kinds import ANALYSIS_TEMPLATE, INGRESS, SERVICE, Kind
from laptop.cluster.rollout_validation import why_invalid
from laptop.tests.cluster.running_cluster import rollout

Objects = dict[tuple[Kind, str], dict[str, Any]]


def surroundings(root: str = "m-stable") -> Objects:
    """Return what a rollout names: its Services, its Ingress and an AnalysisTemplate."""
    backend = {"service": {"name": root, "port": {"number": 80}}}
    job = {"spec": {"template": {"spec": {"containers": [{"name": "c", "args": ["{{args.a}}"]}]}}}}
    made: Objects = {(SERVICE, name): {"metadata": {}, "spec": {"selector": {}}} for name in ("m-stable", "m-canary")}
    made[INGRESS, "m"] = {"metadata": {}, "spec": {"rules": [{"http": {"paths": [{"backend": backend}]}}]}}
    made[ANALYSIS_TEMPLATE, "check"] = {
        "metadata": {"name": "check"},
        "spec": {"args": [{"name": "a"}], "metrics": [{"name": "errors", "provider": {"job": job}}]},
    }
    return made


def check(**change: Any) -> dict[str, Any]:
    """Return a step that runs the AnalysisTemplate."""
    return {"analysis": {"templates": [{"templateName": "check"}], "args": [{"name": "a", "value": "1"}], **change}}


def why(
    *steps: Mapping[str, Any],
    spec: Mapping[str, Any] | None = None,
    canary: Mapping[str, Any] | None = None,
    objects: Objects | None = None,
) -> str:
    """Return the problem of a rollout without its first words."""
    made = copy.deepcopy(rollout("v1", steps, replicas=1))
    made["metadata"] = {"name": "m", "namespace": "n"}
    made["spec"] |= spec or {}
    made["spec"]["strategy"]["canary"] |= canary or {}
    found = surroundings() if objects is None else objects
    problem = why_invalid(made, lambda kind, name: found.get((kind, name)))
    return problem.removeprefix('The Rollout "m" is invalid: ')


def test_a_rollout_that_fits_is_valid() -> None:
    assert why({"setWeight": 20}, {"pause": {}}, {"pause": {"duration": "1h30m"}}, check()) == ""


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ({"setWeight": 101}, ".setWeight: Invalid value: 101: SetWeight needs to be between 0 and 100"),
        ({"setWeight": -1}, ".setWeight: Invalid value: -1: SetWeight needs to be between 0 and 100"),
        ({"pause": {"duration": "soon"}}, ".pause.duration: Invalid value: -1: Duration needs to be greater than 0"),
        ({"pause": {"duration": -5}}, ".pause.duration: Invalid value: -5: Duration needs to be greater than 0"),
        (
            {"setWeight": 20, "pause": {}},
            ': Invalid value: "step.Experiment: false step.Pause: true step.SetWeight: true step.Analysis: false": '
            "Step must have one of the following set: experiment, setWeight, setCanaryScale, plugin or pause",
        ),
        (
            {},
            ': Invalid value: "step.Experiment: true step.Pause: true step.SetWeight: true step.Analysis: true '
            'step.SetCanaryScale: true step.SetHeaderRoute: true step.SetMirrorRoute: true step.Plugin: true": '
            "Step must have one of the following set: experiment, setWeight, setCanaryScale, plugin or pause",
        ),
        (
            check(args=[{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "metadata.generation"}}}]),
            '.analyses: Invalid value: [{"name":"a","valueFrom":{"fieldRef":{"fieldPath":"metadata.generation"}}}]: '
            "Analyses arguments must refer to valid object metadata supported by downwardAPI",
        ),
    ],
)
def test_a_step_that_cannot_be_taken_is_named(step: dict[str, Any], problem: str) -> None:
    assert why({"setWeight": 10}, step) == f"spec.strategy.steps[1]{problem}"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"revisionHistoryLimit": -1},
            "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"progressDeadlineSeconds": 0},
            "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
        ),
        (
            {"minReadySeconds": 600},
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        ({"selector": {}}, "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
        (
            {"selector": {"matchLabels": {"app": "other"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"m"}: `selector` does not match template `labels`',
        ),
    ],
)
def test_a_specification_that_makes_no_pods_is_refused(spec: dict[str, Any], problem: str) -> None:
    assert why(spec=spec) == problem


def test_labels_are_shown_in_the_order_of_go() -> None:
    template = copy.deepcopy(rollout("v1", [], replicas=1)["spec"]["template"])
    template["metadata"]["labels"] = {"version": "v1", "app": "other"}
    assert 'Invalid value: {"app":"other","version":"v1"}' in why(spec={"template": template})


def test_an_update_must_be_able_to_replace_pods() -> None:
    assert why(canary={"maxSurge": "0%", "maxUnavailable": 0}) == (
        'spec.strategy.maxSurge: Invalid value: "0%": MaxSurge and MaxUnavailable both can not be zero'
    )
    assert why(canary={"maxSurge": 0}) == ""


def test_pods_must_restart() -> None:
    template = copy.deepcopy(rollout("v1", [], replicas=1)["spec"]["template"])
    template["spec"]["restartPolicy"] = "Never"
    assert why(spec={"template": template}) == (
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"args": []}, '"templateNames: [check]": args.a was not resolved'),
        (
            {"dryRun": [{"metricName": "errors"}] * 2},
            "\"templateNames: [check]\": two Dry-Run metric rules have the same name 'errors'",
        ),
    ],
)
def test_an_analysis_that_cannot_be_made_is_refused(change: dict[str, Any], problem: str) -> None:
    assert why(check(**change)) == f"spec.strategy.canary.steps[0].analysis.templates: Invalid value: {problem}"


def test_a_template_with_an_unknown_placeholder_is_refused() -> None:
    objects = surroundings()
    objects[ANALYSIS_TEMPLATE, "check"]["spec"]["args"] = []
    assert why(check(), objects=objects) == (
        'spec.strategy.canary.steps[0].analysis.templates: Invalid value: "check": AnalysisTemplate check: failed to '
        "resolve {{args.a}}"
    )


def test_a_template_that_is_named_twice_counts_once() -> None:
    assert why(check(templates=[{"templateName": "check"}] * 2)) == ""


def test_a_missing_object_is_reported_before_one_that_does_not_fit() -> None:
    objects = surroundings(root="elsewhere")
    objects[SERVICE, "m-stable"]["spec"]["selector"] = {"app": "other"}
    missing = {key: value for key, value in objects.items() if key != (ANALYSIS_TEMPLATE, "check")}
    assert "AnalysisTemplate 'check' not found" in why(check(), objects=missing)
    assert 'has unmatch label "app" in rollout' in why(check(), objects=objects)
    objects[SERVICE, "m-stable"]["spec"]["selector"] = {}
    assert "has no rules using service m-stable backend" in why(check(), objects=objects)
