"""Decisions: which step a registration asks for, what must go before what. No effects here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from laptop.engine.paths import covers, parse_path
from laptop.engine.provider import Diff
from laptop.engine.resources import ResourceState
from laptop.engine.steps import Kind
from laptop.engine.urns import AliasSpec, Urn
from laptop.engine.values import Properties
from pipelines.declarations.errors import MlopsError


@dataclass(frozen=True)
class Options:
    """What the program asks for beside the inputs; each as in Pulumi's resource options.

    Attributes:
        delete_before_replace: None leaves it to the provider.
        timeouts: create, update, delete → a duration such as `5m`. Kept for the policies; the local target
            has nothing to wait for.
    """

    protect: bool = False
    retain_on_delete: bool = False
    delete_before_replace: bool | None = None
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    replace_with: tuple[str, ...] = ()
    additional_secret_outputs: tuple[str, ...] = ()
    import_id: str = ""
    deleted_with: str = ""
    timeouts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Registration:
    """One resource as the program registers it.

    Attributes:
        custom: False for a component.
        parent: URN, or empty.
        inputs: resolved; in a preview some can be `UNKNOWN`.
        dependencies: URNs, sorted.
        property_dependencies: input name → URNs, sorted.
        provider: the reference `urn::id` of an explicit provider, or empty.
        aliases: as given; see `urns.older_urns`.
    """

    urn: str
    custom: bool
    inputs: Properties
    parent: str = ""
    dependencies: tuple[str, ...] = ()
    property_dependencies: tuple[tuple[str, tuple[str, ...]], ...] = ()
    provider: str = ""
    aliases: tuple[str | AliasSpec, ...] = ()
    options: Options = field(default_factory=Options)

    @property
    def type(self) -> str:
        return Urn.parse(self.urn).type

    @property
    def name(self) -> str:
        return Urn.parse(self.urn).name

    def needs(self) -> frozenset[str]:
        """The URNs that must have succeeded before this can be carried out."""
        by_property = {urn for _, urns in self.property_dependencies for urn in urns}
        others = {self.parent, self.provider.rpartition("::")[0], *self.options.replace_with}
        return frozenset({*self.dependencies, *by_property, *others} - {"", self.urn})


@dataclass(frozen=True)
class Decision:
    """Which step a registration asks for.

    Attributes:
        changed: the paths that differ.
        replaces: those that force a replacement.
        delete_first: the old copy goes before the new one comes.
    """

    kind: Kind
    changed: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    delete_first: bool = False


def decide(
    old: ResourceState | None,
    options: Options,
    diff: Diff | None,
    *,
    replaced: frozenset[str] = frozenset(),
    unfinished_update: bool = False,
) -> Decision:
    """The step that takes `old` to what is registered.

    Args:
        old: the resource as it is known; None when it is not.
        diff: the provider's comparison; None when there is nothing to compare.
        replaced: URNs that this run has replaced, for `replace_with`.
        unfinished_update: an update of it was begun and not known to have ended.

    Raises:
        MlopsError: the resource is protected and would be replaced.
    """
    if old is None or old.external:
        return Decision(Kind.IMPORT if options.import_id else Kind.CREATE)
    changed = diff.changed if diff is not None else ()
    patterns = [parse_path(text) for text in options.replace_on_changes]
    asked = [text for text in changed if any(covers(pattern, parse_path(text)) for pattern in patterns)]
    replaces = tuple(dict.fromkeys([*(diff.replace if diff is not None else ()), *asked]))
    followed = sorted(replaced & set(options.replace_with))
    if replaces or followed:
        if old.protect:
            reason = f"a change of {', '.join(f'`{path}`' for path in replaces)}" if replaces else "replace_with"
            raise MlopsError(
                f"{old.urn} is protected and would be replaced because of {reason}",
                fix="undo the change; or set protect=False, apply that, and then make the change.",
            )
        first = options.delete_before_replace
        if first is None:
            first = diff is not None and diff.delete_before_replace
        return Decision(Kind.REPLACE, changed, replaces or tuple(followed), first)
    if changed or unfinished_update:
        return Decision(Kind.UPDATE, changed)
    return Decision(Kind.SAME)


def refuse_deletion(known: ResourceState) -> None:
    """Raises MlopsError when a resource is protected and would be deleted."""
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
    """The resources that have to be deleted before `urn` is, dependents first, without `urn` itself.

    As in Pulumi: a dependent goes when one of its properties comes from a resource that goes, and a change of
    that property would replace it; what only waits for it by `depends_on` stays.

    Args:
        must_follow: whether a change of those top-level inputs would replace that resource.
    """
    going = {urn}
    found: list[ResourceState] = []
    for known in in_creation_order(resources):
        if known.urn in going or not known.custom or known.external:
            continue
        affected = frozenset(
            key for key, urns in known.property_dependencies if any(needed in going for needed in urns)
        )
        if affected and must_follow(known, affected):
            going.add(known.urn)
            found.append(known)
    return found[::-1]


def in_creation_order(resources: Mapping[str, ResourceState]) -> list[ResourceState]:
    """The resources, each after all that it needs. A circle, which only a damaged state has, is cut."""
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
    """For each that goes (by URN and id), those that must be gone before it."""
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
    """Inputs a provider can check although some are not known yet: those keep their old value, or are left out."""
    unknown = set(unknown)
    known = {key: value for key, value in inputs.items() if key not in unknown}
    return {**known, **{key: old[key] for key in unknown if key in old}}
