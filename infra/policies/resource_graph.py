"""The resource graph that rules check: recorded, planned or read from state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infra.policies.exemptions import PROPERTY

PROVIDERS = ("aws", "kubernetes")
"""Packages whose resources exist outside Pulumi."""

_PULUMI_UNKNOWNS = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
"""Placeholders for unknown values in Pulumi's wire format, one per type."""


class Unknown:
    """Type of the singleton `UNKNOWN`; copying it returns the same object."""

    def __repr__(self) -> str:
        return "[unknown]"

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, memo: object) -> Unknown:
        return self


UNKNOWN = Unknown()
"""A value that is unknown until `up`. It breaks no rule."""


@dataclass(frozen=True)
class PlannedResource:
    """A resource or component of the graph.

    Attributes:
        type: the type token (`aws:s3/bucket:Bucket`).
        name: the logical name.
        urn: the URN.
        props: the outputs, as Pulumi gives them to stack policies: in the wire format (camelCase names), with secrets
            unwrapped. In a preview they are the inputs, the defaults, and placeholders for what the provider will
            compute. A component has the outputs that it registers. A value that is not JSON counts as unknown, as do
            Pulumi's placeholders.
        protect: whether Pulumi refuses to delete the resource.
        parent: URN of the parent, "" if there is none.
    """

    type: str
    name: str
    urn: str
    props: Mapping[str, Any]
    protect: bool = False
    parent: str = ""

    @property
    def package(self) -> str:
        """The package of the type: `aws`, `kubernetes`, `pulumi`, or a component's package."""
        return self.type.partition(":")[0]

    @cached_property
    def plain(self) -> Mapping[str, Any]:
        """The outputs, with `UNKNOWN` for unknown values."""
        result: Mapping[str, Any] = plain(self.props)
        return result

    @property
    def exemptions(self) -> Mapping[str, Any]:
        """The exemptions that a component registers, rule id → reason; {} for a resource."""
        declared = None if self.package in (*PROVIDERS, "pulumi") else self.at(PROPERTY)
        return declared if isinstance(declared, Mapping) else {}

    def at(self, *path: str | int) -> Any:
        """Return the output at a path; None if it is missing, `UNKNOWN` if it is unknown."""
        return at(self.plain, *path)


def plain(value: Any) -> Any:
    """Return a value with `UNKNOWN` for every placeholder, and whole numbers as int."""
    if isinstance(value, float) and value.is_integer():
        return int(value)  # every number is a float in the wire format
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return UNKNOWN if value in _PULUMI_UNKNOWNS else value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in _items(value)}
    if isinstance(value, Sequence):
        return [plain(item) for item in _elements(value)]
    return UNKNOWN


def _items(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the items of a mapping. The policy SDK's mappings raise for unknown values."""
    for key in value:
        try:
            yield key, value[key]
        except Exception:  # the policy SDK defines the class; rules do not depend on it
            yield key, UNKNOWN


def _elements(value: Sequence[Any]) -> Iterator[Any]:
    for index in range(len(value)):
        try:
            yield value[index]
        except Exception:  # as above
            yield UNKNOWN


def at(value: Any, *path: str | int) -> Any:
    """Return the value at a path of a plain value; None if it is missing, `UNKNOWN` if it is unknown."""
    for step in path:
        if value is UNKNOWN:
            return UNKNOWN
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def elements(value: Any) -> list[Any]:
    """Return the known elements of a list; [] if the value is not a list."""
    return [item for item in value if item is not UNKNOWN] if isinstance(value, list) else []


def holds(value: Any, *accepted: Any) -> bool:
    """Return True if a value is accepted or unknown."""
    # True equals 1, so compare types, too.
    return value is UNKNOWN or any(
        value == item and isinstance(value, bool) is isinstance(item, bool) for item in accepted
    )


class Graph:
    """All resources of a stack, with look-ups by type, parent and name.

    Args:
        resources: in any order; Pulumi gives stack policies another order each time.
    """

    def __init__(self, resources: Iterable[PlannedResource]) -> None:
        self.resources = tuple(sorted(resources, key=lambda resource: resource.urn))
        self.by_urn = {resource.urn: resource for resource in self.resources}
        self._by_type: dict[str, list[PlannedResource]] = defaultdict(list)
        for resource in self.resources:
            self._by_type[resource.type].append(resource)

    def of_type(self, *types: str) -> list[PlannedResource]:
        """Return the resources of the given types."""
        return [resource for type_ in types for resource in self._by_type[type_]]

    def exemption(self, rule: str, resource: PlannedResource) -> str | None:
        """Return the reason why a component above a resource exempts it from a rule; None if none does."""
        current: PlannedResource | None = resource
        seen: set[str] = set()
        while current is not None and current.urn not in seen:
            seen.add(current.urn)
            if rule in current.exemptions:
                return str(current.exemptions[rule])
            current = self.by_urn.get(current.parent)
        return None

    def outermost(self, resource: PlannedResource) -> PlannedResource:
        """Return the outermost component that contains a resource, or the resource itself."""
        seen: set[str] = set()
        while (above := self.by_urn.get(resource.parent)) is not None and above.package != "pulumi":
            if above.urn in seen:
                break
            seen.add(above.urn)
            resource = above
        return resource

    @cached_property
    def disposable(self) -> bool:
        """True if all tagged resources are tagged as disposable."""
        values = {resource.at("tags", "disposable") for resource in self.resources} - {None, UNKNOWN}
        return values == {"true"}

    def setting(self, bucket: PlannedResource, type_: str) -> list[PlannedResource]:
        """Return the settings resources of a bucket: by bucket name, or by parent while a name is unknown."""
        name = bucket.at("bucket")
        found = []
        for resource in self.of_type(type_):
            target = resource.at("bucket")
            by_parent = target is UNKNOWN or name is UNKNOWN
            if resource.parent == bucket.parent if by_parent else target == name:
                found.append(resource)
        return found
