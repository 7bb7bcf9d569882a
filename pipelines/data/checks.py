"""Translate a contract into SQL checks. `validate` runs them.

Three kinds of rules: on one row (`row_rules`), on rows that must differ from each other (`unique_groups`), and on the
whole batch (`batch_rules`). A metric with the bound 0 is a row rule: each row that breaks it is quarantined. With any
other bound it is a batch rule: a batch that breaks it is rejected. The SQL of a contract runs elsewhere: `sql_rules`.
"""

# ruff: noqa: S608 - the SQL comes from a reviewed contract; names and texts are escaped by `quote` and `literal`
from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.data.batch import PROBLEMS, ROW, Batch, LandingFileError
from pipelines.data.columns import SQL_TYPES
from pipelines.data.sql_quoting import literal, quote
from pipelines.declarations.contract import Column, Contract, LogicalType
from pipelines.declarations.quality import Quality
from pipelines.declarations.value_range import (
    OFFSET,
    Scalar,
    StoredType,
    in_sql,
    lower_limit,
    parse_value,
    position,
    upper_limit,
)

INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
UNSIGNED = {"UTINYINT": 8, "USMALLINT": 16, "UINTEGER": 32, "UBIGINT": 64}
HUGE = ("HUGEINT", "UHUGEINT")
FLOATING = ("FLOAT", "DOUBLE")
TIMESTAMPS = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE")

ROW_NUMBER = "file_row_number"
"""DuckDB's column with the number of a row in a Parquet file, from 0."""

WRITTEN_INTEGER = r"[+-]?[0-9]+(\.0*)?"
WRITTEN_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
WRITTEN_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
WRITTEN_TIMESTAMP = WRITTEN_DATE + r"[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?" + OFFSET + "?"
"""How values are written in text files. 19.0 is an integer: data frames write integers that way.

DuckDB's casts are more lenient (spaces, 1_000, rounding 19.5), so they run only on text that matches these patterns."""

KINDS: dict[LogicalType, str] = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date (2026-01-31) of the years 1 to 9999",
    "timestamp": "a timestamp (2026-01-31T12:00:00Z) of the years 1 to 9999",
}

_YEARS: dict[str, tuple[str, str]] = {
    "DATE": ("DATE '0001-01-01'", "DATE '9999-12-31'"),
    "TIMESTAMP": ("TIMESTAMP '0001-01-01 00:00:00'", "TIMESTAMP '9999-12-31 23:59:59.999999'"),
}
"""DuckDB type → its least and greatest value that Iceberg's writer and Python can hold. DuckDB holds more."""


@dataclass(frozen=True)
class RowRule:
    """RowRule on the value of a column in one row.

    Attributes:
        column: name of the column.
        name: name of the rule, as the contract calls it.
        expected: what the rule allows, for people.
        broken: SQL condition over the columns of `typed_rows`; true if the row breaks the rule, else false or null.
        suspect: cheaper SQL condition for the first pass over all rows. It is true for every row that breaks this
            rule, and only for rows that break some rule. None: use `broken`; "": the column's other rules suffice.
    """

    column: str
    name: str
    expected: str
    broken: str
    suspect: str | None = None


@dataclass(frozen=True)
class UniqueGroup:
    """Columns that are unique together.

    Attributes:
        columns: names of the columns.
        name: name of the rule, as the contract calls it.
    """

    columns: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class BatchRule:
    """Quality rule on the whole batch.

    Attributes:
        quality: the rule, with its bounds.
        column: name of the column, or "" for the table.
        broken: SQL condition of the rows to count; "" to count all rows.
        unique: columns whose repeated values to count instead, or ().
    """

    quality: Quality
    column: str
    broken: str = ""
    unique: tuple[str, ...] = ()


def value_of(column: str) -> str:
    """Name the column of `typed_rows` with a column's value in its stored type; null if the value does not convert."""
    return f'"_value_{column}"'


