"""Recorded state of the resources of a stack."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from laptop.engine.urns import STACK_TYPE, Urn
from laptop.engine.values import Properties


@dataclass(frozen=True)
class ResourceState:
    """One resource as its last step left it.

    Attributes:
        custom: False for components, which exist only in the program.
        id: physical id; "" for components and for planned resources.
        inputs: checked inputs, with defaults and auto-names.
        outputs: what the provider returned, including the inputs.
        parent: URN, or "".
        dependencies: URNs, sorted.
        property_dependencies: input name → URNs, sorted.
        provider: reference `urn::id` of an explicit provider, or "".
        external: read by the program, not managed by it.
        recorded: reason why the resource exists in the state only, or "".
        secret_names: outputs that the program declared secret.
        replace_on_changes: paths whose change replaces the resource.
        deleted_with: URN of a resource whose deletion deletes this one, or "".
        replace_with: URNs, sorted, of resources whose replacement replaces this one.
        import_id: id under which the program imported the resource, or "".
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
    external: bool = False
    recorded: str = ""
    secret_names: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    deleted_with: str = ""
    replace_with: tuple[str, ...] = ()
    import_id: str = ""

    @property
    def type(self) -> str:
        return Urn.parse(self.urn).type

    @property
    def name(self) -> str:
        return Urn.parse(self.urn).name

    def needs(self) -> frozenset[str]:
        """Return the URNs that must exist as long as this resource does."""
        by_property = {urn for _, urns in self.property_dependencies for urn in urns}
        others = {self.provider.rpartition("::")[0], self.parent, self.deleted_with}
        return frozenset({*self.dependencies, *by_property, *self.replace_with, *others} - {"", self.urn})

    def without(self, gone: frozenset[str]) -> ResourceState:
        """Return the resource without dependencies on resources that no longer exist.

        Args:
            gone: URNs.
        """
        if not gone & self.needs():
            return self
        by_property = [(key, tuple(urn for urn in urns if urn not in gone)) for key, urns in self.property_dependencies]
        return replace(
            self,
            dependencies=tuple(urn for urn in self.dependencies if urn not in gone),
            property_dependencies=tuple((key, urns) for key, urns in by_property if urns),
            deleted_with="" if self.deleted_with in gone else self.deleted_with,
            replace_with=tuple(urn for urn in self.replace_with if urn not in gone),
        )

    def renamed(self, old: str, new: str) -> ResourceState:
        """Return the resource with another URN in place of `old`, its own or one that it refers to."""

        def each(urns: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(sorted(new if urn == old else urn for urn in urns)) if old in urns else urns

        urn, _, id_ = self.provider.rpartition("::")
        return replace(
            self,
            urn=new if self.urn == old else self.urn,
            parent=new if self.parent == old else self.parent,
            dependencies=each(self.dependencies),
            property_dependencies=tuple((key, each(urns)) for key, urns in self.property_dependencies),
            provider=f"{new}::{id_}" if urn == old else self.provider,
            deleted_with=new if self.deleted_with == old else self.deleted_with,
            replace_with=each(self.replace_with),
        )


@dataclass(frozen=True)
class Pending:
    """A step that began and is not known to have ended.

    Attributes:
        resource: with the new inputs for a create or an update; as it was for a delete.
    """

    kind: Literal["create", "update", "delete"]
    resource: ResourceState

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.resource.urn, self.resource.id if self.kind == "delete" else ""


@dataclass
class Contents:
    """Contents of a stack's state file.

    Attributes:
        incarnation: id of the running account that holds the resources; "" if not tracked.
        resources: by URN.
        doomed: replaced copies that still have to be deleted, by URN and id.
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
        """Return the root resource, which holds the stack's outputs."""
        return next((known for known in self.resources.values() if known.type == STACK_TYPE), None)
