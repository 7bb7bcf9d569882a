"""Rules for the resource graph of every stack.

Each rule has one definition and three uses: tests over the recorded graphs, an engine before it applies a plan,
 and a Pulumi policy pack (`pulumi preview --policy-pack infra/policies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from infra.policies import ecr, iam, kms, network, oidc, pods, s3, stack
from infra.policies import job_rules as jobs
from infra.policies import release_rules as releases
from infra.policies.resource_graph import UNKNOWN, Graph, PlannedResource
from infra.policies.rule import Rule, Violation


def _rules(module: ModuleType) -> list[Rule]:
    return [value for value in vars(module).values() if isinstance(value, Rule)]


_MODULES = (s3, ecr, kms, iam, oidc, pods, jobs, releases, network, stack)

RULES: tuple[Rule, ...] = tuple(found for module in _MODULES for found in _rules(module))
"""Every rule."""


def violations(resources: Sequence[PlannedResource], rules: Sequence[Rule] = RULES) -> list[Violation]:
    """Return the violations of rules that are not exempt.

    Args:
        resources: all resources and components of a stack.
        rules: the rules to check.
    """
    graph = Graph(resources)
    return [violation for one in rules for violation in one.violations(graph)]


__all__ = ["RULES", "UNKNOWN", "PlannedResource", "Rule", "Violation", "violations"]
