"""What a new version of a contract takes from those who read the data.

A reader relies on every promise of the old contract: that a column is there, is of a type, has a value, lies within
bounds. A promise that is gone or weaker breaks it. A stricter promise, or a column more, does not; neither does what
only those who deliver the data feel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pipelines.data.checks import speaks_of_rows
from pipelines.data.columns import stored_as
from pipelines.declarations.contract import Column, Contract, Quality


@dataclass(frozen=True)
class BreakingChange:
    """A promise of the old contract that the new one does not make.

    Attributes:
        column: the column, or "" for the dataset.
        promise: what was promised, by the contract's key.
        before: what the old contract says.
        after: what the new one says.
    """

    column: str
    promise: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.column or 'the dataset'}: {self.promise} was {self.before}, is {self.after}"


def breaking_changes(old: Contract, new: Contract) -> list[BreakingChange]:
    """Every promise of `old` that `new` does not keep, by column in the old order; [] when readers lose nothing."""
    return [
        *_of_dataset(old, new),
        *(change for name, column in old.columns.items() for change in _of(column, new, name)),
    ]


def _of_dataset(old: Contract, new: Contract) -> Iterator[BreakingChange]:
    if old.name != new.name:
        yield BreakingChange("", "name", old.name, new.name)
    if new.status == "retired" and old.status != "retired":
        yield BreakingChange("", "status", old.status, new.status)
    if old.primary_key != new.primary_key:
        yield BreakingChange("", "primaryKey", ", ".join(old.primary_key), ", ".join(new.primary_key))
    yield from _weaker_rules("", old.table.quality, new.table.quality)


def _of(old: Column, contract: Contract, name: str) -> Iterator[BreakingChange]:
    new = contract.columns.get(name)
    if new is None:
        yield BreakingChange(name, "the column", "there", "gone")
        return
    if old.logical_type != new.logical_type:
        yield BreakingChange(name, "logicalType", old.logical_type, new.logical_type)
        return
    if stored_as(old) != stored_as(new):
        yield BreakingChange(name, "physicalType", stored_as(old), stored_as(new))
    if _is_never_null(old) and not _is_never_null(new):
        yield BreakingChange(name, "required", "true", "false")
    if _is_unique(old) and not _is_unique(new, contract):
        yield BreakingChange(name, "unique", "true", "false")
    yield from _weaker_bounds(old, new)
    if old.valid_values is not None:
        listed = None if new.valid_values is None else set(new.valid_values)
        more = (
            "any"
            if listed is None
            else ", ".join(str(value) for value in sorted(listed - set(old.valid_values), key=str))
        )
        if more:
            yield BreakingChange(
                name, "validValues", _listed(old.valid_values), more if listed is None else f"also {more}"
            )
    others = [
        rule
        for rule in old.quality
        if not _says_more_simply(rule, new) and not (rule.metric == "invalidValues" and new.valid_values is None)
    ]
    yield from _weaker_rules(name, tuple(others), new.quality)


def _is_never_null(column: Column) -> bool:
    none = [rule for rule in column.quality if rule.metric in ("nullValues", "missingValues") and speaks_of_rows(rule)]
    return column.required or column.primary_key or bool(none)


def _is_unique(column: Column, contract: Contract | None = None) -> bool:
    return column.unique or (contract is not None and contract.primary_key == (column.name,))


def _says_more_simply(rule: Quality, column: Column) -> bool:
    """Whether a column's own keys promise what a rule does."""
    if rule.metric == "nullValues":
        return column.required or column.primary_key
    return rule.metric == "duplicateValues" and column.unique


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in values)


