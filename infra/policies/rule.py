"""What a rule is: a sentence that must hold of the resource graph, and how to find where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from infra.policies.graph import Graph, PlannedResource

Finding = tuple[PlannedResource, str]
"""A resource that breaks a rule, and what is wrong with it."""

Find = Callable[[Graph], Iterable[Finding]]


@dataclass(frozen=True)
class Violation:
    """A rule that a resource breaks.

    Attributes:
        rule: id of the rule.
        title: what must hold.
        resource: type and name of the resource.
        urn: of the resource.
        found: what is wrong with it.
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
    """One rule.

    Attributes:
        id: by which it is named in exemptions.
        title: what must hold.
        checkov: the checks of checkov that ask the same.
        find: the resources that break it.
    """

    id: str
    title: str
    checkov: tuple[str, ...]
    find: Find

    def violations(self, graph: Graph) -> Iterator[Violation]:
        """Where the graph breaks the rule and has no exemption."""
        for resource, found in self.find(graph):
            if graph.exemption(self.id, resource) is None:
                yield Violation(self.id, self.title, f"{resource.type} {resource.name}", resource.urn, found)


def rule(id_: str, title: str, *checkov: str) -> Callable[[Find], Rule]:
    """Makes a rule of the function that finds where it is broken."""
    return lambda find: Rule(id_, title, checkov, find)
