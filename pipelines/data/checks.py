"""A contract as checks in SQL: which values break which rule. Nothing is run here.

A row is checked against everything that can be said of it alone (`rules`) and of it among the others of its batch
(`unique_groups`). A quality rule of the contract whose bound is 0 speaks of rows, too: each row that breaks it goes to
quarantine. Any other bound speaks of the batch (`batch_rules`): a batch that breaks it is refused.
"""

# ruff: noqa: S608 - the SQL is made of a reviewed contract; names and texts go through `quote` and `literal`
from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

from pipelines.data.columns import IN_SQL, stored_as
from pipelines.data.reading import PROBLEMS, ROW, Batch, Refused
from pipelines.declarations.contract import Column, Contract, Quality
from pipelines.declarations.errors import MlopsError

INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
UNSIGNED = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
HUGE = ("HUGEINT", "UHUGEINT")
FLOATING = ("FLOAT", "DOUBLE")
TIMESTAMPS = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE")

ROW_NUMBER = "file_row_number"
"""DuckDB's name for the number of a row in a Parquet file, from 0."""

WRITTEN_INTEGER = r"[+-]?[0-9]+(\.0*)?"
WRITTEN_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
WRITTEN_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
WRITTEN_ZONE = r"(Z|[+-][0-9]{2}:[0-9]{2})"
WRITTEN_TIMESTAMP = WRITTEN_DATE + r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?" + WRITTEN_ZONE + "?"
"""How values are written in text files. 19.0 is an integer: that is how integers look that went through a data frame.
DuckDB's own casts take more than that (spaces, 1_000, rounding 19.5), and are only asked after these."""

KINDS = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date (2026-01-31)",
    "timestamp": "a timestamp (2026-01-31T12:00:00Z)",
}


@dataclass(frozen=True)
class Rule:
    """A rule that a single row can break.

    Attributes:
        column: the column's name.
        name: the rule, as the contract calls it.
        expected: what a value must be, for people.
        broken: SQL over the columns of `typed_rows`: true when the row breaks the rule; null or false when not.
        suspect: cheaper SQL by which the rows that break it are found among all: true for each of them, and for no
            row that breaks no rule. None when it is `broken` itself; "" when the column's other rules find them.
    """

    column: str
    name: str
    expected: str
    broken: str
    suspect: str | None = None


@dataclass(frozen=True)
class UniqueGroup:
    """Columns whose values, together, occur once.

    Attributes:
        columns: their names.
        name: the rule, as the contract calls it.
    """

    columns: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class BatchRule:
    """A rule about the batch.

    Attributes:
        quality: the rule, with its bounds.
        column: the column it speaks of, or "" for the table.
        broken: SQL of the rows that it counts; "" when it counts every row.
        unique: the columns whose repeated values it counts instead, or ().
    """

    quality: Quality
    column: str
    broken: str = ""
    unique: tuple[str, ...] = ()


