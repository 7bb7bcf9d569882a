"""What is done to one resource: the kinds of steps, and what people are shown of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from laptop.engine.paths import changed_paths, write_path
from laptop.engine.state import SECRET_MASK
from laptop.engine.urns import Urn
from laptop.engine.values import Properties, PropertyPath, lookup


class Kind(StrEnum):
    """What a step does."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    DELETE_REPLACED = "delete replaced"  # the old copy of a replaced resource
    FORGET = "forget"  # leaves the state, stays at the target
    IMPORT = "import"
    READ = "read"
    SAME = "same"
    DRIFTED = "drifted"  # a refresh found other values
    GONE = "gone"  # a refresh found nothing
    SKIPPED = "skipped"  # what it depends on failed


CHANGES_NOTHING = frozenset({Kind.SAME, Kind.READ, Kind.SKIPPED})


@dataclass(frozen=True)
class Change:
    """One property that differs.

    Attributes:
        path: as people write it.
        old: the value before, None when there was none; `[secret]` when it is one.
        new: the value after, likewise; `UNKNOWN` when only an `up` will know.
    """

    path: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Step:
    """What was done, or would be done, to a resource.

    Attributes:
        changes: the properties that differ, for updates, replacements and drift.
        replaces: those paths that force a replacement.
        recorded: why nothing stands for it at the target, or empty.
        without: properties that have no effect at the target, each with the reason.
        error: why it failed, or empty.
        seconds: how long it took.
    """

    kind: Kind
    urn: str
    changes: tuple[Change, ...] = ()
    replaces: tuple[str, ...] = ()
    recorded: str = ""
    without: tuple[tuple[str, str], ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def type(self) -> str:
        return Urn.parse(self.urn).type

    @property
    def name(self) -> str:
        return Urn.parse(self.urn).name


def describe_changes(old: Properties, new: Properties, reported: Iterable[str]) -> tuple[Change, ...]:
    """What differs between two property bags, for people; secrets are masked.

    Args:
        reported: paths that a provider reported. Under each the deepest differences are shown; one under which
            the bags do not differ is shown as a whole.
    """
    found = changed_paths(old.values, new.values)
    tops = {text.partition(".")[0].partition("[")[0] for text in reported}
    shown = [path for path in found if str(path[0]) in tops]
    covered = {str(path[0]) for path in shown}
    shown += [(top,) for top in sorted(tops - covered) if top]
    return tuple(Change(write_path(path), _shown(old, path), _shown(new, path)) for path in sorted(shown, key=str))


def _shown(properties: Properties, path: PropertyPath) -> Any:
    value = lookup(properties.values, path)
    if value is None:
        return None
    touched = any(path[: len(secret)] == secret[: len(path)] for secret in properties.secrets)
    return SECRET_MASK if touched else value


def summarise(steps: Iterable[Step]) -> dict[str, int]:
    """How many resources each kind of outcome befell, `failed` and `recorded` among them.

    And how many of them have properties that are recorded only, where there are any: `partly`.
    """
    counts: Counter[str] = Counter()
    for step in steps:
        if step.without and not step.error:
            counts["partly"] += 1
        if step.error:
            counts["failed"] += 1
        elif step.recorded and step.kind in (Kind.CREATE, Kind.REPLACE, Kind.UPDATE):
            counts["recorded"] += 1
        else:
            counts[step.kind.value] += 1
    return dict(counts)
