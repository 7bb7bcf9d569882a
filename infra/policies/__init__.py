"""The rules that the resource graph of every environment keeps.

One definition each, judged in three places: by the tests over the recorded graph of every environment, by an engine
before it applies a plan, and as a Pulumi policy pack (`pulumi preview --policy-pack infra/policies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from infra.policies import ecr, iam, jobs, kms, network, oidc, pods, releases, s3, stack
from infra.policies.exemptions import exemptions
from infra.policies.graph import UNKNOWN, Graph, PlannedResource
from infra.policies.rule import Rule, Violation


def _rules(module: ModuleType) -> list[Rule]:
    return [value for value in vars(module).values() if isinstance(value, Rule)]


_MODULES = (s3, ecr, kms, iam, oidc, pods, jobs, releases, network, stack)

RULES: tuple[Rule, ...] = tuple(found for module in _MODULES for found in _rules(module))
"""Every rule."""


def violations(resources: Sequence[PlannedResource], rules: Sequence[Rule] = RULES) -> list[Violation]:
    """Where the graph breaks the rules, exemptions taken into account.

    Args:
        resources: all resources of a stack, components among them.
        rules: those to judge by.
    """
    graph = Graph(resources)
    return [violation for one in rules for violation in one.violations(graph)]


__all__ = ["RULES", "UNKNOWN", "PlannedResource", "Rule", "Violation", "exemptions", "violations"]