def typed_rows(batch: Batch, contract: Contract) -> str:
    """Write the query of a batch's rows: `_row`, each column as found, `_value_<column>` and `_problems`.

    Raises:
        LandingFileError: the type of a column in a Parquet file cannot be converted to the contract's.
    """
    path = literal(str(batch.path))
    parts = [quote(ROW) if batch.text else f"{ROW_NUMBER} + 1 AS {quote(ROW)}"]
    problems = []
    for column in contract.columns.values():
        found = batch.columns[column.name]
        converted = conversion(column, found, text=batch.text)
        if converted is None:
            problems.append(f"{column.name} of type {found} instead of {column.logical_type}")
            continue
        parts += [quote(column.name), f"{converted} AS {value_of(column.name)}"]
    if problems:
        raise LandingFileError(batch.file, "columns of the contract's types", "; ".join(problems))
    if batch.text:
        query = f"SELECT {', '.join((*parts, quote(PROBLEMS)))} FROM read_parquet({path})"
    else:
        query = f"SELECT {', '.join(parts)}, NULL AS {quote(PROBLEMS)} FROM read_parquet({path}, {ROW_NUMBER} = true)"
    if batch.replayed is None:
        return query
    chosen = f"SELECT {quote(ROW)} FROM read_parquet({literal(str(batch.replayed))})"
    return f"SELECT * FROM ({query}) SEMI JOIN ({chosen}) USING ({quote(ROW)})"


def conversion(column: Column, found: str, *, text: bool) -> str | None:
    """Write the SQL that converts a column to its stored type without loss; values that do not convert become null.

    Args:
        column: the column of the contract.
        found: DuckDB's type of the column in the file.
        text: True if the file holds the text of its values.

    Returns:
        The SQL expression, or None if the type cannot be converted at all.
    """
    converted = _converted(column, found, text=text)
    years = _YEARS.get(SQL_TYPES[column.stored_as])
    if converted is None or years is None or found == '"NULL"':
        return converted
    return f"CASE WHEN {converted} BETWEEN {years[0]} AND {years[1]} THEN {converted} END"


def _converted(column: Column, found: str, *, text: bool) -> str | None:
    name, target = quote(column.name), SQL_TYPES[column.stored_as]
    if found == '"NULL"':  # no row has a value
        return f"CAST({name} AS {target})"
    if text:
        return _from_text(name, column.logical_type, target)
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
            if found == "TIMESTAMPTZ_NS":
                plain = f"CAST({name} AS TIMESTAMPTZ)"
                return f"(CASE WHEN CAST({plain} AS TIMESTAMPTZ_NS) = {name} THEN {plain} END AT TIME ZONE 'UTC')"
            if found in TIMESTAMPS:
                plain = f"TRY_CAST({name} AS TIMESTAMP)"
                if found == "TIMESTAMP_NS":
                    plain = f"CASE WHEN CAST({plain} AS TIMESTAMP_NS) = {name} THEN {plain} END"
                return plain
    return None


def _from_text(name: str, logical_type: str, target: str) -> str:
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
            # Through TIMESTAMPTZ, because TIMESTAMP ignores the offset. The session is in UTC.
            instant = f"CASE WHEN {_written(name, WRITTEN_TIMESTAMP)} THEN TRY_CAST({name} AS TIMESTAMPTZ) END"
            return f"(({instant}) AT TIME ZONE 'UTC')"


def _written(name: str, pattern: str) -> str:
    return f"regexp_full_match({name}, {literal(pattern)})"


def row_rules(contract: Contract, batch: Batch) -> list[RowRule]:
    """List the rules on single rows, in the order of the columns.

    Args:
        contract: the contract.
        batch: the rules on types depend on the types in its file.
    """
    return [
        rule
        for column in contract.columns.values()
        for rule in _column_rules(
            column,
            conversion(column, batch.columns[column.name], text=batch.text),
            as_float=not batch.text and batch.columns[column.name] == "FLOAT",
        )
    ]


def contract_rules(contract: Contract) -> list[RowRule]:
    """List the rules on single rows for any batch, for their names and descriptions; see `row_rules`."""
    rules = [rule for column in contract.columns.values() for rule in _column_rules(column, None)]
    return rules + row_conditions(contract)


