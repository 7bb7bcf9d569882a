"""Rules for a resource graph, and their violations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from infra.policies.resource_graph import Graph, PlannedResource

Finding = tuple[PlannedResource, str]
"""A resource that breaks a rule, and what is wrong with it."""

Find = Callable[[Graph], Iterable[Finding]]


@dataclass(frozen=True)
class Violation:
    """A resource that breaks a rule.

    Attributes:
        rule: the rule's id.
        title: the rule's title.
        resource: type and name of the resource.
        urn: the resource's URN.
        found: the problem, as a predicate of the resource (`has no policy`).
    """

    rule: str
    title: str
    resource: str
    urn: str
    found: str

    def __str__(self) -> str:
        return f"{self.resource}: {self.found} ({self.rule}: {self.title})"


@dataclass(frozen=True)
class Rule:
    """A rule that a resource graph must follow.

    Attributes:
        id: the rule's id, which exemptions name.
        title: the claim that must hold.
        checkov: ids of equivalent Checkov checks.
        find: finds the resources that break the rule.
    """

    id: str
    title: str
    checkov: tuple[str, ...]
    find: Find

    def violations(self, graph: Graph) -> Iterator[Violation]:
        """Yield the violations that no exemption covers."""
        for resource, found in self.find(graph):
            if graph.exemption(self.id, resource) is None:
                yield Violation(self.id, self.title, f"{resource.type} {resource.name}", resource.urn, found)


def rule(id_: str, title: str, *checkov: str) -> Callable[[Find], Rule]:
    """Turn a function that finds violations into a rule."""
    return lambda find: Rule(id_, title, checkov, find)