def quote(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def value_of(column: str) -> str:
    """The name, in `typed_rows`, of a column's value in the type it is stored as: null when it is not of that type."""
    return f'"_value_{column}"'


def typed_rows(batch: Batch, contract: Contract) -> str:
    """A query of the batch's rows: `_row`, each column as it was found, `_value_<column>`, and `_problems`.

    Raises:
        Refused: a column of a Parquet file is of a type that cannot hold what the contract says.
    """
    if ROW_NUMBER in contract.columns:
        raise MlopsError(
            f"the contract {contract.name} has a column {ROW_NUMBER!r}, which DuckDB keeps for itself",
            fix="give the column another name",
        )
    path = literal(str(batch.path))
    parts = [quote(ROW) if batch.text else f"{ROW_NUMBER} + 1 AS {quote(ROW)}"]
    problems = []
    for column in contract.columns.values():
        found = batch.columns[column.name]
        converted = conversion(column, found, text=batch.text)
        if converted is None:
            problems.append(f"{column.name} of type {found} for {KINDS[column.logical_type]}")
            continue
        parts += [quote(column.name), f"{converted} AS {value_of(column.name)}"]
    if problems:
        raise Refused(batch.file, "columns of the contract's types", "; ".join(problems))
    if batch.text:
        return f"SELECT {', '.join((*parts, quote(PROBLEMS)))} FROM read_parquet({path})"
    return f"SELECT {', '.join(parts)}, NULL AS {quote(PROBLEMS)} FROM read_parquet({path}, {ROW_NUMBER} = true)"


def conversion(column: Column, found: str, *, text: bool) -> str | None:
    """SQL that converts a column to the type it is stored as without losing anything, or to null.

    Args:
        column: of the contract.
        found: DuckDB's type of the column in the file.
        text: whether the file is text, in which values of every type are written.

    Returns:
        None when no value of that type can be converted.
    """
    name, stored = quote(column.name), stored_as(column)
    target = IN_SQL[stored]
    if found == '"NULL"':  # a column without any value
        return f"CAST({name} AS {target})"
    if text:
        return _from_text(name, column.logical_type, stored)
    decimal = found.startswith("DECIMAL")
    match column.logical_type:
        case "string":
            return name if found == "VARCHAR" else None
        case "boolean":
            return name if found == "BOOLEAN" else None
        case "integer":
            if found in INTEGERS and INTEGERS[found] <= INTEGERS[target]:
                return name if found == target else f"CAST({name} AS {target})"
            if found in INTEGERS or found in UNSIGNED or found in HUGE:
                return f"TRY_CAST({name} AS {target})"
            if found in FLOATING or decimal:
                return f"CASE WHEN {name} = trunc({name}) THEN TRY_CAST({name} AS {target}) END"
        case "number":
            if found == target:
                return name
            small = INTEGERS.get(found, UNSIGNED.get(found, 64)) <= 32
            if found in INTEGERS or found in UNSIGNED or found in HUGE:
                exact = "HUGEINT" if found != "UHUGEINT" else "UHUGEINT"
                wide = f"CAST({name} AS {target})"
                back = f"TRY_CAST({wide} AS {exact}) = {name}"
                return wide if small and target == "DOUBLE" else f"CASE WHEN {back} THEN {wide} END"
            if found in FLOATING or decimal:
                return f"TRY_CAST({name} AS {target})"
        case "date":
            if found == "DATE":
                return name
            if found in TIMESTAMPS and found != "TIMESTAMP WITH TIME ZONE":
                day = f"CAST({name} AS DATE)"
                return f"CASE WHEN CAST({day} AS TIMESTAMP) = CAST({name} AS TIMESTAMP) THEN {day} END"
        case "timestamp":
            if found == "TIMESTAMP WITH TIME ZONE":
                return f"({name} AT TIME ZONE 'UTC')"
            if found in TIMESTAMPS:
                plain = f"CAST({name} AS TIMESTAMP)"
                if found == "TIMESTAMP_NS":
                    plain = f"CASE WHEN CAST({plain} AS TIMESTAMP_NS) = {name} THEN {plain} END"
                return plain
    return None


def _from_text(name: str, logical_type: str, stored: str) -> str:
    target = IN_SQL[stored]
    match logical_type:
        case "string":
            return name
        case "boolean":
            return f"CASE lower({name}) WHEN 'true' THEN true WHEN 'false' THEN false END"
        case "integer":
            return f"CASE WHEN {_written(name, WRITTEN_INTEGER)} THEN TRY_CAST({name} AS {target}) END"
        case "number":
            return f"CASE WHEN {_written(name, WRITTEN_NUMBER)} THEN TRY_CAST({name} AS {target}) END"
        case "date":
            return f"CASE WHEN {_written(name, WRITTEN_DATE)} THEN TRY_CAST({name} AS DATE) END"
        case _:
            # By way of TIMESTAMPTZ: a plain TIMESTAMP ignores the offset that is written. The session is in UTC.
            instant = f"CASE WHEN {_written(name, WRITTEN_TIMESTAMP)} THEN TRY_CAST({name} AS TIMESTAMPTZ) END"
            return f"(({instant}) AT TIME ZONE 'UTC')"


def _written(name: str, pattern: str) -> str:
    return f"regexp_full_match({name}, {literal(pattern)})"


def rules(contract: Contract, batch: Batch) -> list[Rule]:
    """Everything that a single row can break, in the order of the columns.

    Raises:
        MlopsError: a bound or a value of the contract is not of its column's type.
    """
    return [
        rule
        for column in contract.columns.values()
        for rule in _column_rules(column, conversion(column, batch.columns[column.name], text=batch.text))
    ]


def contract_rules(contract: Contract) -> list[Rule]:
    """The same for no batch in particular: by what names people know the rules, and what they expect."""
    return [rule for column in contract.columns.values() for rule in _column_rules(column, None)]


def _column_rules(column: Column, converted: str | None) -> Iterator[Rule]:
    name, value, kind = quote(column.name), value_of(column.name), KINDS[column.logical_type]
    options = column.options
    if column.required or column.primary_key:
        yield Rule(column.name, "required", "a value", f"{name} IS NULL")
    bits = {"int": ", of 32 bits", "long": ", of 64 bits"}.get(stored_as(column), "")
    if converted not in (name, f"CAST({name} AS {IN_SQL[stored_as(column)]})"):
        yield Rule(column.name, "type", f"{kind}{bits}", f"({name} IS NOT NULL AND {value} IS NULL)")
    if column.logical_type == "number":
        # DuckDB orders NaN above every number, so bounds on both sides find what is not finite.
        low = options.minimum is not None or options.exclusive_minimum is not None
        high = options.maximum is not None or options.exclusive_maximum is not None
        found = "" if low and high else None
        yield Rule(column.name, "finite", "a finite number", f"NOT isfinite({value})", found)
    for rule, bound, says, sign in (
        ("minimum", options.minimum, "at least", "<"),
        ("exclusiveMinimum", options.exclusive_minimum, "more than", "<="),
        ("maximum", options.maximum, "at most", ">"),
        ("exclusiveMaximum", options.exclusive_maximum, "less than", ">="),
    ):
        if bound is not None:
            beyond = f"{value} {sign} {_in_sql(column, bound)}"
            broken = f"({beyond} AND isfinite({value}))" if column.logical_type == "number" else beyond
            yield Rule(column.name, rule, f"{says} {bound}", broken, beyond)
    if options.min_length is not None:
        yield Rule(
            column.name,
            "minLength",
            f"at least {options.min_length} characters",
            f"length({value}) < {options.min_length}",
        )
    if options.max_length is not None:
        yield Rule(
            column.name,
            "maxLength",
            f"at most {options.max_length} characters",
            f"length({value}) > {options.max_length}",
        )
    if options.pattern is not None:
        yield Rule(
            column.name, "pattern", f"text that matches {options.pattern}", f"NOT {_written(value, options.pattern)}"
        )
    for quality in column.quality:
        if speaks_of_rows(quality) and quality.metric != "duplicateValues":
            yield Rule(column.name, quality.metric, *_counted(column, quality))


def _counted(column: Column, quality: Quality) -> tuple[str, str]:
    """What a value must be, and SQL of the rows whose value a metric counts."""
    name, value = quote(column.name), value_of(column.name)
    if quality.metric == "nullValues":
        return "a value", f"{name} IS NULL"
    if quality.metric == "missingValues":
        empty = f" OR {value} = ''" if column.logical_type == "string" else ""
        return "a value", f"({name} IS NULL{empty})"
    valid = (quality.arguments.valid_values if quality.arguments is not None else None) or ()
    listed = ", ".join(_in_sql(column, item) for item in valid)
    return f"one of {', '.join(str(item) for item in valid)}", f"{value} NOT IN ({listed})"


def _in_sql(column: Column, value: str | int | float | bool) -> str:
    """A bound or a listed value as SQL, in the type of its column."""
    try:
        match column.logical_type:
            case "boolean" if isinstance(value, bool):
                return str(value).lower()
            case "integer" | "number" if isinstance(value, int | float) and not isinstance(value, bool):
                return str(value) if isinstance(value, int) else f"CAST({value!r} AS DOUBLE)"
            case "string" if isinstance(value, str):
                return literal(value)
            case "date" if isinstance(value, str):
                return f"DATE {literal(date.fromisoformat(value).isoformat())}"
            case "timestamp" if isinstance(value, str):
                at = datetime.fromisoformat(value)
                at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
                return f"TIMESTAMP {literal(at.replace(tzinfo=None).isoformat(sep=' '))}"
    except ValueError:
        pass
    raise MlopsError(
        f"the contract's column {column.name!r} is of type {column.logical_type}, and {value!r} is not "
        f"{KINDS[column.logical_type]}",
        fix="correct the bound or the listed value in the contract",
    )


def speaks_of_rows(quality: Quality) -> bool:
    """Whether a rule lets no row break it: then each row that does can be named."""
    return quality.must_be == 0 or quality.must_be_less_or_equal_to == 0


def unique_groups(contract: Contract) -> list[UniqueGroup]:
    """The columns, or groups of them, whose values must not repeat: the primary key first."""
    groups = [UniqueGroup(contract.primary_key, "primaryKey")]
    for column in contract.columns.values():
        no_duplicates = any(q.metric == "duplicateValues" and speaks_of_rows(q) for q in column.quality)
        if column.unique or no_duplicates:
            groups.append(UniqueGroup((column.name,), "unique" if column.unique else "duplicateValues"))
    for quality in contract.table.quality:
        if quality.metric == "duplicateValues" and speaks_of_rows(quality):
            groups.append(UniqueGroup(_properties(contract, quality), "duplicateValues"))
    distinct: dict[tuple[str, ...], UniqueGroup] = {}
    for group in groups:
        distinct.setdefault(group.columns, group)
    return list(distinct.values())


def _properties(contract: Contract, quality: Quality) -> tuple[str, ...]:
    """The columns that a `duplicateValues` rule on the table speaks of: all of them when it names none."""
    named = quality.arguments.properties if quality.arguments is not None else None
    columns = tuple(named or contract.columns)
    unknown = [name for name in columns if name not in contract.columns]
    if unknown:
        raise MlopsError(
            f"the contract {contract.name} has a rule on duplicateValues of {', '.join(unknown)}, which it lacks",
            fix=f"the columns are {', '.join(contract.columns)}",
        )
    return columns


def batch_rules(contract: Contract) -> list[BatchRule]:
    """The rules whose bounds are about the batch.

    Raises:
        MlopsError: a rule on the table that only makes sense on a column.
    """
    found = []
    for quality in contract.table.quality:
        if quality.metric == "rowCount":
            found.append(BatchRule(quality, ""))
        elif quality.metric != "duplicateValues":
            raise MlopsError(
                f"the contract {contract.name} has a rule on {quality.metric} of the table",
                fix="move it to the column that it speaks of",
            )
        elif not speaks_of_rows(quality):
            found.append(BatchRule(quality, "", unique=_properties(contract, quality)))
    for column in contract.columns.values():
        for quality in column.quality:
            if speaks_of_rows(quality):
                continue
            if quality.metric == "duplicateValues":
                found.append(BatchRule(quality, column.name, unique=(column.name,)))
            else:
                found.append(BatchRule(quality, column.name, broken=_counted(column, quality)[1]))
    return found


def bounds_broken(quality: Quality, count: int, rows: int) -> str | None:
    """What the bounds of a rule ask for, when a count breaks them; else None.

    Args:
        quality: the rule.
        count: how many rows (or values) it counts.
        rows: how many rows there are, for rules in percent.
    """
    figure = float(count)
    if quality.unit == "percent":
        figure = 100.0 * count / rows if rows else 0.0
    asked = (
        (quality.must_be, "exactly", operator.eq),
        (quality.must_be_greater_than, "more than", operator.gt),
        (quality.must_be_greater_or_equal_to, "at least", operator.ge),
        (quality.must_be_less_than, "less than", operator.lt),
        (quality.must_be_less_or_equal_to, "at most", operator.le),
    )
    unit = "percent" if quality.unit == "percent" else "rows"
    broken = [
        f"{says} {bound:g} {unit}" for bound, says, kept in asked if bound is not None and not kept(figure, bound)
    ]
    return " and ".join(broken) or None