def _column_rules(column: Column, converted: str | None, *, as_float: bool = False) -> Iterator[RowRule]:
    """List the rules of a column.

    Args:
        column: the column.
        converted: SQL of its conversion; None if it is not known.
        as_float: True if the file holds it in 32 bits, so that decimals are compared in 32 bits.
    """
    name, value, kind = quote(column.name), value_of(column.name), KINDS[column.logical_type]
    options = column.options
    if column.required or column.primary_key:
        yield RowRule(column.name, "required", "a value", f"{name} IS NULL")
    bits = {"int": ", of 32 bits", "long": ", of 64 bits"}.get(column.stored_as, "")
    if converted not in (name, f"CAST({name} AS {SQL_TYPES[column.stored_as]})"):
        yield RowRule(column.name, "type", f"{kind}{bits}", f"({name} IS NOT NULL AND {value} IS NULL)")
    if column.logical_type == "number":
        # DuckDB sorts NaN above every number, so a pair of bounds also finds values that are not finite.
        low = options.minimum is not None or options.exclusive_minimum is not None
        high = options.maximum is not None or options.exclusive_maximum is not None
        found = "" if low and high else None
        yield RowRule(column.name, "finite", "a finite number", f"NOT isfinite({value})", found)
    stored: StoredType = "float" if as_float and column.logical_type == "number" else column.stored_as
    for rule, bound, words, limit, exclusive in (
        ("minimum", options.minimum, "at least", lower_limit, False),
        ("exclusiveMinimum", options.exclusive_minimum, "more than", lower_limit, True),
        ("maximum", options.maximum, "at most", upper_limit, False),
        ("exclusiveMaximum", options.exclusive_maximum, "less than", upper_limit, True),
    ):
        if bound is not None:
            sign = "<" if limit is lower_limit else ">"
            beyond = f"{_as_stored(value, column, stored)} {sign} "
            beyond += in_sql(stored, limit(stored, bound, exclusive=exclusive))
            broken = f"({beyond} AND isfinite({value}))" if column.logical_type == "number" else beyond
            yield RowRule(column.name, rule, f"{words} {bound}", broken, beyond)
    if column.decimals is not None:
        places = f"at most {column.decimals} digits after the point"
        yield RowRule(column.name, "physicalType", places, f"round({value}, {column.decimals}) <> {value}")
    if options.min_length is not None:
        yield RowRule(
            column.name,
            "minLength",
            f"at least {options.min_length} characters",
            f"length({value}) < {options.min_length}",
        )
    if options.max_length is not None:
        yield RowRule(
            column.name,
            "maxLength",
            f"at most {options.max_length} characters",
            f"length({value}) > {options.max_length}",
        )
    if options.pattern is not None:
        yield RowRule(
            column.name, "pattern", f"text that matches {options.pattern}", f"NOT {_written(value, options.pattern)}"
        )
    for rule, values in column.listed_values:
        yield RowRule(column.name, rule, *_unlisted(column, values, stored))
    for quality in column.rules:
        if not quality.is_for_rows or quality.type != "library":
            continue
        if quality.metric in ("nullValues", "missingValues"):
            yield RowRule(column.name, str(quality.metric), *_counted(column, quality))
        elif quality.pattern is not None:
            yield RowRule(column.name, str(quality.metric), *_unmatched(column, quality.pattern))


def _as_stored(value: str, column: Column, stored: StoredType) -> str:
    """Cast a value to the type in which it is compared."""
    return value if stored == column.stored_as else f"CAST({value} AS {SQL_TYPES[stored]})"


def _unlisted(column: Column, values: tuple[Scalar, ...], stored: StoredType) -> tuple[str, str]:
    """Return which values a list allows, and the SQL condition of the rows whose value is not one of them."""
    listed = ", ".join(_in_sql(stored, item) for item in values)
    value = _as_stored(value_of(column.name), column, stored)
    return f"one of {', '.join(str(item) for item in values)}", f"{value} NOT IN ({listed})"


def _in_sql(stored: StoredType, item: Scalar) -> str:
    """Write a listed value as SQL, in the type in which it is compared."""
    value = parse_value(stored, item)
    if isinstance(value, str):
        return literal(value)
    return str(value).lower() if isinstance(value, bool) else in_sql(stored, position(value))


def _unmatched(column: Column, pattern: str) -> tuple[str, str]:
    return f"text that matches {pattern}", f"NOT {_written(value_of(column.name), pattern)}"


def _counted(column: Column, quality: Quality) -> tuple[str, str]:
    """Return what a quality rule allows, and the SQL condition of the rows that its metric counts."""
    if quality.metric == "nullValues":
        return "a value", f"{quote(column.name)} IS NULL"
    if quality.metric == "missingValues":
        return _missing(column, quality)
    each = [_unlisted(column, quality.valid_values, column.stored_as)] if quality.valid_values else []
    each += [_unmatched(column, quality.pattern)] if quality.pattern is not None else []
    return " and ".join(expected for expected, _ in each), f"({' OR '.join(broken for _, broken in each)})"


def _missing(column: Column, quality: Quality) -> tuple[str, str]:
    name, value, missing = quote(column.name), value_of(column.name), quality.missing_values
    parts = [f"{name} IS NULL"] if None in missing else []
    # The text of a landing file is null if it is empty, so an empty text counts only for text columns.
    values = [each for each in missing if each is not None and (each != "" or column.logical_type == "string")]
    parts += [f"{value} IN ({', '.join(_in_sql(column.stored_as, each) for each in values)})"] if values else []
    listed = ", ".join(str(each) for each in missing if each not in (None, ""))
    return f"a value other than {listed}" if listed else "a value", f"({' OR '.join(parts) or 'false'})"


