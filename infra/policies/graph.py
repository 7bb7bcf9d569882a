"""The resource graph as the rules see it, the same whether it was recorded, planned or read back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from infra.policies.exemptions import PROPERTY

PROVIDERS = ("aws", "kubernetes")
"""The packages whose resources exist outside of Pulumi."""

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
"""What stands on Pulumi's wire for a value of each kind that a preview does not know."""


class Unknown:
    """Type of `UNKNOWN`, whose copies are the same object."""

    def __repr__(self) -> str:
        return "[unknown]"

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, memo: object) -> Unknown:
        return self


UNKNOWN = Unknown()
"""A value that only an `up` will know. It breaks no rule."""


@dataclass(frozen=True)
class PlannedResource:
    """A resource of the graph.

    Attributes:
        type: its type token (`aws:s3/bucket:Bucket`).
        name: its logical name.
        urn: its URN.
        props: its inputs, in the names of Pulumi's wire (camelCase), secrets unwrapped. Anything that is no JSON value
            counts as not known yet, as do Pulumi's own marks for it.
        protect: whether Pulumi refuses to delete it.
        parent: URN of its parent, "" for none.
        exemptions: rule → why this resource does not keep it, besides what the components above it say.
    """

    type: str
    name: str
    urn: str
    props: Mapping[str, Any]
    protect: bool = False
    parent: str = ""
    exemptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """The package of its type: `aws`, `kubernetes`, `pulumi`, or that of a component."""
        return self.type.partition(":")[0]

    @cached_property
    def plain(self) -> Mapping[str, Any]:
        """Its inputs, with `UNKNOWN` for what is not known yet."""
        result: Mapping[str, Any] = plain(self.props)
        return result

    def at(self, *path: str | int) -> Any:
        """The input at a path; None when it is not there, `UNKNOWN` when that is not known yet."""
        return at(self.plain, *path)


def plain(value: Any) -> Any:
    """A value with `UNKNOWN` in place of whatever marks what is not known yet."""
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
    """The policy SDK's mappings raise where a value is not known yet."""
    for key in value:
        try:
            yield key, value[key]
        except Exception:  # its exception's class is the SDK's, which the rules do not need otherwise
            yield key, UNKNOWN


def _elements(value: Sequence[Any]) -> Iterator[Any]:
    for index in range(len(value)):
        try:
            yield value[index]
        except Exception:  # as above
            yield UNKNOWN


def at(value: Any, *path: str | int) -> Any:
    """What stands at a path of a plain value; None when nothing does, `UNKNOWN` when that is not known yet."""
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
    """The elements of a list that are known; none of what is no list."""
    return [item for item in value if item is not UNKNOWN] if isinstance(value, list) else []


def holds(value: Any, *accepted: Any) -> bool:
    """Whether a value is one of those accepted, or cannot be known yet."""
    # On the wire every number is a float; `True` is no number.
    return value is UNKNOWN or any(
        value == item and isinstance(value, bool) is isinstance(item, bool) for item in accepted
    )


class Graph:
    """All resources of a stack, found by type, kinship and name.

    Args:
        resources: in any order.
    """

    def __init__(self, resources: Iterable[PlannedResource]) -> None:
        self.resources = tuple(resources)
        self.by_urn = {resource.urn: resource for resource in self.resources}
        self._by_type: dict[str, list[PlannedResource]] = defaultdict(list)
        for resource in self.resources:
            self._by_type[resource.type].append(resource)

    def of_type(self, *types: str) -> list[PlannedResource]:
        """The resources of some types."""
        return [resource for type_ in types for resource in self._by_type[type_]]

    def exemption(self, rule: str, resource: PlannedResource) -> str | None:
        """Why a resource does not keep a rule, said on it or on a component above it; None when nobody says so."""
        current: PlannedResource | None = resource
        seen: set[str] = set()
        while current is not None and current.urn not in seen:
            seen.add(current.urn)
            said = {**(current.at(PROPERTY) or {}), **current.exemptions}
            if rule in said:
                return str(said[rule])
            current = self.by_urn.get(current.parent)
        return None

    @cached_property
    def disposable(self) -> bool:
        """Whether the environment says of itself, in the tags of its resources, that it may be deleted."""
        said = {resource.at("tags", "disposable") for resource in self.resources} - {None, UNKNOWN}
        return said == {"true"}

    def setting(self, bucket: PlannedResource, type_: str) -> list[PlannedResource]:
        """The resources of a type that set something of a bucket: by its name, or beside it while that is not known."""
        name = bucket.at("bucket")
        found = []
        for resource in self.of_type(type_):
            target = resource.at("bucket")
            unsure = target is UNKNOWN or name is UNKNOWN
            if resource.parent == bucket.parent if unsure else target == name:
                found.append(resource)
        return found
