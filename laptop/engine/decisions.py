"""Decisions without effects: the step that a registration requires, and the order of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from laptop.engine.paths import covers, parse_path
from laptop.engine.provider import Diff
from laptop.engine.resource_steps import StepKind
from laptop.engine.resources import ResourceState
from laptop.engine.urns import Alias, Urn
from laptop.engine.values import Properties
from pipelines.declarations.errors import MlopsError


@dataclass(frozen=True)
class Options:
    """Resource options of a registration, as in Pulumi.

    Attributes:
        delete_before_replace: None leaves the choice to the provider.
        deleted_with: URN of a resource whose deletion deletes this one, or "".
        replace_with: URNs of resources whose replacement replaces this one, sorted.
        import_id: id of an existing resource to take over, or "".
    """

    protect: bool = False
    retain_on_delete: bool = False
    delete_before_replace: bool | None = None
    ignore_changes: tuple[str, ...] = ()
    additional_secret_outputs: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    deleted_with: str = ""
    replace_with: tuple[str, ...] = ()
    import_id: str = ""


@dataclass(frozen=True)
class Registration:
    """One resource as the program registers it.

    Attributes:
        custom: False for a component.
        parent: URN, or "".
        inputs: resolved; some are `UNKNOWN` in a preview.
        dependencies: URNs, sorted.
        property_dependencies: input name → URNs, sorted.
        provider: reference `urn::id` of an explicit provider, or "".
        aliases: earlier names.
    """

    urn: str
    custom: bool
    inputs: Properties
    parent: str = ""
    dependencies: tuple[str, ...] = ()
    property_dependencies: tuple[tuple[str, tuple[str, ...]], ...] = ()
    provider: str = ""
    options: Options = field(default_factory=Options)
    aliases: tuple[Alias, ...] = ()

    @property
    def type(self) -> str:
        return Urn.parse(self.urn).type

    @property
    def name(self) -> str:
        return Urn.parse(self.urn).name

    def needs(self) -> frozenset[str]:
        """Return the URNs that must succeed before this registration can."""
        by_property = {urn for _, urns in self.property_dependencies for urn in urns}
        others = {self.parent, self.provider.rpartition("::")[0], self.options.deleted_with}
        return frozenset({*self.dependencies, *by_property, *self.options.replace_with, *others} - {"", self.urn})


@dataclass(frozen=True)
class Decision:
    """The step that a registration requires.

    Attributes:
        changed: paths that differ.
        replaces: changed paths that force a replacement.
        delete_first: delete the old copy before creating the new one.
    """

    kind: StepKind
    changed: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    delete_first: bool = False


def decide(
    old: ResourceState | None, options: Options, diff: Diff | None, *, unfinished_update: bool = False
) -> Decision:
    """Choose the step that takes `old` to the registered resource.

    Args:
        old: the resource in the state, or None.
        diff: the provider's comparison; None if there is nothing to compare.
        unfinished_update: an earlier update of it may not have finished.

    Raises:
        MlopsError: the resource is protected and would be replaced.
    """
    if old is None or old.external:
        return Decision(StepKind.CREATE)
    changed, replaces = (diff.changed, diff.replace) if diff is not None else ((), ())
    if diff is not None and replaces:
        if old.protect and options.protect:
            raise MlopsError(
                f"{old.urn} is protected and would be replaced because of a change of {_listed(replaces)}",
                fix="undo the change, or set protect=False.",
            )
        if options.import_id:
            raise MlopsError(
                f"{old.urn} was imported and would be replaced because of a change of {_listed(replaces)}",
                fix="remove `import_` from its options, or undo the change.",
            )
        first = options.delete_before_replace
        return Decision(StepKind.REPLACE, changed, replaces, diff.delete_before_replace if first is None else first)
    if changed or unfinished_update:
        return Decision(StepKind.UPDATE, changed)
    return Decision(StepKind.SAME)


def _listed(paths: Iterable[str]) -> str:
    return ", ".join(f"`{path}`" for path in paths)


def is_import(old: ResourceState | None, options: Options) -> bool:
    """Return True if the program takes over an existing resource that the stack does not manage yet."""
    return bool(options.import_id) and (old is None or old.external or (old.import_id or old.id) != options.import_id)


def with_forced(diff: Diff, replace_on_changes: Iterable[str]) -> Diff:
    """Return a difference in which changes at the `replaceOnChanges` paths, or below them, force a replacement."""
    patterns = [parse_path(text) for text in replace_on_changes]
    forced = [text for text in diff.changed if any(covers(pattern, parse_path(text)) for pattern in patterns)]
    return replace(diff, replace=tuple(dict.fromkeys([*diff.replace, *forced]))) if forced else diff


def refuse_deletion(known: ResourceState) -> None:
    """Raise MlopsError if a resource is protected and would be deleted."""
    if known.protect:
        raise MlopsError(
            f"{known.urn} is protected and would be deleted",
            fix="keep it in the program; or set protect=False, apply that, and then remove it.",
        )


def dependents_to_replace(
    urn: str,
    resources: Mapping[str, ResourceState],
    must_follow: Callable[[ResourceState, frozenset[str]], bool],
) -> list[ResourceState]:
    """Return the resources to delete before `urn`, dependents first, without `urn` itself.

    As in Pulumi, a dependent is deleted if one of its properties comes from a deleted resource and a change of that
    property would replace it, or if it is deleted with that resource. A plain `depends_on` does not delete the
    dependent.

    Args:
        must_follow: returns True if a change of the given top-level inputs would replace the given resource.
    """
    going = {urn}
    found: list[ResourceState] = []
    for known in in_creation_order(resources):
        if known.urn in going or not known.custom or known.external:
            continue
        affected = frozenset(
            key for key, urns in known.property_dependencies if any(needed in going for needed in urns)
        )
        if known.deleted_with in going or (affected and must_follow(known, affected)):
            going.add(known.urn)
            found.append(known)
    return found[::-1]


def in_creation_order(resources: Mapping[str, ResourceState]) -> list[ResourceState]:
    """Sort resources so each comes after its dependencies. A cycle, possible only in a damaged state, is cut."""
    ordered: dict[str, ResourceState] = {}
    visited: set[str] = set()
    for start in resources:
        stack = [(start, False)]
        while stack:
            urn, leaving = stack.pop()
            if leaving:
                ordered[urn] = resources[urn]
            elif urn in resources and urn not in visited:
                visited.add(urn)
                stack.append((urn, True))
                stack.extend((needed, False) for needed in sorted(resources[urn].needs(), reverse=True))
    return list(ordered.values())


def deletion_waits(going: Iterable[ResourceState]) -> dict[tuple[str, str], frozenset[tuple[str, str]]]:
    """Map each resource to delete (by URN and id) to those that must be deleted before it."""
    going = list(going)
    by_urn: dict[str, list[tuple[str, str]]] = {}
    for known in going:
        by_urn.setdefault(known.urn, []).append((known.urn, known.id))
    waits: dict[tuple[str, str], set[tuple[str, str]]] = {(known.urn, known.id): set() for known in going}
    for known in going:
        for needed in known.needs():
            for other in by_urn.get(needed, ()):
                waits[other].add((known.urn, known.id))
    return {key: frozenset(before) for key, before in waits.items()}


def without_unknowns(inputs: dict[str, Any], unknown: Iterable[str], old: dict[str, Any]) -> dict[str, Any]:
    """Replace unknown inputs by their old value, or drop them, so a provider can check the rest."""
    unknown = set(unknown)
    known = {key: value for key, value in inputs.items() if key not in unknown}
    return {**known, **{key: old[key] for key in unknown if key in old}}
