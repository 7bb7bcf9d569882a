"""Rules about how a release takes the traffic over."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.graph import UNKNOWN, Graph, at, elements
from infra.policies.rule import Finding, rule
from infra.policies.workloads import ANALYSIS_TEMPLATE, ROLLOUT


@rule("k8s-release-tried", "A release is tried on some of the traffic, and asked each time before it gets more")
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
                    yield rollout, f"goes on from {weight} % without being asked"
                weight = 0 if at(step, "setWeight") is UNKNOWN else int(at(step, "setWeight"))
            for asked in elements(at(step, "analysis", "templates")):
                name, weight = at(asked, "templateName"), 0
                if name is not UNKNOWN and not templates & {name, UNKNOWN}:
                    yield rollout, f"is asked by {name}, which is not there"
        if weight:
            yield rollout, f"goes on from {weight} % without being asked"
        if not any(at(step, "setWeight") for step in elements(steps)):
            yield rollout, "gets all of the traffic at once"
