"""Steps: what a run does to one resource, and the changes shown for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from laptop.engine.paths import changed_paths, write_path
from laptop.engine.state_file import SECRET_MASK
from laptop.engine.urns import Urn
from laptop.engine.values import Properties, PropertyPath, lookup


class StepKind(StrEnum):
    """Kind of a step."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    DELETE_REPLACED = "delete replaced"  # the old copy of a replaced resource
    FORGET = "forget"  # removed from the state, kept in the account or cluster
    READ = "read"
    IMPORT = "import"  # taken over from the account or cluster
    SAME = "same"
    DRIFTED = "drifted"  # a refresh found other values
    GONE = "gone"  # a refresh found nothing
    SKIPPED = "skipped"  # a dependency failed


CHANGES_NOTHING = frozenset({StepKind.SAME, StepKind.READ, StepKind.SKIPPED})


@dataclass(frozen=True)
class PropertyChange:
    """One property that differs.

    Attributes:
        path: property path (`tags.owner`).
        old: value before, None if absent, `[secret]` if secret.
        new: value after, likewise; `UNKNOWN` if it is known only after an `up`.
    """

    path: str
    old: Any
    new: Any


@dataclass(frozen=True)
class ResourceStep:
    """A completed or planned step.

    Attributes:
        changes: properties that differ, for updates, replacements and drift.
        replaces: changed paths that force a replacement.
        recorded: reason why the resource exists in the state only, or "".
        without: properties without effect on the laptop, each with the reason.
        error: why it failed, or "".
        seconds: duration.
    """

    kind: StepKind
    urn: str
    changes: tuple[PropertyChange, ...] = ()
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


def describe_changes(old: Properties, new: Properties, reported: Iterable[str]) -> tuple[PropertyChange, ...]:
    """Describe the differences between two property bags, with secrets masked.

    Args:
        reported: paths that a provider reported. The deepest differences under each are described; a path without
            a difference is described as a whole.
    """
    found = changed_paths(old.values, new.values)
    tops = {text.partition(".")[0].partition("[")[0] for text in reported}
    shown = [path for path in found if str(path[0]) in tops]
    covered = {str(path[0]) for path in shown}
    shown += [(top,) for top in sorted(tops - covered) if top]
    return tuple(
        PropertyChange(write_path(path), _shown(old, path), _shown(new, path)) for path in sorted(shown, key=str)
    )


def _shown(properties: Properties, path: PropertyPath) -> Any:
    value = lookup(properties.values, path)
    if value is None:
        return None
    touched = any(path[: len(secret)] == secret[: len(path)] for secret in properties.secrets)
    return SECRET_MASK if touched else value


def summarise(steps: Iterable[ResourceStep]) -> dict[str, int]:
    """Count resources by outcome, including `failed` and `recorded`.

    `partly` counts those that have properties without effect on the laptop.
    """
    counts: Counter[str] = Counter()
    for step in steps:
        if step.without and not step.error:
            counts["partly"] += 1
        if step.error:
            counts["failed"] += 1
        elif step.recorded and step.kind in (StepKind.CREATE, StepKind.REPLACE, StepKind.UPDATE):
            counts["recorded"] += 1
        else:
            counts[step.kind.value] += 1
    return dict(counts)
