"""The pods of the graph, found in the resources that create them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.policies.resource_graph import UNKNOWN, Graph, PlannedResource, at, elements

CRON_JOB = "kubernetes:batch/v1:CronJob"
JOB = "kubernetes:batch/v1:Job"
ROLLOUT = "kubernetes:argoproj.io/v1alpha1:Rollout"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"

_TEMPLATES: dict[str, tuple[str, ...]] = {
    CRON_JOB: ("spec", "jobTemplate", "spec", "template"),
    JOB: ("spec", "template"),
    ROLLOUT: ("spec", "template"),
    DEPLOYMENT: ("spec", "template"),
    STATEFUL_SET: ("spec", "template"),
    "kubernetes:apps/v1:DaemonSet": ("spec", "template"),
    "kubernetes:core/v1:Pod": (),
}

ANALYSIS_TEMPLATE = "kubernetes:argoproj.io/v1alpha1:AnalysisTemplate"

LONG_RUNNING = (ROLLOUT, DEPLOYMENT, STATEFUL_SET)
"""Types whose pods run until they are stopped."""


@dataclass(frozen=True)
class PodOwner:
    """A resource that creates pods.

    Attributes:
        resource: the resource.
        template: the pod template: `metadata` and `spec`.
    """

    resource: PlannedResource
    template: Any

    @property
    def labels(self) -> dict[str, Any]:
        """The labels of the pods."""
        found = at(self.template, "metadata", "labels")
        return found if isinstance(found, dict) else {}

    def pod(self, *path: str | int) -> Any:
        """Return the value at a path of the pod spec."""
        return at(self.template, "spec", *path)

    @property
    def containers(self) -> list[Any]:
        """The containers, including init containers."""
        return elements(self.pod("containers")) + elements(self.pod("initContainers"))

    def selected_by(self, selector: Any) -> bool:
        """Return True if a label selector matches the pods."""
        wanted = at(selector, "matchLabels") or {}
        if wanted is UNKNOWN:
            return True
        return all(value is UNKNOWN or self.labels.get(key) in (value, UNKNOWN) for key, value in wanted.items())


def pod_owners(graph: Graph, *types: str) -> Iterator[PodOwner]:
    """Yield the resources that create pods, of the given types or of all."""
    for type_ in types or (*_TEMPLATES, ANALYSIS_TEMPLATE):
        if type_ == ANALYSIS_TEMPLATE:
            for resource, spec in analysis_jobs(graph):
                yield PodOwner(resource, at(spec, "template"))
            continue
        for resource in graph.of_type(type_):
            path = _TEMPLATES[type_]
            template = resource.at(*path) if path else resource.plain
            if template is not UNKNOWN:
                yield PodOwner(resource, template)


def analysis_jobs(graph: Graph) -> Iterator[tuple[PlannedResource, Any]]:
    """Yield the job specs of AnalysisTemplates, with their templates."""
    for resource in graph.of_type(ANALYSIS_TEMPLATE):
        for metric in elements(resource.at("spec", "metrics")):
            spec = at(metric, "provider", "job", "spec")
            if spec is not None and spec is not UNKNOWN:
                yield resource, spec
