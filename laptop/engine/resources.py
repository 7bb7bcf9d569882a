"""What is known of the resources of a stack."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from laptop.engine.urns import STACK_TYPE, Urn
from laptop.engine.values import Properties


@dataclass(frozen=True)
class ResourceState:
    """One resource as it was left by the last step on it.

    Attributes:
        custom: False for components, which exist in the program only.
        id: the physical id; empty for components, and for what a preview would create.
        inputs: the checked inputs, with defaults and auto-names.
        outputs: what the provider returned, the inputs among it.
        parent: URN, or empty.
        dependencies: URNs, sorted.
        property_dependencies: input name → URNs, sorted.
        provider: the reference `urn::id` of an explicit provider, or empty.
        external: read by the program, not managed by it.
        recorded: why nothing stands for it at the target, or empty.
        secret_names: outputs that the program declared to be secret.
    """

    urn: str
    custom: bool = True
    id: str = ""
    inputs: Properties = field(default_factory=lambda: Properties({}))
    outputs: Properties = field(default_factory=lambda: Properties({}))
    parent: str = ""
    dependencies: tuple[str, ...] = ()
    property_dependencies: tuple[tuple[str, tuple[str, ...]], ...] = ()
    provider: str = ""
    protect: bool = False
    retain_on_delete: bool = False
    deleted_with: str = ""
    external: bool = False
    recorded: str = ""
    secret_names: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        return Urn.parse(self.urn).type

    @property
    def name(self) -> str:
        return Urn.parse(self.urn).name

    def needs(self) -> frozenset[str]:
        """The URNs that must exist as long as this resource does."""
        provider = {self.provider.rpartition("::")[0]} if self.provider else set()
        parent = {self.parent} if self.parent else set()
        by_property = {urn for _, urns in self.property_dependencies for urn in urns}
        return frozenset({*self.dependencies, *by_property, *provider, *parent} - {self.urn})

    def renamed(self, names: dict[str, str]) -> ResourceState:
        """The same resource with every URN that has a new name replaced by it."""
        if not (self.needs() | {self.urn, self.deleted_with}) & names.keys():
            return self
        urn_of_provider, _, id_of_provider = self.provider.rpartition("::")
        return replace(
            self,
            urn=names.get(self.urn, self.urn),
            parent=names.get(self.parent, self.parent),
            dependencies=tuple(sorted(names.get(urn, urn) for urn in self.dependencies)),
            property_dependencies=tuple(
                (key, tuple(sorted(names.get(urn, urn) for urn in urns))) for key, urns in self.property_dependencies
            ),
            provider=f"{names.get(urn_of_provider, urn_of_provider)}::{id_of_provider}" if self.provider else "",
            deleted_with=names.get(self.deleted_with, self.deleted_with),
        )


@dataclass(frozen=True)
class Pending:
    """A step that was begun, and is not known to have ended.

    Attributes:
        resource: for a create and an update with the inputs it was asked for; for a delete as it was.
    """

    kind: Literal["create", "update", "delete"]
    resource: ResourceState

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.resource.urn, self.resource.id if self.kind == "delete" else ""


@dataclass
class Contents:
    """What the file of a stack says.

    Attributes:
        incarnation: which emulated account the resources stand in; empty when that is not tracked.
        resources: by URN.
        doomed: replaced copies that are still to be deleted, by URN and id.
        pending: by kind, URN and (for deletes) id.
    """

    project: str
    stack: str
    incarnation: str = ""
    resources: dict[str, ResourceState] = field(default_factory=dict)
    doomed: dict[tuple[str, str], ResourceState] = field(default_factory=dict)
    pending: dict[tuple[str, str, str], Pending] = field(default_factory=dict)

    def copy(self) -> Contents:
        return replace(self, resources=dict(self.resources), doomed=dict(self.doomed), pending=dict(self.pending))

    def stack_resource(self) -> ResourceState | None:
        """The root resource, which holds the stack's outputs."""
        return next((known for known in self.resources.values() if known.type == STACK_TYPE), None)

    def rename(self, old: str, new: str) -> None:
        """Gives the resource `old` the URN `new`, and says so to all that name it. Nothing is touched."""
        names = {old: new}
        self.resources = {names.get(urn, urn): known.renamed(names) for urn, known in self.resources.items()}
        doomed = [known.renamed(names) for known in self.doomed.values()]
        self.doomed = {(known.urn, known.id): known for known in doomed}
        pending = [Pending(item.kind, item.resource.renamed(names)) for item in self.pending.values()]
        self.pending = {item.key: item for item in pending}
