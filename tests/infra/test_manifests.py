"""The Kubernetes manifests of the program, checked against the published schemas of the Kubernetes API."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest

from infra.components.namespace import POD_SECURITY_VERSION
from tests.infra.recording import Recording

CUSTOM = {"Rollout", "AnalysisTemplate"}
"""Custom resources of Argo Rollouts, which the Kubernetes API does not define. Their pods are checked."""


def manifests(graph: Recording) -> list[dict[str, Any]]:
    """Return the manifests of a graph, with whole numbers as integers, as Pulumi sends them."""
    known = [resource.plain for resource in graph.resources if resource.package == "kubernetes"]
    found: list[dict[str, Any]] = json.loads(json.dumps(known), parse_float=_number)
    return found


def _number(text: str) -> int | float:
    return int(float(text)) if float(text).is_integer() else float(text)


def jobs_of(template: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Jobs that an AnalysisTemplate creates."""
    providers = [metric["provider"] for metric in template["spec"]["metrics"]]
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {**provider["job"]["metadata"], "name": template["metadata"]["name"]},
            "spec": provider["job"]["spec"],
        }
        for provider in providers
    ]


def pods_of(rollout: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Pod that a Rollout creates."""
    template = rollout["spec"]["template"]
    metadata = {**template["metadata"], "name": rollout["metadata"]["name"]}
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}]


def test_every_core_manifest_is_valid(graph: Recording) -> None:
    checked = [manifest for manifest in manifests(graph) if manifest["kind"] not in CUSTOM]
    assert {"Namespace", "NetworkPolicy", "Service", "ServiceAccount", "Ingress"} <= {one["kind"] for one in checked}
    for manifest in checked:
        kubernetes_validate.validate(manifest, POD_SECURITY_VERSION, strict=True)


def test_the_pods_and_jobs_of_custom_resources_are_valid(graph: Recording) -> None:
    created = []
    for manifest in manifests(graph):
        if manifest["kind"] == "Rollout":
            created += pods_of(manifest)
        if manifest["kind"] == "AnalysisTemplate":
            created += jobs_of(manifest)
    assert {one["kind"] for one in created} == {"Pod", "Job"}
    for manifest in created:
        kubernetes_validate.validate(manifest, POD_SECURITY_VERSION, strict=True)


def test_a_misspelled_field_is_refused(graph: Recording) -> None:
    (service, *_) = [manifest for manifest in manifests(graph) if manifest["kind"] == "Service"]
    service["spec"]["selecter"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="selecter"):
        kubernetes_validate.validate(service, POD_SECURITY_VERSION, strict=True)