def _weaker_bounds(old: Column, new: Column) -> Iterator[BreakingChange]:
    before, after = old.options, new.options
    lower = (
        _tightest(old, before.minimum, before.exclusive_minimum, 1),
        _tightest(new, after.minimum, after.exclusive_minimum, 1),
    )
    upper = (
        _tightest(old, before.maximum, before.exclusive_maximum, -1),
        _tightest(new, after.maximum, after.exclusive_maximum, -1),
    )
    for promise, (was, now) in (("minimum", lower), ("maximum", upper)):
        if was is not None and (now is None or now.weight < was.weight):
            yield BreakingChange(old.name, promise, str(was), "none" if now is None else str(now))
    if before.min_length is not None and (after.min_length is None or after.min_length < before.min_length):
        yield BreakingChange(old.name, "minLength", str(before.min_length), _or_none(after.min_length))
    if before.max_length is not None and (after.max_length is None or after.max_length > before.max_length):
        yield BreakingChange(old.name, "maxLength", str(before.max_length), _or_none(after.max_length))
    if before.pattern is not None and after.pattern != before.pattern:
        # Whether one regular expression takes less than another is not decided here.
        yield BreakingChange(old.name, "pattern", before.pattern, _or_none(after.pattern))


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)


@dataclass(frozen=True)
class _Bound:
    """A bound on one side; a heavier one leaves fewer values."""

    text: str
    exclusive: bool
    weight: tuple[float, bool]

    def __str__(self) -> str:
        return f"{self.text} (exclusive)" if self.exclusive else self.text


def _tightest(column: Column, inclusive: Any, exclusive: Any, sign: int) -> _Bound | None:
    bounds = [
        _Bound(str(bound), strict, (sign * _as_number(column, bound), strict))
        for bound, strict in ((inclusive, False), (exclusive, True))
        if bound is not None
    ]
    return max(bounds, key=lambda bound: bound.weight, default=None)


def _as_number(column: Column, bound: Any) -> float:
    if column.logical_type == "date":
        return float(date.fromisoformat(str(bound)).toordinal())
    if column.logical_type == "timestamp":
        at = datetime.fromisoformat(str(bound))
        return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()
    return float(bound)


def _weaker_rules(column: str, old: tuple[Quality, ...], new: tuple[Quality, ...]) -> Iterator[BreakingChange]:
    for rule in old:
        same = [other for other in new if _subject(other) == _subject(rule)]
        if not any(_keeps(other, rule) for other in same):
            now = " or ".join(_bounds(other) for other in same) or "none"
            yield BreakingChange(column, rule.metric, _bounds(rule), now)


def _subject(rule: Quality) -> tuple[object, ...]:
    arguments = rule.arguments
    return rule.metric, rule.unit, arguments.properties if arguments else None


def _interval(rule: Quality) -> tuple[tuple[float, bool], tuple[float, bool]]:
    """The figures that a rule allows: its lower and its upper end, each heavier the fewer it leaves."""
    lows = [(float("-inf"), False)]
    highs = [(float("-inf"), False)]
    if rule.must_be is not None:
        lows.append((rule.must_be, False))
        highs.append((-rule.must_be, False))
    for bound, strict in ((rule.must_be_greater_or_equal_to, False), (rule.must_be_greater_than, True)):
        if bound is not None:
            lows.append((bound, strict))
    for bound, strict in ((rule.must_be_less_or_equal_to, False), (rule.must_be_less_than, True)):
        if bound is not None:
            highs.append((-bound, strict))
    return max(lows), max(highs)


def _keeps(new: Quality, old: Quality) -> bool:
    """Whether every figure that `new` allows, `old` allows."""
    (new_low, new_high), (old_low, old_high) = _interval(new), _interval(old)
    return new_low >= old_low and new_high >= old_high


def _bounds(rule: Quality) -> str:
    said = rule.model_dump(
        by_alias=True,
        exclude_none=True,
        include={
            "must_be",
            "must_be_greater_than",
            "must_be_greater_or_equal_to",
            "must_be_less_than",
            "must_be_less_or_equal_to",
        },
    )
    return " ".join(f"{key} {value:g}" for key, value in said.items()) + (" percent" if rule.unit == "percent" else "")