def row_conditions(contract: Contract) -> list[RowRule]:
    """List the rules on rows that other processes or other tables decide, for their names and descriptions."""
    found = [
        RowRule(", ".join(key.columns), key.label, f"a value in {', '.join(key.others)} of {key.dataset}", "false")
        for key in contract.foreign_keys
    ]
    return found + [
        RowRule(column, rule.label, rule.condition, "false")
        for column, rule in contract.sql_rules
        if rule.type == "custom" and rule.binds
    ]


def unique_groups(contract: Contract) -> list[UniqueGroup]:
    """List the groups of columns that are unique together, the primary key first."""
    groups = [UniqueGroup(contract.primary_key, "primaryKey")]
    for column in contract.columns.values():
        no_duplicates = any(q.metric == "duplicateValues" and q.is_for_rows for q in column.rules)
        if column.unique or no_duplicates:
            groups.append(UniqueGroup((column.name,), "unique" if column.unique else "duplicateValues"))
    for quality in contract.table.rules:
        if quality.metric == "duplicateValues" and quality.is_for_rows:
            groups.append(UniqueGroup(_properties(contract, quality), "duplicateValues"))
    distinct: dict[tuple[str, ...], UniqueGroup] = {}
    for group in groups:
        distinct.setdefault(group.columns, group)
    return list(distinct.values())


def _properties(contract: Contract, quality: Quality) -> tuple[str, ...]:
    """Return the columns of a `duplicateValues` rule on the table; all columns if it names none."""
    named = quality.arguments.properties if quality.arguments is not None else None
    return tuple(named or contract.columns)


def batch_rules(contract: Contract) -> list[BatchRule]:
    """List the metrics of the whole batch; those that do not bind are only reported."""
    found = []
    for quality in (*contract.table.rules, *contract.table.warnings):
        if quality.metric == "rowCount":
            found.append(BatchRule(quality, ""))
        elif quality.metric is not None and not quality.is_for_rows:
            found.append(BatchRule(quality, "", unique=_properties(contract, quality)))
    for column in contract.columns.values():
        for quality in (*column.rules, *column.warnings):
            if quality.is_for_rows or quality.metric is None:
                continue
            if quality.metric == "duplicateValues":
                found.append(BatchRule(quality, column.name, unique=(column.name,)))
            else:
                found.append(BatchRule(quality, column.name, broken=_counted(column, quality)[1]))
    return found


def described_bounds(rule: Quality) -> str:
    """Describe the bounds of a rule by the keys of the contract; "" if it has none."""
    bounds = [
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value[0]:g} {value[1]:g}"
        for key, value in rule.bounds.items()
    ]
    return " ".join(bounds) + (" percent" if rule.unit == "percent" else "")


def bounds_broken(quality: Quality, count: float, rows: int) -> str | None:
    """Describe the bounds of a rule that a figure breaks, or return None if it keeps them all.

    Args:
        quality: the rule.
        count: number of rows or values that the rule's metric counts, or what its query returns.
        rows: number of rows in the batch, for metrics in percent.
    """
    figure, unit = float(count), "" if quality.type == "sql" else f" {quality.unit}"
    if quality.type == "library" and quality.unit == "percent":
        figure = 100.0 * count / rows if rows else 0.0
    bounds = (
        (quality.must_be, "exactly", operator.eq),
        (quality.must_not_be, "not", operator.ne),
        (quality.must_be_greater_than, "more than", operator.gt),
        (quality.must_be_greater_or_equal_to, "at least", operator.ge),
        (quality.must_be_less_than, "less than", operator.lt),
        (quality.must_be_less_or_equal_to, "at most", operator.le),
    )
    broken = [
        f"{words} {bound:g}{unit}" for bound, words, kept in bounds if bound is not None and not kept(figure, bound)
    ]
    if (pair := quality.must_be_between) is not None and not pair[0] < figure < pair[1]:
        broken.append(f"more than {pair[0]:g} and less than {pair[1]:g}{unit}")
    if (pair := quality.must_not_be_between) is not None and pair[0] < figure < pair[1]:
        broken.append(f"at most {pair[0]:g} or at least {pair[1]:g}{unit}")
    return " and ".join(broken) or None
