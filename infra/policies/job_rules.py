"""Rules for Kubernetes jobs."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.pod_owners import CRON_JOB, JOB, analysis_jobs
from infra.policies.resource_graph import UNKNOWN, Graph, PlannedResource, at, holds
from infra.policies.rule import Finding, rule


@rule("k8s-job-ends", "A job has limits on retries, run time and retention")
def job_ends(graph: Graph) -> Iterator[Finding]:
    for resource, spec in _specs(graph):
        for bound in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
            if at(spec, bound) is None:
                yield resource, f"has no {bound}"


@rule("k8s-job-alone", "A CronJob does not overlap with itself")
def job_alone(graph: Graph) -> Iterator[Finding]:
    for resource in graph.of_type(CRON_JOB):
        if not holds(resource.at("spec", "concurrencyPolicy"), "Forbid"):
            yield resource, "may overlap with itself"


def _specs(graph: Graph) -> Iterator[tuple[PlannedResource, object]]:
    paths: dict[str, tuple[str, ...]] = {CRON_JOB: ("spec", "jobTemplate", "spec"), JOB: ("spec",)}
    for type_, path in paths.items():
        for resource in graph.of_type(type_):
            spec = resource.at(*path)
            if spec is not UNKNOWN:
                yield resource, spec
    yield from analysis_jobs(graph)
