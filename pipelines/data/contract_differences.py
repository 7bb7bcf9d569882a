"""List the differences between two versions of a contract: for consumers, for producers, and for readers only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.data.row_retention import row_retention
from pipelines.data.schema_compatibility import BreakingChange, breaking_changes
from pipelines.declarations.contract import Contract

Level = Literal["major", "minor", "patch"]

LEVELS: tuple[Level, ...] = ("patch", "minor", "major")

_CHECKED = (
    "enum",
    "logicalType",
    "logicalTypeOptions",
    "physicalType",
    "primaryKey",
    "primaryKeyPosition",
    "quality",
    "relationships",
    "required",
    "unique",
)
"""Keys that checks enforce. `breaking_changes` compares what they mean."""


_LISTS = ("slaProperties", "customProperties")
"""Keys that list entries with a property and a value."""


@dataclass(frozen=True)
class ContractDifference:
    """One difference between two versions of a contract.

    Attributes:
        column: name of the column, or "" for the dataset.
        key: the key of the contract.
        before, after: its values.
        breaks_consumers: True if a promise that consumers may rely on is removed or weakened.
        breaks_producers: True if files that kept the old contract may break the new one.
        widens: True if it only lets more values in, which breaks models that read the column.
        final: True if no version allows it, because the table cannot make the change.
    """

    column: str
    key: str
    before: str
    after: str
    breaks_consumers: bool = False
    breaks_producers: bool = False
    widens: bool = False
    final: bool = False

    def level(self, read: Collection[str]) -> Level:
        """Return the part of the version that the difference must raise.

        Args:
            read: columns that a model reads.
        """
        if self.breaks_consumers and (not self.widens or self.column in read):
            return "major"
        return "minor" if self.breaks_consumers or self.breaks_producers else "patch"

    def __str__(self) -> str:
        sides = [side for side, broken in _sides(self) if broken]
        effect = f"breaks {' and '.join(sides)}" if sides else "breaks nothing"
        return f"{self.column or 'the dataset'}: {self.key} was {self.before}, is {self.after} ({effect})"


def _sides(difference: ContractDifference) -> tuple[tuple[str, bool], ...]:
    return ("consumers", difference.breaks_consumers), ("producers", difference.breaks_producers)


def contract_differences(old: Contract, new: Contract) -> list[ContractDifference]:
    """List the differences between two versions of a contract, the breaking ones first.

    A producer must deliver exactly the contract's columns and keep its rules. So what weakens a promise in one
    direction demands more in the other.
    """
    consumers = breaking_changes(old, new)
    producers = breaking_changes(new, old)  # a promise that only the new contract makes
    found: dict[tuple[str, str], ContractDifference] = {}
    for change in consumers:
        found[change.column, change.promise] = _difference(change, breaks_consumers=True)
    for change in producers:
        before, after = change.after, change.before
        if change.promise == "the column":
            before, after = "absent", "added"
        swapped = BreakingChange(change.column, change.promise, before, after, final=change.final)
        known = found.get((change.column, change.promise))
        found[change.column, change.promise] = (
            _difference(swapped, breaks_producers=True) if known is None else _both(known)
        )
    for name in old.columns.keys() - new.columns.keys():  # files that still have the column are rejected
        found[name, "the column"] = _both(found[name, "the column"])
    described = [each for each in _descriptions(old, new) if (each.column, each.key) not in found]
    return [*found.values(), *_retention(old, new), *described]


def _retention(old: Contract, new: Contract) -> Iterator[ContractDifference]:
    """Compare for how long rows stay. Removing them sooner breaks consumers, and cannot be undone."""
    before, after = (
        (kept[0].name, kept[1]) if (kept := row_retention(contract)) is not None else None for contract in (old, new)
    )
    if before == after:
        return
    is_shorter = after is not None and (before is None or before[0] != after[0] or after[1] < before[1])
    shown = ["for ever" if kept is None else f"{kept[1].days} days from {kept[0]}" for kept in (before, after)]
    yield ContractDifference("", "rows stay", shown[0], shown[1], breaks_consumers=is_shorter)


def _difference(change: BreakingChange, **effects: bool) -> ContractDifference:
    return ContractDifference(
        change.column,
        change.promise,
        change.before,
        change.after,
        widens=change.widens,
        final=change.final,
        **effects,
    )


def _both(known: ContractDifference) -> ContractDifference:
    return ContractDifference(
        known.column,
        known.key,
        known.before,
        known.after,
        breaks_consumers=True,
        breaks_producers=True,
        widens=known.widens,
        final=known.final,
    )


def _descriptions(old: Contract, new: Contract) -> Iterator[ContractDifference]:
    """List the keys that differ and that no check enforces, of the dataset and of the columns of both."""
    yield from _keys("", _of_dataset(old), _of_dataset(new), (*_CHECKED, "version"))
    for name, column in old.columns.items():
        other = new.columns.get(name)
        if other is not None:
            was, now = (_by_property(each.model_dump(mode="json", by_alias=True)) for each in (column, other))
            yield from _keys(name, was, now, _CHECKED)


def _of_dataset(contract: Contract) -> dict[str, Any]:
    """Return the keys of a contract and of its table, without those of its columns."""
    whole = contract.model_dump(mode="json", by_alias=True, exclude={"tables"})
    table = contract.table.model_dump(mode="json", by_alias=True, exclude={"name", "description", "properties"})
    both = whole.keys() & table.keys()  # none of which may hide the other
    named = {f"table {key}" if key.split()[0] in both else key: value for key, value in _by_property(table).items()}
    return _by_property(whole) | named


def _by_property(dumped: dict[str, Any]) -> dict[str, Any]:
    """Give each service level and custom property a separate key, so that no long list hides a difference."""
    found = {key: value for key, value in dumped.items() if key not in _LISTS}
    for key in _LISTS:
        named: dict[str, list[Any]] = {}
        for entry in dumped.get(key) or ():
            said = {name: value for name, value in entry.items() if name != "property" and value not in (None, [], ())}
            named.setdefault(f"{key} {entry['property']}", []).append(said["value"] if set(said) == {"value"} else said)
        found |= {name: values[0] if len(values) == 1 else values for name, values in named.items()}
    return found


def _keys(
    column: str, before: Mapping[str, Any], after: Mapping[str, Any], skip: Collection[str]
) -> Iterator[ContractDifference]:
    for key in {**before, **after}:
        if key not in skip and before.get(key) != after.get(key):
            yield ContractDifference(column, key, _shown(before.get(key)), _shown(after.get(key)))


def _shown(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    text = value if isinstance(value, str) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:79] + "…"


def required_version(old: str, level: Level) -> str:
    """Return the least version that announces a difference; before 1.0.0 every part counts one place later.

    Args:
        old: the version before the change.
        level: the greatest level of the differences.
    """
    major, minor, patch = (int(part) for part in old.split("."))
    if major == 0:
        return f"0.{minor + 1}.0" if level == "major" else f"0.{minor}.{patch + 1}"
    if level == "major":
        return f"{major + 1}.0.0"
    return f"{major}.{minor + 1}.0" if level == "minor" else f"{major}.{minor}.{patch + 1}"


def greatest_level(differences: Collection[ContractDifference], read: Collection[str]) -> Level | None:
    """Return the greatest level of differences; None if there are none."""
    levels = [difference.level(read) for difference in differences]
    return max(levels, key=LEVELS.index) if levels else None


def is_announced(old: str, new: str, level: Level) -> bool:
    """Return True if a version announces differences of a level."""
    found, needed = (tuple(int(part) for part in text.split(".")) for text in (new, required_version(old, level)))
    return found >= needed
