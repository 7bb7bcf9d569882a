"""Rules for rollouts."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.pod_owners import ANALYSIS_TEMPLATE, ROLLOUT
from infra.policies.resource_graph import UNKNOWN, Graph, at, elements
from infra.policies.rule import Finding, rule


@rule("k8s-release-tried", "A rollout shifts traffic in steps, and analyses the canary after each")
def release_tried(graph: Graph) -> Iterator[Finding]:
    templates = {template.at("metadata", "name") for template in graph.of_type(ANALYSIS_TEMPLATE)}
    for rollout in graph.of_type(ROLLOUT):
        steps = rollout.at("spec", "strategy", "canary", "steps")
        if steps is UNKNOWN or rollout.at("spec", "strategy") is UNKNOWN:
            continue
        weight = 0
        for step in elements(steps):
            if at(step, "setWeight") is not None:
                if weight:
                    yield rollout, f"continues after {weight} % of traffic without an analysis"
                weight = 0 if at(step, "setWeight") is UNKNOWN else int(at(step, "setWeight"))
            for template in elements(at(step, "analysis", "templates")):
                name, weight = at(template, "templateName"), 0
                if name is not UNKNOWN and not templates & {name, UNKNOWN}:
                    yield rollout, f"refers to the AnalysisTemplate {name}, which does not exist"
        if weight:
            yield rollout, f"continues after {weight} % of traffic without an analysis"
        if not any(at(step, "setWeight") for step in elements(steps)):
            yield rollout, "shifts all traffic at once"
