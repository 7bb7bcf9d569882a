"""Find the changes of a contract that break consumers of its data.

A consumer may rely on every promise of the old contract: a column exists, has a type, is never null, stays within
bounds. Removing or weakening a promise is a breaking change. A stricter promise or a new column is not, nor is a change
that only affects producers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pipelines.data.checks import is_row_rule
from pipelines.declarations.contract import Column, Contract, Quality


@dataclass(frozen=True)
class BreakingChange:
    """A promise of the old contract that the new one removes or weakens.

    Attributes:
        column: name of the column, or "" for the dataset.
        promise: the key of the contract.
        before: its old value.
        after: its new value.
    """

    column: str
    promise: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.column or 'the dataset'}: {self.promise} was {self.before}, is {self.after}"


def breaking_changes(old: Contract, new: Contract) -> list[BreakingChange]:
    """List the breaking changes from `old` to `new`, in the column order of `old`; empty if there are none."""
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
        yield BreakingChange(name, "the column", "present", "removed")
        return
    if old.logical_type != new.logical_type:
        yield BreakingChange(name, "logicalType", old.logical_type, new.logical_type)
        return
    if old.stored_as != new.stored_as:
        yield BreakingChange(name, "physicalType", old.stored_as, new.stored_as)
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
        if not _is_implied(rule, new) and not (rule.metric == "invalidValues" and new.valid_values is None)
    ]
    yield from _weaker_rules(name, tuple(others), new.quality)


def _is_never_null(column: Column) -> bool:
    none = [rule for rule in column.quality if rule.metric in ("nullValues", "missingValues") and is_row_rule(rule)]
    return column.required or column.primary_key or bool(none)


def _is_unique(column: Column, contract: Contract | None = None) -> bool:
    return column.unique or (contract is not None and contract.primary_key == (column.name,))


def _is_implied(rule: Quality, column: Column) -> bool:
    """Return True if the column's own keys make the same promise as the rule."""
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
        # We cannot tell which of two regular expressions is stricter.
        yield BreakingChange(old.name, "pattern", before.pattern, _or_none(after.pattern))


def _or_none(value: object) -> str:
    return "none" if value is None else str(value)


@dataclass(frozen=True)
class _Bound:
    """Lower or upper bound; a greater weight is stricter."""

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
    """Return the lower and upper bound of a rule as (weight, exclusive); a greater weight is stricter."""
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
    """Return True if `old` allows every value that `new` allows."""
    (new_low, new_high), (old_low, old_high) = _interval(new), _interval(old)
    return new_low >= old_low and new_high >= old_high


def _bounds(rule: Quality) -> str:
    bounds = rule.model_dump(
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
    return " ".join(f"{key} {value:g}" for key, value in bounds.items()) + (
        " percent" if rule.unit == "percent" else ""
    )
