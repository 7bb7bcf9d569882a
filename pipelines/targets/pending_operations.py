"""Resolve the operations that a killed Pulumi process began and did not finish. Pure functions.

A resource may exist although the state does not contain it, because Pulumi notes an operation before it calls AWS or
Kubernetes, and the result after it. `pulumi up` then creates it again, which fails if the name is taken. `pulumi
refresh --import-pending-creates` forgets such resources (seen with Pulumi 3.274), and `pulumi stack import` drops all
notes. So the resources are added to the state under the id that they would have, and a refresh of only these resources
removes those that do not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
Deployment = dict[str, Any]
"""The output of `pulumi stack export`."""

FindId = Callable[[str, Values], str | None]
"""Type and inputs of a resource → its import id; None if that does not follow from the inputs."""


@dataclass(frozen=True)
class Resolution:
    """What to do about unfinished operations.

    Attributes:
        adopt: URN → import id of resources that may have been created.
        refresh: URNs of resources in the state that may have changed or been deleted.
        unidentified: URN → description of resources that may have been created, but have no known id.
    """

    adopt: Mapping[str, str]
    refresh: tuple[str, ...]
    unidentified: Mapping[str, str]

    @property
    def is_needed(self) -> bool:
        """True if an operation was interrupted."""
        return bool(self.adopt or self.refresh or self.unidentified)

    @property
    def targets(self) -> tuple[str, ...]:
        """URNs to refresh, without duplicates."""
        return tuple(dict.fromkeys((*self.adopt, *self.refresh)))


def plan_resolution(exported: Deployment, find_id: FindId) -> Resolution:
    """Plan how to resolve the unfinished operations of a stack.

    Args:
        exported: the exported stack.
        find_id: returns import ids.
    """
    known = {resource["urn"] for resource in _resources(exported)}
    adopt: dict[str, str] = {}
    unidentified: dict[str, str] = {}
    # A resolution that was interrupted leaves adopted resources that have not been read yet.
    refresh = [resource["urn"] for resource in _resources(exported) if _is_unread(resource)]
    for operation in exported["deployment"].get("pending_operations") or ():
        resource = operation["resource"]
        urn, kind, inputs = resource["urn"], resource["type"], resource.get("inputs") or {}
        if operation["type"] != "creating":
            refresh += [urn] if urn in known else []
        elif kind.startswith("pulumi:"):
            continue  # a provider exists in the Pulumi process only
        elif (found := find_id(kind, inputs)) is None:
            unidentified[urn] = describe_resource(urn, kind, inputs)
        elif not any(one["urn"] == urn and one.get("id") == found for one in _resources(exported)):
            adopt[urn] = found
        else:
            refresh.append(urn)
    return Resolution(adopt, tuple(dict.fromkeys(refresh)), unidentified)


def adopt_resources(exported: Deployment, adopt: Mapping[str, str]) -> Deployment:
    """Return an exported stack with resources added under their import ids, and without unfinished operations.

    If a resource was being replaced, the copy in the state becomes one to delete, as after a successful replacement.
    """
    deployment = exported["deployment"]
    began = {
        operation["resource"]["urn"]: operation["resource"]
        for operation in deployment.get("pending_operations") or ()
        if operation["type"] == "creating"
    }
    kept = [
        {**resource, "delete": True} if resource["urn"] in adopt and resource.get("custom") else resource
        for resource in _resources(exported)
    ]
    added = [
        {**{key: value for key, value in began[urn].items() if key != "outputs"}, "custom": True, "id": found}
        for urn, found in adopt.items()
    ]
    changed = {key: value for key, value in deployment.items() if key != "pending_operations"}
    return {**exported, "deployment": {**changed, "resources": [*kept, *added]}}


def ids_in(exported: Deployment) -> dict[str, str]:
    """Return URN → id of the resources of an exported stack."""
    return {one["urn"]: one["id"] for one in _resources(exported) if one.get("id") and not one.get("delete")}


def describe_resource(urn: str, kind: str, inputs: Values) -> str:
    """Return what identifies a resource for a person who looks for it."""
    told = {key: value for key, value in inputs.items() if isinstance(value, str) and key != "policy" and value}
    listed = ", ".join(f"{key}={value}" for key, value in sorted(told.items())) or "no names"
    return f"{kind} {urn.rpartition('::')[2]} ({listed})"


def _resources(exported: Deployment) -> list[dict[str, Any]]:
    return exported["deployment"].get("resources") or []


def _is_unread(resource: Values) -> bool:
    return bool(
        resource.get("custom")
        and resource.get("id")
        and not resource.get("outputs")
        and not resource["type"].startswith("pulumi:")
        and not resource.get("delete")
    )
